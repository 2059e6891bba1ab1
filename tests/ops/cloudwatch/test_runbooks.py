"""The runbooks: one for each alarm, in one shape, and all that they name is there."""

import re
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import botocore.session
import pytest
import yaml
from botocore import xform_name

from ops.cloudwatch.dashboard import made
from ops.cloudwatch.rows import load
from ops.common.process import ROOT
from tests.conftest import Owner

CLOUDWATCH: Final = ROOT / "ops" / "cloudwatch"
RUNBOOKS: Final = {file.stem: file for file in (CLOUDWATCH / "runbooks").iterdir()}
EACH: Final = pytest.mark.parametrize("name", sorted(RUNBOOKS))

HEADINGS: Final = ["## First look", "## What to do", "## When to wake someone"]
LINES_MOST: Final = 60
WIDTH_MOST: Final = 120

# As kubectl lets people call kinds.
KINDS: Final = {
    "cronjob": "CronJob",
    "daemonset": "DaemonSet",
    "deployment": "Deployment",
    "hpa": "HorizontalPodAutoscaler",
    "job": "Job",
    "service": "Service",
}

# What the AWS command line adds to what AWS's APIs have, and what it takes with any command.
OF_THE_COMMAND_LINE: Final = {"eks update-kubeconfig", "logs tail", "rds wait"}
OF_ANY_COMMAND: Final = {"query", "output"}


def text(name: str) -> str:
    return RUNBOOKS[name].read_text(encoding="utf-8")


def said(name: str) -> str:
    """A runbook's text on one line, in which no name is broken."""
    return " ".join(text(name).split())


def blocks(name: str, language: str = r"\w+") -> list[str]:
    """What is between fences."""
    return re.findall(rf"^ *```{language}\n(.*?)^ *```$", text(name), re.DOTALL | re.MULTILINE)


def commands(name: str) -> list[str]:
    """What people paste: each line of a block, with those that continue it, and what stands in a sentence."""
    sentences = re.sub(r"^ *```\w+\n.*?^ *```$", "", text(name), flags=re.DOTALL | re.MULTILINE)
    inline = [" ".join(words.split()) for words in re.findall(r"`([^`]+)`", sentences)]
    return [*(line for block in blocks(name) for line in block.replace("\\\n", " ").splitlines()), *inline]


def objects() -> set[tuple[str, str, str]]:
    """Namespace, kind and name of all that k8s/ has."""
    found = set()
    for kustomization in (ROOT / "k8s").glob("*/kustomization.yaml"):
        namespace = yaml.safe_load(kustomization.read_text())["namespace"]
        for file in kustomization.parent.glob("*.yaml"):
            each: list[dict[str, Any]] = list(yaml.safe_load_all(file.read_text()))
            found |= {(namespace, one["kind"], one["metadata"]["name"]) for one in each if "metadata" in one}
    return found


def panels() -> set[tuple[str, str]]:
    """Dashboard and title of all panels."""
    titles = {path.stem: re.findall(r'"title": "(.*)"', body) for path, body in made().items()}
    return {(dashboard, title) for dashboard, found in titles.items() for title in found}


def headings_of(file: Path) -> set[str]:
    """A file's headings, as GitHub lets links point to them."""
    headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def asked_of_aws(name: str) -> list[str]:
    """What a runbook says to aws, whether for itself or within another command."""
    found = []
    for command in commands(name):
        outer = command
        while (inner := re.search(r"\$\(([^()]*)\)", outer)) is not None:
            found.append(inner[1])
            outer = outer.replace(inner[0], "")
        found.append(outer.strip())
    return [command for command in found if command.startswith("aws ")]


def options_of(service: str, operation: str) -> set[str]:
    """What an operation of an API takes, as the command line calls it."""
    model = botocore.session.get_session().get_service_model(service)
    (found,) = (one for one in model.operation_names if xform_name(one, "-") == operation)
    return {xform_name(member, "-") for member in model.operation_model(found).input_shape.members}


def test_each_alarm_has_a_runbook() -> None:
    """Each row and each burn rate, by its name, and there is none besides; parts of burn rates call nobody."""
    alarms = load("olimac")
    calling = {row.name for row in alarms.metric.values() if row.severity != "part"} | set(alarms.composite)

    assert {file.name for file in RUNBOOKS.values()} == {f"{name}.md" for name in calling}


@EACH
def test_a_runbook_has_the_shape_of_all(name: str) -> None:
    """Its name, what is the matter, and three headings, in order, with something below each."""
    lines = [line for line in text(name).splitlines() if line]
    headings = [line for line in lines if line.startswith("#") and line not in "".join(blocks(name))]

    assert headings == [f"# {name}", *HEADINGS]
    assert lines[0] == f"# {name}"
    assert not any(a.startswith("#") and b.startswith("#") for a, b in pairwise(lines))
    assert lines[lines.index(HEADINGS[0]) + 1].startswith("1. ")
    assert not lines[-1].startswith("#")


@EACH
def test_a_runbook_can_be_read_at_night(name: str) -> None:
    """It is short, and no line of its sentences is wide; a command may be, since it is pasted."""
    lines = text(name).splitlines()
    pasted = {line for block in blocks(name) for line in block.splitlines()}

    assert len(lines) <= LINES_MOST
    assert [line for line in lines if len(line) > WIDTH_MOST and line not in pasted] == []


@EACH
def test_what_to_look_at_is_there(name: str) -> None:
    """A runbook names a panel or more, each by its title and its dashboard, and queries by their names."""
    named = {
        (dashboard, title) for title, dashboard in re.findall(r'[Pp]anel "([^"]+)" of the (\w+) dashboard', said(name))
    }
    queries = set(re.findall(r"[Qq]uery `([^`]+)`", said(name)))

    assert named
    assert named <= panels()
    assert set(re.findall(r'[Pp]anel "([^"]+)"', said(name))) <= {title for _, title in panels()}
    assert queries <= {file.stem for file in (CLOUDWATCH / "queries").glob("*.txt")}


@EACH
def test_links_lead_somewhere(name: str) -> None:
    """To a file of the repository and, where they say so, to one of its headings."""
    for target in re.findall(r"\]\(([^)\s]+)\)", said(name)):
        path, _, anchor = target.partition("#")
        file = RUNBOOKS[name].parent / path

        assert file.resolve().is_relative_to(ROOT), target
        assert file.is_file(), target
        assert not anchor or anchor in headings_of(file), target


@EACH
def test_what_kubectl_is_told_of_is_in_the_cluster(name: str) -> None:
    """An object by its kind and name is one that the manifests have, in that namespace."""
    there = objects()
    for command in commands(name):
        for namespace, words in re.findall(r"kubectl -n (\S+) ([^|]*)", command):
            named = [word.removeprefix("--from=") for word in words.split()]

            assert namespace in {where for where, _, _ in there}, command
            for kind, _, called in (word.partition("/") for word in named if re.fullmatch(r"[a-z]+/[a-z0-9-]+", word)):
                assert (namespace, KINDS[kind], called) in there, command


@EACH
def test_what_aws_is_asked_it_understands(name: str) -> None:
    """Each command is an operation of one of its APIs, and each option is one that the operation takes."""
    for command in asked_of_aws(name):
        _, service, operation, *words = command.split()
        if f"{service} {operation}" not in OF_THE_COMMAND_LINE:
            options = {word.removeprefix("--").removeprefix("no-") for word in words if word.startswith("--")}

            assert options <= options_of(service, operation) | OF_ANY_COMMAND, command


@EACH
def test_make_and_terraform_know_what_they_are_given(name: str) -> None:
    """Targets are the Makefile's, and variables are Terraform's."""
    makefile, variables = (ROOT / "Makefile").read_text(), (ROOT / "terraform" / "variables.tf").read_text()
    for command in commands(name):
        targets = re.findall(r"\bmake ((?:[a-z-]+ ?)+)", command)

        assert all(f"\n{target}: " in makefile for words in targets for target in words.split()), command
        assert all(f'variable "{one}"' in variables for one in re.findall(r"\bTF_VAR_(\w+)=", command)), command


async def test_the_database_understands_what_it_is_asked(owner: Owner) -> None:
    """What is selected is explained rather than done, since some of it ends sessions; the rest is done."""
    told = "".join(block for name in RUNBOOKS for block in blocks(name, "sql"))
    statements = [statement.strip() for statement in told.replace("PID", "1").split(";")[:-1]]
    for statement in statements:
        await owner.execute(f"EXPLAIN {statement}" if statement.startswith("SELECT") else statement)

    assert statements
