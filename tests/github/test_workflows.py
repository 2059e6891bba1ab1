"""What GitHub does with a commit: the workflows, read as the YAML that they are."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest
import yaml

from ops.common.process import ROOT
from tests.missing import missing

Mapping: TypeAlias = dict[Any, Any]

GITHUB: Final = ROOT / ".github"
FILES: Final = sorted([*GITHUB.glob("workflows/*.yml"), *GITHUB.glob("actions/*/action.yml")])
TARGETS: Final = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))

GUIDE: Final = (ROOT / "docs" / "deploying.md").read_text(encoding="utf-8")

# What deploy.yml and destroy.yml run beside make: what is typed by hand is checked before anything comes of it.
BESIDE_MAKE: Final = {"Check that what is given is a digest", "Check that the cluster's name was typed"}


def _load(file: Path) -> Mapping:
    content: Mapping = yaml.safe_load(file.read_text(encoding="utf-8"))
    return content


WORKFLOWS: Final = {file.stem: _load(file) for file in FILES if file.parent.name == "workflows"}
ACTIONS: Final = {file.parent.name: _load(file) for file in FILES if file.name == "action.yml"}
JOBS: Final = {f"{name}/{job}": content for name, flow in WORKFLOWS.items() for job, content in flow["jobs"].items()}


def _on(workflow: str) -> Mapping:
    # YAML 1.1 takes the key "on" for a boolean.
    events: Mapping = WORKFLOWS[workflow][True]
    return events


def _steps(*workflows: str) -> Iterator[Mapping]:
    for name, job in JOBS.items():
        if name.partition("/")[0] in workflows:
            yield from job["steps"]


def _made(job: str) -> list[str]:
    """The make targets of a job, in order."""
    return [step["run"].removeprefix("make ") for step in JOBS[job]["steps"] if step.get("run", "").startswith("make ")]


def _used(job: str, action: str) -> list[Mapping]:
    """What a job gives to each use of an action."""
    return [step.get("with", {}) for step in JOBS[job]["steps"] if action in step.get("uses", "")]


each_job = pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
each_workflow = pytest.mark.parametrize("workflow", WORKFLOWS.values(), ids=WORKFLOWS)


# --- All of them


@pytest.mark.parametrize("file", FILES, ids=[str(file.relative_to(GITHUB)) for file in FILES])
def test_every_action_is_pinned(file: Path) -> None:
    """An action is named by the commit that it is at, with its version beside it, or is this repository's own."""
    used = re.findall(r"^\s*(?:- )?uses: (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    unpinned = [one for one in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", one)]

    assert [one for one in unpinned if one not in {f"$/.github/actions/{name}" for name in ACTIONS}] == []


def test_an_action_is_the_same_version_everywhere() -> None:
    """No two places use two commits of an action."""
    used = {one for file in FILES for one in re.findall(r"uses: (\S+@\S+)", file.read_text(encoding="utf-8"))}
    names = [one.partition("@")[0] for one in used]

    assert sorted(names) == sorted(set(names))


@each_workflow
def test_nothing_is_permitted_but_by_a_job(workflow: Mapping) -> None:
    """A workflow gives its jobs no permissions, and a job never takes all."""
    assert workflow["permissions"] == {}
    assert all(isinstance(job["permissions"], dict) for job in workflow["jobs"].values())


@each_job
def test_every_job_ends_in_time(job: Mapping) -> None:
    """A job that hangs is ended within the hour, which is as long as AWS's role can be had."""
    assert 0 < job["timeout-minutes"] <= 60


@each_job
def test_only_who_speaks_to_aws_gets_a_token_for_it(job: Mapping) -> None:
    """Jobs may write no more than the token for AWS, and that only where they take AWS's role with it."""
    written = {name for name, access in job["permissions"].items() if access == "write"}
    speaks = any(step.get("uses") == "$/.github/actions/aws" for step in job["steps"])

    assert written == ({"id-token"} if speaks else set())


@each_job
def test_no_checkout_keeps_its_credentials(job: Mapping) -> None:
    """The token of the job stays out of the folder that later steps work in."""
    checkouts = [step for step in job["steps"] if step.get("uses", "").startswith("actions/checkout@")]

    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_nothing_is_pasted_into_a_command() -> None:
    """Commands take secrets, inputs and all else from their environment, and never by an expression in their text."""
    commands = [step["run"] for job in JOBS.values() for step in job["steps"] if "run" in step]
    commands += [step["run"] for action in ACTIONS.values() for step in action["runs"]["steps"] if "run" in step]

    assert [command for command in commands if "${{" in command] == []


# --- ci.yml


def _required(results: dict[str, str]) -> bool:
    """Whether the job `required` passes after jobs that ended so."""
    if not shutil.which("jq"):
        missing("jq is missing (on Debian: apt install jq)")
    (step,) = JOBS["ci/required"]["steps"]
    needs = json.dumps({job: {"result": result, "outputs": {}} for job, result in results.items()})
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "NEEDS": needs}
    command = ["bash", "-eo", "pipefail", "-c", step["run"]]  # as GitHub runs it
    return subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0


def test_the_required_job_needs_all_others() -> None:
    """No job of ci.yml can fail unseen, also where it is new."""
    jobs = {name.removeprefix("ci/") for name in JOBS if name.startswith("ci/")}

    assert set(JOBS["ci/required"]["needs"]) == jobs - {"required"}


@pytest.mark.parametrize(
    ("infra", "plan", "passes"),
    [
        ("success", "success", True),
        ("success", "skipped", True),  # on main, and for a fork
        ("success", "failure", False),
        ("success", "cancelled", False),
        ("skipped", "success", False),
        ("failure", "skipped", False),
    ],
)
def test_only_the_plan_may_be_skipped(infra: str, plan: str, passes: bool) -> None:
    """The required job passes where all have, but for a plan that was not to be made."""
    assert _required({"lint": "success", "infra": infra, "plan": plan}) is passes


def test_a_pull_request_from_a_fork_gets_no_plan() -> None:
    """It would get neither token nor keys, and its code has no business in the account."""
    job = JOBS["ci/plan"]

    assert "github.event_name == 'pull_request'" in job["if"]
    assert "github.event.pull_request.head.repo.full_name == github.repository" in job["if"]
    assert "environment" not in job


# --- audit.yml


def test_what_is_made_known_is_looked_for_each_week() -> None:
    """Also where nobody changes anything; the same as for each commit, and where it cannot be asked it fails."""
    (schedule,) = _on("audit")["schedule"]

    assert re.fullmatch(r"\d+ \d+ \* \* [0-6]", schedule["cron"])
    assert JOBS["audit/audit"] == JOBS["ci/audit"]
    assert [step["run"] for step in JOBS["ci/audit"]["steps"] if "run" in step] == ["make audit PYTHON=python3"]


# --- deploy.yml and destroy.yml


@pytest.mark.parametrize("workflow", ["deploy", "destroy"])
def test_every_command_is_a_target_of_the_makefile(workflow: str) -> None:
    """What GitHub runs, a person can run likewise; there is no logic in the workflows."""
    commands = [step for step in _steps(workflow) if "run" in step and step.get("name") not in BESIDE_MAKE]

    assert commands
    assert [step["run"] for step in commands if step["run"].removeprefix("make ") not in TARGETS] == []


def test_a_deployment_goes_from_the_image_to_the_smoke_test() -> None:
    """Image, plan, what it says, then the cluster's objects, the database, the record, monitoring, a first request."""
    needs = {job: content.get("needs") for job, content in WORKFLOWS["deploy"]["jobs"].items()}

    assert needs == {"image": None, "plan": "image", "apply": "plan", "deploy": ["image", "apply"]}
    assert _made("deploy/plan") == ["plan"]
    assert _made("deploy/apply") == ["init", "apply"]
    assert _made("deploy/deploy") == "deploy-objects deploy-database deploy-dns deploy-monitoring smoke".split()


def test_only_main_is_deployed_and_destroyed() -> None:
    """The first job of each is for main alone, and the others need it."""
    assert _on("deploy")["push"] == {"branches": ["main"]}
    assert "github.ref == 'refs/heads/main'" in JOBS["deploy/image"]["if"]
    assert "github.ref == 'refs/heads/main'" in JOBS["destroy/teardown"]["if"]
    assert "if" not in JOBS["deploy/plan"] | JOBS["deploy/apply"] | JOBS["deploy/deploy"] | JOBS["destroy/destroy"]


@pytest.mark.parametrize("job", ["deploy/apply", "deploy/deploy", "destroy/teardown", "destroy/destroy"])
def test_what_changes_things_waits_for_the_reviewers(job: str) -> None:
    """Only in the environment production is there the role that may change things."""
    assert JOBS[job]["environment"] == "production"
    assert _used(job, "actions/aws")[0]["role"] == "${{ vars.AWS_APPLY_ROLE }}"


@pytest.mark.parametrize("job", ["ci/plan", "deploy/plan"])
def test_a_plan_only_looks(job: str) -> None:
    """The role that may only look is all that a plan needs, and all that it gets."""
    assert _made(job) == ["plan"]
    assert _used(job, "actions/aws")[0]["role"] == "${{ vars.AWS_PLAN_ROLE }}"


@pytest.mark.parametrize("workflow", ["deploy", "destroy"])
def test_two_never_change_things_at_once(workflow: str) -> None:
    """Deployments and destruction wait for each other, and none is cut short by the next."""
    assert WORKFLOWS[workflow]["concurrency"] == {"group": "production", "cancel-in-progress": False}


def test_the_image_is_built_once_with_what_is_in_it() -> None:
    """One build, which says of which commit it is, how it was made, and of what."""
    (build,) = [step for step in _steps("deploy") if "docker/build-push-action@" in step.get("uses", "")]

    assert build["with"]["provenance"] == "mode=max"
    assert build["with"]["sbom"] is True
    assert build["with"]["build-args"] == "BUILD=${{ github.sha }}"


def test_the_image_is_deployed_by_digest() -> None:
    """What is deployed is what was built, or was named by hand, and no tag that could have moved."""
    name = WORKFLOWS["deploy"]["env"]["IMAGE_NAME"]

    assert JOBS["deploy/image"]["outputs"] == {"digest": "${{ inputs.digest || steps.build.outputs.digest }}"}
    assert JOBS["deploy/deploy"]["env"]["IMAGE"] == name + "@${{ needs.image.outputs.digest }}"


@pytest.mark.parametrize(
    ("digest", "is_one"),
    [("sha256:" + "5ca1ab1e" * 8, True), ("latest", False), ("sha256:5ca1ab1e", False), ("sha256:; id #", False)],
)
def test_only_a_digest_is_taken_for_one(digest: str, is_one: bool) -> None:
    """What is typed becomes part of a command later on, so nothing but a digest may be typed."""
    (step,) = [step for step in JOBS["deploy/image"]["steps"] if step.get("name") in BESIDE_MAKE]
    command = ["bash", "-eo", "pipefail", "-c", step["run"]]

    assert (subprocess.run(command, env={"DIGEST": digest}, check=False).returncode == 0) is is_one


def test_what_is_applied_is_the_plan_that_was_shown() -> None:
    """The file goes from one job to the other, with the lock file, without which Terraform would refuse it."""
    (uploaded,) = _used("deploy/plan", "actions/upload-artifact@")
    downloaded = _used("deploy/apply", "actions/download-artifact@")

    assert {"deployment.tfplan", "terraform/.terraform.lock.hcl"} <= set(uploaded["path"].split())
    assert uploaded["include-hidden-files"] is True
    assert downloaded == [{"name": uploaded["name"]}]


def test_what_terraform_made_is_known_to_the_deployment() -> None:
    """outputs.json goes from apply to deploy."""
    (uploaded,) = _used("deploy/apply", "actions/upload-artifact@")
    downloaded = _used("deploy/deploy", "actions/download-artifact@")

    assert uploaded["path"] == "outputs.json"
    assert downloaded == [{"name": uploaded["name"]}]


def test_all_is_destroyed_by_hand_only() -> None:
    """Nothing but a person starts it, who types the cluster's name; then first what Terraform did not make."""
    confirmed = [step.get("name") or step.get("run") for step in JOBS["destroy/teardown"]["steps"]]

    assert set(_on("destroy")) == {"workflow_dispatch"}
    assert _on("destroy")["workflow_dispatch"]["inputs"]["cluster"]["required"] is True
    assert confirmed[-2:] == ["Check that the cluster's name was typed", "make teardown"]
    assert JOBS["destroy/destroy"]["needs"] == "teardown"
    assert _made("destroy/destroy") == ["init", "destroy"]


@pytest.mark.parametrize(("typed", "is_confirmed"), [("olimac", True), ("", False), ("all", False)])
def test_another_name_destroys_nothing(typed: str, is_confirmed: bool, tmp_path: Path) -> None:
    """What is typed has to be what Terraform says that the cluster is called."""
    if not shutil.which("jq"):
        missing("jq is missing (on Debian: apt install jq)")
    (tmp_path / "outputs.json").write_text('{"name": {"value": "olimac"}}')
    (step,) = [step for step in JOBS["destroy/teardown"]["steps"] if step.get("name") in BESIDE_MAKE]
    command = ["bash", "-eo", "pipefail", "-c", step["run"]]
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "TYPED": typed}

    done = subprocess.run(command, cwd=tmp_path, env=environment, check=False)

    assert (done.returncode == 0) is is_confirmed


# --- The actions


def test_kubectl_is_of_the_clusters_minor_version() -> None:
    """It may be one minor version off, and is none."""
    variables = (ROOT / "terraform" / "variables.tf").read_text(encoding="utf-8")
    (cluster,) = re.findall(r'variable "kubernetes_version" {[^}]*?default\s*= "([\d.]+)"', variables)
    (kubectl,) = [step["with"] for step in ACTIONS["tools"]["runs"]["steps"] if "setup-kubectl" in step["uses"]]

    assert kubectl["version"].startswith(f"v{cluster}.")


def test_keys_are_used_only_where_there_is_no_role() -> None:
    """Beside a role, the action would use the keys to take it."""
    credentials = ACTIONS["aws"]["runs"]["steps"][0]["with"]

    assert credentials["aws-access-key-id"] == "${{ inputs.role == '' && inputs.access-key-id || '' }}"
    assert credentials["aws-secret-access-key"] == "${{ inputs.role == '' && inputs.secret-access-key || '' }}"


# --- docs/deploying.md


@pytest.mark.parametrize("kind", ["vars", "secrets"])
def test_what_a_repository_has_to_set_is_in_the_guide(kind: str) -> None:
    """Each variable and each secret that a workflow reads has its place in a table."""
    read = {name for file in FILES for name in re.findall(rf"\b{kind}\.(\w+)", file.read_text(encoding="utf-8"))}
    named = {
        name for row in re.findall(r"^\| (`[A-Z].*?) \|", GUIDE, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    }

    assert read
    assert read <= named


def test_what_the_guide_says_to_make_can_be_made() -> None:
    """Each make target in the guide is one, and the steps of a deployment are all there, in order."""
    told = re.findall(r"^\$ make (.*)$", GUIDE, re.MULTILINE)
    laptop = GUIDE.partition("## From a laptop")[2].partition("\n## ")[0]
    steps = [*_made("deploy/plan"), "apply", *_made("deploy/deploy")]

    assert {word for line in told for word in line.partition("#")[0].split() if "=" not in word} <= TARGETS
    assert re.findall(r"^\$ make ([a-z-]+)", laptop, re.MULTILINE) == steps
