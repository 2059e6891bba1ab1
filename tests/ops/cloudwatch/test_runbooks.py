"""The runbooks: one per alarm, all with the same structure. Everything that they refer to exists."""

import re
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import botocore.session
import pytest
import yaml
from botocore import xform_name

from ops.cloudwatch.dashboard import generate
from ops.cloudwatch.rows import load
from ops.common.process import ROOT
from tests.conftest import Owner

CLOUDWATCH: Final = ROOT / "ops" / "cloudwatch"
RUNBOOKS: Final = {file.stem: file for file in (CLOUDWATCH / "runbooks").iterdir()}
EACH: Final = pytest.mark.parametrize("name", sorted(RUNBOOKS))

HEADINGS: Final = ["## First checks", "## What to do", "## When to escalate"]
MAX_LINES: Final = 60
MAX_WIDTH: Final = 120

# kubectl's short names of kinds.
KINDS: Final = {
    "cronjob": "CronJob",
    "daemonset": "DaemonSet",
    "deployment": "Deployment",
    "hpa": "HorizontalPodAutoscaler",
    "job": "Job",
    "service": "Service",
}

# Commands that only the AWS command line has, and options that it accepts with any command.
CLI_COMMANDS: Final = {"eks update-kubeconfig", "logs tail", "rds wait"}
CLI_OPTIONS: Final = {"query", "output"}


def text(name: str) -> str:
    return RUNBOOKS[name].read_text(encoding="utf-8")


def on_one_line(name: str) -> str:
    """The text of a runbook on one line, so that no name is split."""
    return " ".join(text(name).split())


def blocks(name: str, language: str = r"\w+") -> list[str]:
    """The contents of fenced code blocks."""
    return re.findall(rf"^ *```{language}\n(.*?)^ *```$", text(name), re.DOTALL | re.MULTILINE)


def commands(name: str) -> list[str]:
    """The commands: each line of a code block with its continuation lines, and the inline code."""
    sentences = re.sub(r"^ *```\w+\n.*?^ *```$", "", text(name), flags=re.DOTALL | re.MULTILINE)
    inline = [" ".join(words.split()) for words in re.findall(r"`([^`]+)`", sentences)]
    return [*(line for block in blocks(name) for line in block.replace("\\\n", " ").splitlines()), *inline]


@cache
def objects() -> set[tuple[str, str, str]]:
    """Namespace, kind and name of each object in k8s/."""
    found = set()
    for kustomization in (ROOT / "k8s").glob("*/kustomization.yaml"):
        namespace = yaml.safe_load(kustomization.read_text())["namespace"]
        for file in kustomization.parent.glob("*.yaml"):
            each: list[dict[str, Any]] = list(yaml.safe_load_all(file.read_text()))
            found |= {(namespace, one["kind"], one["metadata"]["name"]) for one in each if "metadata" in one}
    return found


@cache
def panels() -> set[tuple[str, str]]:
    """Dashboard and title of each panel."""
    titles = {path.stem: re.findall(r'"title": "(.*)"', body) for path, body in generate().items()}
    return {(dashboard, title) for dashboard, found in titles.items() for title in found}


def headings_of(file: Path) -> set[str]:
    """The headings of a file, in the form of GitHub's anchors."""
    headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def aws_commands(name: str) -> list[str]:
    """The aws commands of a runbook, including those within other commands."""
    found = []
    for command in commands(name):
        outer = command
        while (inner := re.search(r"\$\(([^()]*)\)", outer)) is not None:
            found.append(inner[1])
            outer = outer.replace(inner[0], "")
        found.append(outer.strip())
    return [command for command in found if command.startswith("aws ")]


@cache
def options_of(service: str, operation: str) -> set[str]:
    """The options of an API operation, in the form of the command line."""
    model = botocore.session.get_session().get_service_model(service)
    (found,) = (one for one in model.operation_names if xform_name(one, "-") == operation)
    return {xform_name(member, "-") for member in model.operation_model(found).input_shape.members}


def test_each_alarm_has_a_runbook() -> None:
    """Each alarm that notifies someone has a runbook of the same name, and there are no other runbooks."""
    assert {file.name for file in RUNBOOKS.values()} == {f"{row.name}.md" for row in load("olimac").notifying}


@EACH
def test_all_runbooks_have_the_same_structure(name: str) -> None:
    """A runbook has its name, a summary, and three sections in order, none of which is empty."""
    lines = [line for line in text(name).splitlines() if line]
    headings = [line for line in lines if line.startswith("#") and line not in "".join(blocks(name))]

    assert headings == [f"# {name}", *HEADINGS]
    assert lines[0] == f"# {name}"
    assert not any(a.startswith("#") and b.startswith("#") for a, b in pairwise(lines))
    assert lines[lines.index(HEADINGS[0]) + 1].startswith("1. ")
    assert not lines[-1].startswith("#")


@EACH
def test_a_runbook_is_short(name: str) -> None:
    """A runbook has few lines, and only lines in code blocks may be long, because they are pasted."""
    lines = text(name).splitlines()
    code = {line for block in blocks(name) for line in block.splitlines()}

    assert len(lines) <= MAX_LINES
    assert [line for line in lines if len(line) > MAX_WIDTH and line not in code] == []


@EACH
def test_panels_and_queries_exist(name: str) -> None:
    """A runbook refers to at least one panel with its dashboard. All its panels and queries exist."""
    named = {
        (dashboard, title)
        for title, dashboard in re.findall(r'[Pp]anel "([^"]+)" of the (\w+) dashboard', on_one_line(name))
    }
    queries = set(re.findall(r"[Qq]uery `([^`]+)`", on_one_line(name)))

    assert named
    assert named <= panels()
    assert set(re.findall(r'[Pp]anel "([^"]+)"', on_one_line(name))) <= {title for _, title in panels()}
    assert queries <= {file.stem for file in (CLOUDWATCH / "queries").glob("*.txt")}


@EACH
def test_link_targets_exist(name: str) -> None:
    """A link leads to a file of the repository, and its anchor to a heading of that file."""
    for target in re.findall(r"\]\(([^)\s]+)\)", on_one_line(name)):
        path, _, anchor = target.partition("#")
        file = RUNBOOKS[name].parent / path

        assert file.resolve().is_relative_to(ROOT), target
        assert file.is_file(), target
        assert not anchor or anchor in headings_of(file), target


@EACH
def test_kubernetes_objects_exist(name: str) -> None:
    """An object in a kubectl command is in the manifests, in the same namespace."""
    existing = objects()
    for command in commands(name):
        for namespace, words in re.findall(r"kubectl -n (\S+) ([^|]*)", command):
            named = [word.removeprefix("--from=") for word in words.split()]

            assert namespace in {found for found, _, _ in existing}, command
            for kind, _, found in (word.partition("/") for word in named if re.fullmatch(r"[a-z]+/[a-z0-9-]+", word)):
                assert (namespace, KINDS[kind], found) in existing, command


@EACH
def test_aws_commands_are_valid(name: str) -> None:
    """An aws command is an operation of an AWS API, with options that the operation has."""
    for command in aws_commands(name):
        _, service, operation, *words = command.split()
        if f"{service} {operation}" not in CLI_COMMANDS:
            options = {word.removeprefix("--").removeprefix("no-") for word in words if word.startswith("--")}

            assert options <= options_of(service, operation) | CLI_OPTIONS, command


@EACH
def test_make_targets_and_terraform_variables_exist(name: str) -> None:
    """A target of make is in the Makefile, and a TF_VAR_ variable is in variables.tf."""
    makefile, variables = (ROOT / "Makefile").read_text(), (ROOT / "terraform" / "variables.tf").read_text()
    for command in commands(name):
        targets = re.findall(r"\bmake ((?:[a-z-]+ ?)+)", command)

        assert all(f"\n{target}: " in makefile for words in targets for target in words.split()), command
        assert all(f'variable "{one}"' in variables for one in re.findall(r"\bTF_VAR_(\w+)=", command)), command


async def test_sql_statements_are_valid(owner: Owner) -> None:
    """PostgreSQL accepts each statement. A SELECT is only explained, because some of them end sessions."""
    sql = "".join(block for name in RUNBOOKS for block in blocks(name, "sql"))
    statements = [statement.strip() for statement in sql.replace("PID", "1").split(";")[:-1]]
    for statement in statements:
        await owner.execute(f"EXPLAIN {statement}" if statement.startswith("SELECT") else statement)

    assert statements
