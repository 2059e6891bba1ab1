"""The GitHub workflows and actions, parsed from their YAML."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
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

# The only steps of a deployment and a teardown that run something other than make: they check manual input.
INPUT_CHECKS: Final = {"Check that the input is a digest", "Check the typed name of the cluster"}


def _load(file: Path) -> Mapping:
    content: Mapping = yaml.safe_load(file.read_text(encoding="utf-8"))
    return content


WORKFLOWS: Final = {file.stem: _load(file) for file in FILES if file.parent.name == "workflows"}
ACTIONS: Final = {file.parent.name: _load(file) for file in FILES if file.name == "action.yml"}
_ALL_JOBS: Final = {
    f"{name}/{job}": content for name, flow in WORKFLOWS.items() for job, content in flow["jobs"].items()
}
JOBS: Final = {name: job for name, job in _ALL_JOBS.items() if "steps" in job}
CALLS: Final = {name: job for name, job in _ALL_JOBS.items() if "uses" in job}  # of another workflow

ONLY_MAIN: Final = "github.ref == 'refs/heads/main'"


def _on(workflow: str) -> Mapping:
    # YAML 1.1 parses the key "on" as a boolean.
    events: Mapping = WORKFLOWS[workflow][True]
    return events


def _steps(*workflows: str) -> Iterator[Mapping]:
    for name, job in JOBS.items():
        if name.partition("/")[0] in workflows:
            yield from job["steps"]


def _make_targets(job: str) -> list[str]:
    """Returns the make targets of a job, in order."""
    return [step["run"].removeprefix("make ") for step in JOBS[job]["steps"] if step.get("run", "").startswith("make ")]


def _inputs(job: str, action: str) -> list[Mapping]:
    """Returns the inputs of each use of an action in a job."""
    return [step.get("with", {}) for step in JOBS[job]["steps"] if action in step.get("uses", "")]


def _runs(condition: str, values: dict[str, str]) -> bool:
    """Evaluates the condition of a job with these values of contexts."""
    expression = " ".join(condition.split()).replace("!cancelled()", "True").replace("&&", "and").replace("||", "or")
    for name, value in values.items():
        expression = expression.replace(name, repr(value))
    return bool(eval(expression, {"__builtins__": {}}))  # noqa: S307 - our own file


each_job = pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
each_workflow = pytest.mark.parametrize("workflow", WORKFLOWS.values(), ids=WORKFLOWS)


# --- All workflows


@pytest.mark.parametrize("file", FILES, ids=[str(file.relative_to(GITHUB)) for file in FILES])
def test_every_action_is_pinned(file: Path) -> None:
    """An action is pinned to a commit, with its version in a comment, or belongs to this repository."""
    used = re.findall(r"^\s*(?:- )?uses: (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    unpinned = {one for one in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", one)}

    ours = {f"$/.github/actions/{name}" for name in ACTIONS} | {f"./.github/workflows/{name}.yml" for name in WORKFLOWS}
    assert unpinned - ours == set()


def test_an_action_has_the_same_version_everywhere() -> None:
    """Each action is pinned to one commit only."""
    used = {one for file in FILES for one in re.findall(r"uses: (\S+@\S+)", file.read_text(encoding="utf-8"))}
    names = [one.partition("@")[0] for one in used]

    assert sorted(names) == sorted(set(names))


@each_workflow
def test_permissions_are_granted_per_job(workflow: Mapping) -> None:
    """A workflow grants none by default, and no job requests all."""
    assert workflow["permissions"] == {}
    assert all(isinstance(job["permissions"], dict) for job in workflow["jobs"].values())


@each_job
def test_every_job_has_a_timeout(job: Mapping) -> None:
    """It is at most an hour, which is the session of the AWS role."""
    assert 0 < job["timeout-minutes"] <= 60


@pytest.mark.parametrize("name", JOBS)
def test_a_job_may_write_only_what_it_needs(name: str) -> None:
    """A token for the AWS role or for a signature, where one is used; and the issue about drift."""
    job = JOBS[name]
    written = {scope for scope, access in job["permissions"].items() if access == "write"}
    needs_token = any(
        step.get("uses") == "$/.github/actions/aws" or step.get("run") == "make sign-image" for step in job["steps"]
    )

    expected = {"id-token"} if needs_token else set()
    assert written == expected | ({"issues"} if name == "drift/drift" else set())


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_called_workflow_may_do_what_its_jobs_request(call: Mapping) -> None:
    """GitHub starts no run in which a called job requests more than the calling one has."""
    called = WORKFLOWS[Path(call["uses"]).stem]

    for job in called["jobs"].values():
        assert job["permissions"].items() <= call["permissions"].items()


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_called_workflow_gets_its_inputs(call: Mapping) -> None:
    """All of them are required, and GitHub refuses unknown ones."""
    inputs = WORKFLOWS[Path(call["uses"]).stem][True]["workflow_call"]["inputs"]

    assert call["with"].keys() == inputs.keys()
    assert all(one["required"] for one in inputs.values())


@each_job
def test_no_checkout_keeps_its_credentials(job: Mapping) -> None:
    """The job's token is not stored in the folder in which later steps work."""
    checkouts = [step for step in job["steps"] if step.get("uses", "").startswith("actions/checkout@")]

    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_no_command_contains_an_expression() -> None:
    """Commands read secrets and inputs from environment variables, so that no value can inject code."""
    commands = [step["run"] for job in JOBS.values() for step in job["steps"] if "run" in step]
    commands += [step["run"] for action in ACTIONS.values() for step in action["runs"]["steps"] if "run" in step]

    assert [command for command in commands if "${{" in command] == []


# --- ci.yml


def _required(results: dict[str, str]) -> bool:
    """Returns whether the job `required` passes after these results of other jobs."""
    if not shutil.which("jq"):
        missing("jq is missing (on Debian: apt install jq)")
    (step,) = JOBS["ci/required"]["steps"]
    needs = json.dumps({job: {"result": result, "outputs": {}} for job, result in results.items()})
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "NEEDS": needs}
    command = ["bash", "-eo", "pipefail", "-c", step["run"]]  # as GitHub runs it
    return subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0


def test_the_required_job_needs_all_others() -> None:
    """So no job of ci.yml can fail unnoticed, also a new one."""
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
    """The required job passes if all others have passed, except for a plan that was skipped."""
    assert _required({"lint": "success", "infra": infra, "plan": plan}) is passes


@pytest.mark.parametrize(
    ("changed", "planned"),
    [
        ({}, True),
        ({"github.event_name": "push"}, False),
        ({"github.event.pull_request.head.repo.full_name": "fork/clients"}, False),
        ({"github.event.pull_request.user.login": "dependabot[bot]"}, False),
        ({"vars.STATE_BUCKET": ""}, False),
    ],
)
def test_a_pull_request_of_people_with_access_gets_a_plan(changed: dict[str, str], planned: bool) -> None:
    """The code of a fork or of a proposed dependency must not run with a role of the account."""
    values = {
        "github.event_name": "pull_request",
        "github.event.pull_request.head.repo.full_name": "olimac/clients",
        "github.event.pull_request.user.login": "somebody",
        "github.repository": "olimac/clients",
        "vars.STATE_BUCKET": "a-bucket",
    }

    assert _runs(JOBS["ci/plan"]["if"], values | changed) is planned
    assert "environment" not in JOBS["ci/plan"]


# --- audit.yml


def test_the_audit_runs_each_week() -> None:
    """It is the same job as for each commit, so it finds new vulnerabilities in unchanged code."""
    (schedule,) = _on("audit")["schedule"]

    assert re.fullmatch(r"\d+ \d+ \* \* [0-6]", schedule["cron"])
    assert JOBS["audit/audit"] == JOBS["ci/audit"]
    assert [step["run"] for step in JOBS["ci/audit"]["steps"] if "run" in step] == ["make audit PYTHON=python3"]


# --- cluster.yml


def test_the_rehearsal_on_a_cluster_runs_each_night() -> None:
    """And for changes of what runs there; a person can run the same target."""
    (schedule,) = _on("cluster")["schedule"]
    changed = _on("cluster")["pull_request"]["paths"]

    assert re.fullmatch(r"\d+ \d+ \* \* \*", schedule["cron"])
    assert {".github/workflows/cluster.yml", "Dockerfile", "k8s/**", "ops/deploy/**", "ops/rehearsal/**"} <= set(
        changed
    )
    assert [path for path in changed if not (ROOT / path.removesuffix("/**")).exists()] == []
    assert _make_targets("cluster/cluster") == ["rehearse-cluster"]
    assert "rehearse-cluster" in TARGETS


@pytest.mark.parametrize("is_expected", [True, False])
def test_only_the_expected_kind_is_installed(is_expected: bool, tmp_path: Path) -> None:
    """A program with another hash fails the job, and is not on PATH."""
    program = tmp_path / "downloaded"
    program.write_text("#!/bin/sh\n")
    _fake_curl(tmp_path, program)
    (tmp_path / "temporary").mkdir()
    digest = hashlib.sha256(program.read_bytes()).hexdigest() if is_expected else "0" * 64
    environment = {"RUNNER_TEMP": str(tmp_path / "temporary"), "GITHUB_PATH": str(tmp_path / "path"), "VERSION": "v0"}
    (step,) = [step for step in JOBS["cluster/cluster"]["steps"] if "SHA256" in step.get("env", {})]

    environment |= {"PATH": f"{tmp_path}:/usr/bin:/bin", "SHA256": digest}
    command = ["bash", "-eo", "pipefail", "-c", step["run"]]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)

    assert (result.returncode == 0) is is_expected
    assert os.access(tmp_path / "temporary" / "bin" / "kind", os.X_OK) is is_expected
    assert (tmp_path / "path").exists() is is_expected


def _fake_curl(folder: Path, downloaded: Path) -> None:
    curl = folder / "curl"
    curl.write_text(f'#!/bin/bash\nwhile [ "$1" != --output ]; do shift; done\ncp {downloaded} "$2"\n')
    curl.chmod(0o755)


def _kubernetes_version() -> str:
    variables = (ROOT / "terraform" / "variables.tf").read_text(encoding="utf-8")
    (version,) = re.findall(r'variable "kubernetes_version" {[^}]*?default\s*= "([\d.]+)"', variables)
    return str(version)


# --- release.yml, deploy.yml, destroy.yml and teardown.yml


@pytest.mark.parametrize("workflow", ["release", "deploy", "teardown", "drift"])
def test_every_command_is_a_target_of_the_makefile(workflow: str) -> None:
    """A person can run what GitHub runs; the workflows have no logic of their own."""
    commands = [step for step in _steps(workflow) if "run" in step and step.get("name") not in INPUT_CHECKS]

    assert commands
    assert [step["run"] for step in commands if step["run"].removeprefix("make ") not in TARGETS] == []


def test_a_deployment_goes_from_the_image_to_the_last_good_release() -> None:
    """The schema comes before the pods that need it, and a canary before the other pods."""
    needs = {job: content.get("needs") for job, content in WORKFLOWS["deploy"]["jobs"].items()}

    assert needs == {"plan": None, "apply": "plan", "deploy": "apply"}
    assert _make_targets("deploy/plan") == ["plan"]
    assert _make_targets("deploy/apply") == ["init", "apply"]
    assert _make_targets("deploy/deploy") == (
        "verify-image deploy-monitoring deploy-database deploy-canary deploy-objects deploy-dns smoke deploy-accept "
        "rollback".split()
    )


def test_a_failed_or_cancelled_deployment_is_rolled_back() -> None:
    """No other step depends on the result of those before it."""
    conditions = {step["run"]: step["if"] for step in JOBS["deploy/deploy"]["steps"] if "run" in step and "if" in step}

    assert conditions == {"make rollback": "failure() || cancelled()"}


def test_production_gets_what_ran_in_staging() -> None:
    """Both get the digest of one build, by the same steps, and staging goes first."""
    staging, production = CALLS["release/staging"], CALLS["release/production"]

    assert staging["uses"] == production["uses"] == "./.github/workflows/deploy.yml"
    assert staging["with"]["digest"] == production["with"]["digest"] == "${{ needs.image.outputs.digest }}"
    assert (staging["needs"], production["needs"]) == ("image", ["image", "staging"])


@pytest.mark.parametrize(
    ("image", "staging", "runs"),
    [
        ("success", "success", True),
        ("success", "skipped", True),  # staging is not set up, or this is a rollback
        ("success", "failure", False),
        ("success", "cancelled", False),
        ("skipped", "skipped", False),  # production is not set up
        ("failure", "skipped", False),
    ],
)
def test_production_waits_for_staging_where_there_is_one(image: str, staging: str, runs: bool) -> None:
    """What failed in staging never gets to production."""
    condition = CALLS["release/production"]["if"]

    assert _runs(condition, {"needs.image.result": image, "needs.staging.result": staging}) is runs


@pytest.mark.parametrize(("bucket", "digest", "runs"), [("b", "", True), ("", "", False), ("b", "sha256:0", False)])
def test_staging_is_skipped_for_a_rollback_and_where_it_is_not_set_up(bucket: str, digest: str, runs: bool) -> None:
    """A rollback in an incident waits for nothing."""
    condition = CALLS["release/staging"]["if"]

    assert _runs(condition, {"vars.STAGING_STATE_BUCKET": bucket, "inputs.digest": digest}) is runs


@pytest.mark.parametrize("workflow", ["release", "destroy"])
def test_each_environment_has_its_own_variables(workflow: str) -> None:
    """Staging has the same as production, with a prefix, so that none of production's gets into staging."""
    staging, production = CALLS[f"{workflow}/staging"]["with"], CALLS[f"{workflow}/production"]["with"]
    expected = {name: value.replace("vars.", "vars.STAGING_") for name, value in production.items()}

    assert staging == expected | {"environment": "staging"}
    assert (staging["environment"], production["environment"]) == ("staging", "production")


def test_only_main_is_deployed_and_destroyed() -> None:
    """A branch could call the workflows of main with an environment of its own, so each of their jobs checks."""
    assert _on("release")["push"] == {"branches": ["main"]}
    assert ONLY_MAIN in JOBS["release/image"]["if"]
    for name in ("deploy/plan", "deploy/apply", "deploy/deploy", "teardown/teardown", "teardown/destroy"):
        assert JOBS[name]["if"] == ONLY_MAIN


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_a_runner_in_the_vpc_runs_only_main(job: Mapping) -> None:
    """Every job on another runner than GitHub's is for main only, and for an environment, which allows only main."""
    if job["runs-on"] != "ubuntu-24.04":
        assert job["if"] == ONLY_MAIN
        assert job["environment"] == "${{ inputs.environment }}"


@pytest.mark.parametrize("job", ["deploy/deploy", "teardown/teardown"])
def test_codebuild_gets_a_label_for_each_run(job: str) -> None:
    """CodeBuild starts a runner for codebuild-PROJECT-RUN-ATTEMPT; another runner's label is used as it is."""
    expected = (
        "${{ startsWith(inputs.runner, 'codebuild-') "
        "&& format('{0}-{1}-{2}', inputs.runner, github.run_id, github.run_attempt) || inputs.runner }}"
    )
    assert JOBS[job]["runs-on"] == expected


@pytest.mark.parametrize("job", ["deploy/apply", "deploy/deploy", "teardown/teardown", "teardown/destroy"])
def test_jobs_that_make_changes_wait_for_reviewers(job: str) -> None:
    """Only an environment has the role that may make changes."""
    assert JOBS[job]["environment"] == "${{ inputs.environment }}"
    assert _inputs(job, "actions/aws")[0]["role"] == "${{ inputs.apply-role }}"


@pytest.mark.parametrize(
    ("job", "target", "role"),
    [
        ("ci/plan", "plan", "${{ vars.AWS_PLAN_ROLE }}"),
        ("deploy/plan", "plan", "${{ inputs.plan-role }}"),
        ("drift/drift", "drift", "${{ matrix.plan-role }}"),
    ],
)
def test_a_plan_only_reads(job: str, target: str, role: str) -> None:
    """A plan gets only the role that may read, and no environment, whose reviewers it would wait for."""
    assert _make_targets(job) == [target]
    assert _inputs(job, "actions/aws")[0]["role"] == role
    assert "environment" not in JOBS[job]


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_roles_have_their_own_inputs(call: Mapping) -> None:
    """The role that may make changes is never that of a plan."""
    assert call["with"]["apply-role"].endswith("AWS_APPLY_ROLE }}")
    assert call["with"].get("plan-role", "AWS_PLAN_ROLE }}").endswith("AWS_PLAN_ROLE }}")


@pytest.mark.parametrize("workflow", ["release", "destroy"])
def test_runs_that_make_changes_are_serialized(workflow: str) -> None:
    """Deployments and destructions wait for each other, and none is cancelled by the next."""
    assert WORKFLOWS[workflow]["concurrency"] == {"group": "deployment", "cancel-in-progress": False}


def test_only_main_can_push_an_image() -> None:
    """Docker Hub's token belongs to an environment that allows only main."""
    for name, job in JOBS.items():
        assert ("secrets.DOCKERHUB" in str(job)) is (name == "release/image")
    assert JOBS["release/image"]["environment"] == "image"


def test_an_image_is_signed_after_it_was_scanned() -> None:
    """A signature says that main built it and that the scan found nothing; a deployment demands it first of all."""
    steps = [step.get("uses", step.get("run", "")).partition("@")[0] for step in JOBS["release/image"]["steps"]]
    (scan,) = _inputs("release/image", "anchore/scan-action@")
    (audited,) = _inputs("audit/image", "anchore/scan-action@")
    image = WORKFLOWS["release"]["env"]["IMAGE_NAME"]

    order = ["docker/build-push-action", "anchore/scan-action", "sigstore/cosign-installer", "make sign-image"]
    assert steps[-4:] == order
    assert scan["image"] == "${{ env.IMAGE_NAME }}@${{ steps.build.outputs.digest }}"
    assert scan.get("fail-build", True) is True
    assert audited == scan | {"image": image + ":${{ github.sha }}"}
    assert _make_targets("deploy/deploy")[0] == "verify-image"
    signer = "${{ github.server_url }}/${{ github.repository }}/.github/workflows/release.yml@refs/heads/main"
    assert JOBS["deploy/deploy"]["env"]["SIGNER"] == signer


@pytest.fixture(name="cosign")
def fake_cosign(tmp_path: Path) -> Path:
    """Puts a cosign on PATH that records its arguments; the real one needs services on the internet."""
    script = tmp_path / "cosign"
    script.write_text('#!/bin/sh\nprintf "%s\\n" "$@" >"$0.arguments"\n')
    script.chmod(0o755)
    return tmp_path / "cosign.arguments"


def _make(cosign: Path, *arguments: str) -> int:
    environment = {"PATH": f"{cosign.parent}:/usr/bin:/bin"}
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False).returncode


def test_the_signature_must_be_that_of_the_release_workflow(cosign: Path) -> None:
    """Anyone can sign an image as themselves, so the identity and who vouches for it are compared."""
    image, signer = (
        "docker.io/o/c@sha256:" + "5ca1ab1e" * 8,
        "https://github.com/o/c/.github/workflows/release.yml@main",
    )

    assert _make(cosign, "verify-image", f"IMAGE={image}", f"SIGNER={signer}") == 0
    assert cosign.read_text().splitlines() == [
        *("verify", "--certificate-identity", signer),
        *("--certificate-oidc-issuer", "https://token.actions.githubusercontent.com", image),
    ]


@pytest.mark.parametrize("variables", [["IMAGE=x"], ["SIGNER=x"]])
def test_a_signature_is_not_verified_without_image_and_signer(cosign: Path, variables: list[str]) -> None:
    """An empty variable must not turn the check off."""
    assert _make(cosign, "verify-image", *variables) != 0
    assert not cosign.exists()


@pytest.mark.parametrize(
    ("environment", "state"),
    [("", "terraform"), ("production", "terraform"), ("staging", "staging")],
)
def test_an_environment_has_its_own_state_and_overlay(environment: str, state: str) -> None:
    """By one variable, so that the overlay of one never meets the state of the other."""
    command = ["make", "--dry-run", "STATE_BUCKET=b", "IMAGE=i", "VENV=/nowhere", "init", "deploy-objects"]
    variables = {name: value for name, value in os.environ.items() if name != "ENVIRONMENT"}
    variables |= {"ENVIRONMENT": environment} if environment else {}

    result = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)

    assert f"-backend-config=key=clients-api/{state}.tfstate " in result.stdout
    assert f" apply {environment or 'production'} " in result.stdout
    assert all(job["env"]["ENVIRONMENT"] for job in (WORKFLOWS["deploy"], WORKFLOWS["teardown"], JOBS["drift/drift"]))


def test_the_image_is_built_once_with_provenance_and_sbom() -> None:
    """The build records its commit, how it was made, and what it contains. Nodes of either architecture can run it."""
    (build,) = [step for step in _steps("release") if "docker/build-push-action@" in step.get("uses", "")]

    assert build["with"]["provenance"] == "mode=max"
    assert build["with"]["sbom"] is True
    assert build["with"]["build-args"] == "BUILD=${{ github.sha }}"
    assert build["with"]["platforms"] == "linux/amd64,linux/arm64"


def test_the_image_is_deployed_by_digest() -> None:
    """The digest is that of the build or of the input; a tag could have moved."""
    name = WORKFLOWS["release"]["env"]["IMAGE_NAME"]

    assert JOBS["release/image"]["outputs"] == {"digest": "${{ inputs.digest || steps.build.outputs.digest }}"}
    assert JOBS["deploy/deploy"]["env"]["IMAGE"] == name + "@${{ inputs.digest }}"


@pytest.mark.parametrize(
    ("digest", "is_valid"),
    [("sha256:" + "5ca1ab1e" * 8, True), ("latest", False), ("sha256:5ca1ab1e", False), ("sha256:; id #", False)],
)
def test_the_input_must_be_a_digest(digest: str, is_valid: bool) -> None:
    """The input becomes part of later commands, so anything but a digest is refused."""
    (step,) = [step for step in JOBS["release/image"]["steps"] if step.get("name") in INPUT_CHECKS]
    command = ["bash", "-eo", "pipefail", "-c", step["run"]]

    assert (subprocess.run(command, env={"DIGEST": digest}, check=False).returncode == 0) is is_valid


def test_the_plan_that_was_shown_is_applied() -> None:
    """The plan is passed from job to job with the lock file, without which Terraform would refuse it."""
    (uploaded,) = _inputs("deploy/plan", "actions/upload-artifact@")
    downloaded = _inputs("deploy/apply", "actions/download-artifact@")

    assert {"deployment.tfplan", "terraform/.terraform.lock.hcl"} <= set(uploaded["path"].split())
    assert uploaded["include-hidden-files"] is True
    assert downloaded == [{"name": uploaded["name"]}]


def test_the_deployment_gets_terraforms_outputs() -> None:
    """outputs.json is passed from apply to deploy."""
    (uploaded,) = _inputs("deploy/apply", "actions/upload-artifact@")
    downloaded = _inputs("deploy/deploy", "actions/download-artifact@")

    assert uploaded["path"] == "outputs.json"
    assert downloaded == [{"name": uploaded["name"]}]


def test_destruction_is_started_only_by_hand() -> None:
    """A person types the cluster's name; teardown runs before destroy."""
    confirmed = [step.get("name") or step.get("run") for step in JOBS["teardown/teardown"]["steps"]]

    assert set(_on("destroy")) == {"workflow_dispatch"}
    assert _on("destroy")["workflow_dispatch"]["inputs"]["cluster"]["required"] is True
    assert set(_on("teardown")) == {"workflow_call"}
    assert confirmed[-2:] == ["Check the typed name of the cluster", "make teardown"]
    assert JOBS["teardown/destroy"]["needs"] == "teardown"
    assert _make_targets("teardown/destroy") == ["init", "destroy"]


@pytest.mark.parametrize(("typed", "is_confirmed"), [("olimac", True), ("", False), ("all", False)])
def test_another_name_stops_the_destruction(typed: str, is_confirmed: bool, tmp_path: Path) -> None:
    """The typed name must be the cluster's name in Terraform's outputs."""
    if not shutil.which("jq"):
        missing("jq is missing (on Debian: apt install jq)")
    (tmp_path / "outputs.json").write_text('{"name": {"value": "olimac"}}')
    (step,) = [step for step in JOBS["teardown/teardown"]["steps"] if step.get("name") in INPUT_CHECKS]
    command = ["bash", "-eo", "pipefail", "-c", step["run"]]
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "TYPED": typed}

    result = subprocess.run(command, cwd=tmp_path, env=environment, check=False)

    assert (result.returncode == 0) is is_confirmed


def _api_server() -> Mapping:
    """Returns the step that downloads an API server."""
    step: Mapping
    (step,) = [step for step in JOBS["ci/infra"]["steps"] if "SHA512" in step.get("env", {})]
    return step


@pytest.mark.parametrize("is_expected", [True, False])
def test_only_the_expected_archive_is_unpacked(is_expected: bool, tmp_path: Path) -> None:
    """An archive with another hash fails the job, and no file of it is unpacked."""
    programs = tmp_path / "source" / "controller-tools" / "envtest"
    programs.mkdir(parents=True)
    (programs / "kube-apiserver").touch()
    archive = tmp_path / "archive.tar.gz"
    with tarfile.open(archive, "w:gz") as created:
        created.add(tmp_path / "source" / "controller-tools", "controller-tools")
    _fake_curl(tmp_path, archive)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    digest = hashlib.sha512(archive.read_bytes()).hexdigest() if is_expected else "0" * 128
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "RUNNER_TEMP": str(temporary), "VERSION": "1", "SHA512": digest}

    command = ["bash", "-eo", "pipefail", "-c", _api_server()["run"]]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)

    assert (result.returncode == 0) is is_expected
    (make,) = [step for step in JOBS["ci/infra"]["steps"] if step.get("run") == "make infra"]
    folder = Path(make["env"]["REAL_API_SERVER"].replace("${{ runner.temp }}", str(temporary)))
    assert (folder / "kube-apiserver").exists() is is_expected
    assert (list(temporary.iterdir()) != []) is is_expected


# --- The actions


def test_kubectl_and_the_api_server_have_the_clusters_minor_version() -> None:
    """For kubectl, one minor version of difference would be allowed."""
    version = _kubernetes_version()
    (kubectl,) = [step["with"] for step in ACTIONS["tools"]["runs"]["steps"] if "setup-kubectl" in step["uses"]]

    assert kubectl["version"].startswith(f"v{version}.")
    assert _api_server()["env"]["VERSION"].startswith(f"{version}.")


def test_keys_are_used_only_without_a_role() -> None:
    """With both, the action would use the keys to assume the role."""
    credentials = ACTIONS["aws"]["runs"]["steps"][0]["with"]

    assert credentials["aws-access-key-id"] == "${{ inputs.role == '' && inputs.access-key-id || '' }}"
    assert credentials["aws-secret-access-key"] == "${{ inputs.role == '' && inputs.secret-access-key || '' }}"


# --- dependabot.yml, CODEOWNERS, and the base image


def test_dependabot_updates_all_that_is_pinned() -> None:
    """Each folder with a file of an ecosystem is in its list, and a new release waits for a week."""
    updates = yaml.safe_load((GITHUB / "dependabot.yml").read_text(encoding="utf-8"))["updates"]
    listed = {one["package-ecosystem"]: set(one.get("directories") or [one["directory"]]) for one in updates}

    def folders(pattern: str) -> set[str]:
        return {f"/{file.parent.relative_to(ROOT)}".rstrip(".") for file in ROOT.glob(pattern)}

    assert all(one["cooldown"] == {"default-days": 7} for one in updates)
    assert listed == {
        "github-actions": {"/", "/.github/actions/*"},
        "pip": folders("pyproject.toml"),
        # The autoscaler's version is that of the cluster.
        "docker": folders("Dockerfile") | {"/k8s/telemetry", "/ops/rehearsal/kind"},
        "terraform": folders("terraform/**/*.tf"),
        "npm": folders("ops/**/package-lock.json") | folders("tests/**/package-lock.json"),
    }


def test_every_file_has_an_owner() -> None:
    """The first pattern is for all files, and names who reviews them."""
    rules = [line.split() for line in (GITHUB / "CODEOWNERS").read_text().splitlines() if not line.startswith("#")]

    assert rules[0][0] == "*"
    assert all(owner.startswith("@") for _, *owners in rules for owner in owners)


def test_the_base_image_is_named_by_digest() -> None:
    """By FROM, where Dependabot finds it, and only once: a virtual environment refers to its Python."""
    stages = re.findall(r"^FROM (.*?)(?: AS .*)?$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)

    assert re.fullmatch(r"python:3\.\d+-slim@sha256:[0-9a-f]{64}", stages[0])
    assert set(stages[1:]) == {"${BASE}"}


# --- docs/deploying.md


@pytest.mark.parametrize("kind", ["vars", "secrets"])
def test_the_guide_lists_all_variables_and_secrets(kind: str) -> None:
    """Each variable and each secret that a workflow reads is in a table."""
    read = {name for file in FILES for name in re.findall(rf"\b{kind}\.(\w+)", file.read_text(encoding="utf-8"))}
    named = {
        name for row in re.findall(r"^\| (`[A-Z].*?) \|", GUIDE, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    }

    assert read
    assert read <= named


def test_the_guide_uses_existing_make_targets() -> None:
    """All steps of a deployment are in the guide, in order."""
    commands = re.findall(r"^\$ make (.*)$", GUIDE, re.MULTILINE)
    laptop = GUIDE.partition("## From a laptop")[2].partition("\n## ")[0]
    steps = [*_make_targets("deploy/plan"), "apply", *_make_targets("deploy/deploy")[1:]]  # it trusts its own image

    assert {word for line in commands for word in line.partition("#")[0].split() if "=" not in word} <= TARGETS
    assert re.findall(r"^\$ make ([a-z-]+)", laptop, re.MULTILINE) == steps
