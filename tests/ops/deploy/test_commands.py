"""python -m ops: what all commands have in common, and how they handle errors of AWS."""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ops.common.process import ROOT
from ops.rehearsal import kubernetes
from ops.rehearsal.steps import IMAGE
from tests.ops.deploy.fixtures import (
    HOSTNAME,
    Account,
    MockAws,
    Run,
    all_objects,
    connection_reset,
    error_response,
    free_address,
)
from tests.patience import PATIENCE_SECONDS


@pytest.fixture(name="commands")
def list_commands(mock_aws: MockAws) -> dict[str, tuple[str, ...]]:
    """All commands, with their required arguments."""
    return {
        "protect": ("protect",),
        "apply": ("apply", "production", "--image", IMAGE),
        "database": ("database", "--image", IMAGE, "--authority", str(mock_aws.ca.certificate)),
        "canary": ("canary", "--image", IMAGE),
        "accept": ("accept", "--image", IMAGE),
        "rollback": ("rollback",),
        "dns": ("dns",),
        "cluster-logging": ("cluster-logging",),
        "smoke": ("smoke", "--connect", "127.0.0.1:1"),
        "teardown": ("teardown",),
        "restore": ("restore", "olimac-2", "--image", IMAGE, "--authority", str(mock_aws.ca.certificate)),
        "remove-database": ("remove-database", "olimac-1"),
        "rotate-password": ("rotate-password", "--authority", str(mock_aws.ca.certificate)),
    }


ALL = (
    *("protect", "apply", "database", "canary", "accept", "rollback", "dns", "cluster-logging", "smoke", "teardown"),
    *("restore", "remove-database", "rotate-password"),
)


def run_as_process(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Runs `python -m ops` as a process, with only these environment variables."""
    return subprocess.run(
        [sys.executable, "-m", "ops", *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "AWS_EC2_METADATA_DISABLED": "true", **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


# --- The command line


@pytest.mark.parametrize("command", ALL)
def test_each_command_has_a_help_text(run: Run, command: str) -> None:
    """It lists the options, and the command does nothing."""
    result = run(command, "--help")

    assert (result.status, result.stderr) == (0, "")
    assert f"python -m ops {command}" in result.stdout
    assert "--dry-run" in result.stdout
    assert "--outputs" in result.stdout


def test_the_commands_are_listed() -> None:
    """`python -m ops --help` lists them."""
    result = run_as_process("--help")

    assert (result.returncode, result.stderr) == (0, "")
    assert list(ALL) == re.findall(r"^    ([a-z-]+)(?: {2,}|$)", result.stdout, re.MULTILINE)


def test_a_missing_or_unknown_command_is_an_error(run: Run) -> None:
    """The exit status is that of argparse."""
    assert [run().status, run("destroy").status] == [2, 2]


@pytest.mark.parametrize(
    "command", [("apply", "production"), ("database",), ("canary",), ("accept",), ("restore", "olimac-2")]
)
def test_the_image_is_required(run: Run, command: tuple[str, ...]) -> None:
    """The commands do not guess what to run."""
    result = run(*command)

    assert result.status == 2
    assert "the following arguments are required: --image" in result.stderr


# --- The outputs of Terraform


@pytest.mark.parametrize("command", ALL)
def test_a_missing_outputs_file_is_an_error(
    run: Run, account: Account, commands: dict[str, tuple[str, ...]], tmp_path: Path, command: str
) -> None:
    """The message says how to create it; AWS is not called."""
    file = tmp_path / "none.json"

    result = run(*commands[command], "--outputs", str(file))

    assert result == (1, "", f"error: {file} does not exist: create it with terraform output -json > {file}\n")
    assert account.proxy.calls == []


@pytest.mark.parametrize("command", ALL)
def test_an_invalid_outputs_file_is_an_error(
    run: Run, account: Account, commands: dict[str, tuple[str, ...]], tmp_path: Path, command: str
) -> None:
    """No JSON, other JSON, an empty state, a missing or empty output, a folder: one line, and no call of AWS."""
    valid = json.loads(account.outputs_file.read_text())
    without_zone = {name: value for name, value in valid.items() if name != "zone_id"}
    contents = ["", "{", "[]", "5", "{}", '{"name": "olimac"}', json.dumps(without_zone)]
    contents += [json.dumps({**valid, "zone_id": {"value": value}}) for value in (None, "", 5, ["Z1"])]
    files = [tmp_path, *(tmp_path / f"{number}.json" for number in range(len(contents)))]
    for file, content in zip(files[1:], contents, strict=True):
        file.write_text(content)

    for file in files:
        result = run(*commands[command], "--outputs", str(file))
        assert (result.status, result.stdout) == (1, "")
        assert result.stderr.startswith(f"error: {file} does not have the terraform outputs of an applied state (")
        assert result.stderr.count("\n") == 1
    assert account.proxy.calls == []


def test_the_default_outputs_file_is_in_the_current_folder(tmp_path: Path) -> None:
    """It is outputs.json, as make names it."""
    result = subprocess.run(
        [sys.executable, "-m", "ops", "dns"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )

    assert (
        result.returncode,
        result.stderr,
    ) == (1, "error: outputs.json does not exist: create it with terraform output -json > outputs.json\n")


@pytest.mark.parametrize("command", ["protect", "apply", "database", "canary", "accept", "rollback", "cluster-logging"])
def test_a_missing_cluster_is_an_error(
    run: Run, account: Account, commands: dict[str, tuple[str, ...]], command: str
) -> None:
    """The message says what to do."""
    account.remove_cluster()
    before = resources_except_cluster(account)

    result = run(*commands[command])

    assert result.status == 1
    assert result.stderr == "error: the cluster olimac does not exist in us-east-1: apply Terraform first\n"
    assert resources_except_cluster(account) == before


def resources_except_cluster(account: Account) -> object:
    return account.records(), account.load_balancers(), account.security_groups()


@pytest.mark.parametrize("command", ALL)
def test_a_dry_run_changes_nothing(
    run: Run, account: Account, cluster: kubernetes.Cluster, commands: dict[str, tuple[str, ...]], command: str
) -> None:
    """Neither in AWS nor in the cluster, even where everything has to be changed."""
    account.create_load_balancer("a1")
    if command == "teardown":
        account.create_record("CNAME", "a1.us-east-1.elb.amazonaws.com")
    before = account.snapshot(), all_objects(cluster)

    result = run(*commands[command], "--dry-run")

    assert (result.status, result.stderr) == (0, "")
    assert result.stdout
    assert all(call.startswith(("Describe", "Get", "List")) for call in account.proxy.calls)
    assert "GetSecretValue" not in account.proxy.calls
    assert (account.snapshot(), all_objects(cluster)) == before


def test_a_dry_run_prints_what_it_would_change(
    run: Run, account: Account, commands: dict[str, tuple[str, ...]]
) -> None:
    """So do all commands that change something in AWS."""
    hostname = account.create_load_balancer("a1")
    assert run("dns", "--dry-run").stdout == f"Would point {HOSTNAME} to {hostname}\n"

    account.create_record("CNAME", hostname)
    expected = f"Would remove the record {HOSTNAME}\nWould remove the load balancer a1\n"
    assert run("teardown", "--dry-run").stdout.startswith(expected)
    assert run("cluster-logging", "--dry-run").stdout.startswith("Would turn on the control-plane logs api, ")
    assert "Would write the Secrets database-owner and database" in run(*commands["database"], "--dry-run").stdout


def test_a_dry_run_does_not_wait(run: Run) -> None:
    """Without a load balancer it fails at once."""
    result = run("dns", "--dry-run")

    assert result.status == 1
    assert "waiting for the load balancer" in result.stderr


# --- Errors of AWS

# Operations of APIs in both formats, XML and JSON, with a command that calls each.
each_operation = pytest.mark.parametrize(
    ("command", "operation"),
    [
        ("dns", "DescribeLoadBalancers"),
        ("dns", "ListResourceRecordSets"),
        ("dns", "ChangeResourceRecordSets"),
        ("cluster-logging", "DescribeCluster"),
        ("cluster-logging", "UpdateClusterConfig"),
    ],
)


@pytest.fixture(name="balancer")
def make_balancer(account: Account) -> str:
    return account.create_load_balancer("a1")


@pytest.mark.usefixtures("balancer")
@each_operation
def test_a_throttled_call_is_retried(run: Run, account: Account, command: str, operation: str) -> None:
    """There are up to six attempts, for each error code that AWS uses for throttling."""
    codes = ["ThrottlingException", "Throttling", "RequestLimitExceeded", "ThrottlingException", "Throttling"]
    account.proxy.inject(operation, [error_response(code, "Rate exceeded") for code in codes])

    assert run(command).status == 0
    assert account.proxy.calls.count(operation) >= 6


@pytest.mark.usefixtures("balancer")
@each_operation
def test_a_call_that_is_always_throttled_is_an_error(run: Run, account: Account, command: str, operation: str) -> None:
    """It fails after six attempts, with the message of AWS."""
    account.proxy.inject(operation, itertools.repeat(error_response("ThrottlingException", "Rate exceeded")))

    result = run(command)

    assert result.status == 1
    assert result.stderr.startswith(f"error: AWS refused {operation} (ThrottlingException): Rate exceeded")
    assert account.proxy.calls.count(operation) == 6


@pytest.mark.usefixtures("balancer")
@each_operation
def test_a_call_whose_connection_is_reset_is_retried(run: Run, account: Account, command: str, operation: str) -> None:
    """The connection was reset before the request reached AWS."""
    account.proxy.inject(operation, [connection_reset] * 3)

    assert run(command).status == 0
    assert account.proxy.calls.count(operation) >= 4


@pytest.mark.usefixtures("balancer")
@each_operation
def test_a_connection_that_is_always_reset_is_an_error(
    run: Run, account: Account, command: str, operation: str
) -> None:
    """It fails after six attempts."""
    account.proxy.inject(operation, itertools.repeat(connection_reset))

    result = run(command)

    assert result.status == 1
    assert result.stderr.startswith("error: the call to AWS failed: ")
    assert account.proxy.calls.count(operation) == 6


@pytest.mark.usefixtures("balancer")
@each_operation
def test_a_call_is_retried_after_a_503(run: Run, account: Account, command: str, operation: str) -> None:
    """The service is only temporarily unavailable."""
    account.proxy.inject(operation, [error_response("ServiceUnavailable", "come back", 503)] * 2)

    assert run(command).status == 0


@pytest.mark.usefixtures("balancer")
@each_operation
def test_a_denied_call_is_an_error(run: Run, account: Account, command: str, operation: str) -> None:
    """It fails at the first attempt, with the message of AWS."""
    account.proxy.inject(
        operation, [error_response("AccessDeniedException", "User: you is not authorized to perform it", 403)]
    )

    result = run(command)

    assert result.status == 1
    assert result.stderr == (
        f"error: AWS refused {operation} (AccessDeniedException): User: you is not authorized to perform it\n"
    )
    assert account.proxy.calls.count(operation) == 1


@pytest.mark.parametrize(
    "command", ["dns", "cluster-logging", "teardown", "database", "apply", "canary", "accept", "rollback"]
)
def test_an_unreachable_aws_is_an_error(
    run: Run, account: Account, commands: dict[str, tuple[str, ...]], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """Nothing listens at the endpoint."""
    url = "http://{}:{}".format(*free_address())
    monkeypatch.setattr(type(account.proxy), "url", url)

    result = run(*commands[command])

    assert result.status == 1
    assert result.stderr.startswith("error: the call to AWS failed: Could not connect to the endpoint URL")


@pytest.mark.parametrize("command", ["dns", "cluster-logging", "apply"])
def test_missing_credentials_are_an_error(
    account: Account, commands: dict[str, tuple[str, ...]], tmp_path: Path, command: str
) -> None:
    """They are neither in the environment nor in a file."""
    result = run_as_process(
        *commands[command],
        "--outputs",
        str(account.outputs_file),
        HOME=str(tmp_path),
        AWS_ENDPOINT_URL=account.proxy.url,
    )

    assert (
        result.returncode,
        result.stdout,
        result.stderr,
    ) == (1, "", "error: the call to AWS failed: Unable to locate credentials\n")
    assert account.proxy.calls == []


def test_an_unknown_profile_is_an_error(account: Account, tmp_path: Path) -> None:
    """AWS_PROFILE names a profile that no file has."""
    result = run_as_process("dns", "--outputs", str(account.outputs_file), HOME=str(tmp_path), AWS_PROFILE="nobody")

    assert result.returncode == 1
    assert result.stderr == "error: the call to AWS failed: The config profile (nobody) could not be found\n"


def test_an_interrupted_command_exits_with_130(account: Account, mock_aws: MockAws, tmp_path: Path) -> None:
    """Ctrl-C while it waits prints no traceback."""
    environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_") or name == "PATH"}
    process = subprocess.Popen(
        [sys.executable, "-m", "ops", "dns", "--outputs", str(account.outputs_file)],
        cwd=ROOT,
        env={**environment, "HOME": str(tmp_path), "AWS_ENDPOINT_URL": mock_aws.proxy.url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        assert process.stdout.readline().startswith("Waiting for the load balancer")
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=PATIENCE_SECONDS)
    finally:
        process.kill()
        process.communicate()

    assert (process.returncode, error) == (130, "")
