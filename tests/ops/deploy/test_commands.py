"""python -m ops: what all commands have in common, and how they bear with an AWS that does not do as it is asked."""

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
from tests.ops.deploy.cloud import (
    HOSTNAME,
    Cloud,
    Ground,
    Run,
    all_objects,
    free_address,
    lost,
    refused,
)


@pytest.fixture(name="commands")
def name_commands(ground: Ground) -> dict[str, tuple[str, ...]]:
    """All commands, with the arguments that they cannot do without."""
    return {
        "apply": ("apply", "production", "--image", IMAGE),
        "database": ("database", "--image", IMAGE, "--authority", str(ground.ca.certificate)),
        "dns": ("dns",),
        "cluster-logging": ("cluster-logging",),
        "smoke": ("smoke", "--connect", "127.0.0.1:1"),
        "teardown": ("teardown",),
    }


ALL = ("apply", "database", "dns", "cluster-logging", "smoke", "teardown")


def as_process(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """`python -m ops` as a person runs it, in no environment but this."""
    return subprocess.run(
        [sys.executable, "-m", "ops", *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "AWS_EC2_METADATA_DISABLED": "true", **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


# --- The command line


@pytest.mark.parametrize("command", ALL)
def test_each_command_says_what_it_is_for(run: Run, command: str) -> None:
    """With its options, and without doing anything."""
    done = run(command, "--help")

    assert (done.status, done.error) == (0, "")
    assert f"python -m ops {command}" in done.said
    assert "--dry-run" in done.said
    assert "--outputs" in done.said


def test_the_commands_are_listed() -> None:
    """By `--help`, to whoever runs the package."""
    done = as_process("--help")

    assert (done.returncode, done.stderr) == (0, "")
    assert list(ALL) == re.findall(r"^    ([a-z-]+)(?: {2,}|$)", done.stdout, re.MULTILINE)


def test_no_command_is_not_understood(run: Run) -> None:
    """Nor is one that there is not."""
    assert [run().status, run("destroy").status] == [2, 2]


@pytest.mark.parametrize("command", ["apply", "database"])
def test_an_image_has_to_be_named(run: Run, command: str) -> None:
    """What runs is not guessed."""
    done = run(*("apply", "production") if command == "apply" else (command,))

    assert done.status == 2
    assert "the following arguments are required: --image" in done.error


# --- What Terraform made


@pytest.mark.parametrize("command", ALL)
def test_outputs_that_are_not_there_are_said(
    run: Run, cloud: Cloud, commands: dict[str, tuple[str, ...]], tmp_path: Path, command: str
) -> None:
    """With how to make the file; nothing is asked of AWS."""
    file = tmp_path / "none.json"

    done = run(*commands[command], "--outputs", str(file))

    assert done == (1, "", f"error: there is no {file}: make it with terraform output -json > {file}\n")
    assert cloud.way.asked == []


@pytest.mark.parametrize("command", ALL)
def test_outputs_that_are_wrong_are_said(
    run: Run, cloud: Cloud, commands: dict[str, tuple[str, ...]], tmp_path: Path, command: str
) -> None:
    """No JSON, another's JSON, an empty state's, one output missing or empty, a folder: one line, and nothing asked."""
    right = json.loads(cloud.file.read_text())
    without_zone = {name: value for name, value in right.items() if name != "zone_id"}
    contents = ["", "{", "[]", "5", "{}", '{"name": "olimac"}', json.dumps(without_zone)]
    contents += [json.dumps({**right, "zone_id": {"value": value}}) for value in (None, "", 5, ["Z1"])]
    files = [tmp_path, *(tmp_path / f"{number}.json" for number in range(len(contents)))]
    for file, content in zip(files[1:], contents, strict=True):
        file.write_text(content)

    for file in files:
        done = run(*commands[command], "--outputs", str(file))
        assert (done.status, done.said) == (1, "")
        assert done.error.startswith(f"error: {file} is not what terraform output -json says of an applied state (")
        assert done.error.count("\n") == 1
    assert cloud.way.asked == []


def test_the_outputs_are_looked_for_where_one_is(tmp_path: Path) -> None:
    """In outputs.json, as make puts it."""
    done = subprocess.run(
        [sys.executable, "-m", "ops", "dns"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert (
        done.returncode,
        done.stderr,
    ) == (1, "error: there is no outputs.json: make it with terraform output -json > outputs.json\n")


@pytest.mark.parametrize("command", ["apply", "database", "cluster-logging"])
def test_a_cluster_that_is_not_there_is_said(
    run: Run, cloud: Cloud, commands: dict[str, tuple[str, ...]], command: str
) -> None:
    """With what to do about it."""
    cloud.remove_cluster()
    before = aws_but_the_cluster(cloud)

    done = run(*commands[command])

    assert done.status == 1
    assert done.error == "error: there is no cluster olimac in us-east-1: apply Terraform first\n"
    assert aws_but_the_cluster(cloud) == before


def aws_but_the_cluster(cloud: Cloud) -> object:
    return cloud.records(), cloud.balancers(), cloud.security_groups()


@pytest.mark.parametrize("command", ALL)
def test_a_dry_run_changes_nothing(
    run: Run, cloud: Cloud, cluster: kubernetes.Cluster, commands: dict[str, tuple[str, ...]], command: str
) -> None:
    """Neither in AWS nor in the cluster, where there is everything to do."""
    cloud.make_balancer("a1")
    if command == "teardown":
        cloud.put("CNAME", "a1.us-east-1.elb.amazonaws.com")
    before = cloud.everything(), all_objects(cluster)

    done = run(*commands[command], "--dry-run")

    assert (done.status, done.error) == (0, "")
    assert done.said
    assert all(asked.startswith(("Describe", "Get", "List")) for asked in cloud.way.asked)
    assert "GetSecretValue" not in cloud.way.asked
    assert (cloud.everything(), all_objects(cluster)) == before


def test_what_a_dry_run_would_do_is_said(run: Run, cloud: Cloud, commands: dict[str, tuple[str, ...]]) -> None:
    """By the commands that change something in AWS."""
    hostname = cloud.make_balancer("a1")
    assert run("dns", "--dry-run").said == f"{HOSTNAME} → {hostname}, if this were no dry run\n"

    cloud.put("CNAME", hostname)
    assert run("teardown", "--dry-run").said == f"Removing {HOSTNAME}, if this were no dry run\nWould remove a1\n"
    assert run("cluster-logging", "--dry-run").said.endswith("scheduler, if this were no dry run\n")
    assert "Would write the Secrets database-owner and database" in run(*commands["database"], "--dry-run").said


def test_a_dry_run_waits_for_nothing(run: Run) -> None:
    """Where there is no load balancer yet, it says so."""
    done = run("dns", "--dry-run")

    assert done.status == 1
    assert "in vain for the load balancer" in done.error


# --- An AWS that does not do as it is asked

# By the first operation that each asks for, in the forms that AWS's APIs have: XML, and JSON.
ASKING = pytest.mark.parametrize(
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
def make_balancer(cloud: Cloud) -> str:
    return cloud.make_balancer("a1")


@pytest.mark.usefixtures("balancer")
@ASKING
def test_a_throttled_call_is_made_again(run: Run, cloud: Cloud, command: str, operation: str) -> None:
    """Up to six times, whatever name AWS has for it."""
    codes = ["ThrottlingException", "Throttling", "RequestLimitExceeded", "ThrottlingException", "Throttling"]
    cloud.way.at(operation, [refused(code, "Rate exceeded") for code in codes])

    assert run(command).status == 0
    assert cloud.way.asked.count(operation) >= 6


@pytest.mark.usefixtures("balancer")
@ASKING
def test_a_call_that_is_throttled_for_ever_is_said(run: Run, cloud: Cloud, command: str, operation: str) -> None:
    """After six attempts, in AWS's words."""
    cloud.way.at(operation, itertools.repeat(refused("ThrottlingException", "Rate exceeded")))

    done = run(command)

    assert done.status == 1
    assert done.error.startswith(f"error: AWS refused {operation} (ThrottlingException): Rate exceeded")
    assert cloud.way.asked.count(operation) == 6


@pytest.mark.usefixtures("balancer")
@ASKING
def test_a_call_whose_connection_is_lost_is_made_again(run: Run, cloud: Cloud, command: str, operation: str) -> None:
    """Reset before AWS could hear of it."""
    cloud.way.at(operation, [lost] * 3)

    assert run(command).status == 0
    assert cloud.way.asked.count(operation) >= 4


@pytest.mark.usefixtures("balancer")
@ASKING
def test_a_way_that_is_cut_is_said(run: Run, cloud: Cloud, command: str, operation: str) -> None:
    """After six attempts."""
    cloud.way.at(operation, itertools.repeat(lost))

    done = run(command)

    assert done.status == 1
    assert done.error.startswith("error: AWS cannot be asked: ")
    assert cloud.way.asked.count(operation) == 6


@pytest.mark.usefixtures("balancer")
@ASKING
def test_an_aws_that_fails_for_a_while_is_asked_again(run: Run, cloud: Cloud, command: str, operation: str) -> None:
    """A 503 is nobody's decision."""
    cloud.way.at(operation, [refused("ServiceUnavailable", "come back", 503)] * 2)

    assert run(command).status == 0


@pytest.mark.usefixtures("balancer")
@ASKING
def test_who_may_not_is_told_so(run: Run, cloud: Cloud, command: str, operation: str) -> None:
    """In AWS's words, and at once."""
    cloud.way.at(operation, [refused("AccessDeniedException", "User: you is not authorized to perform it", 403)])

    done = run(command)

    assert done.status == 1
    assert done.error == (
        f"error: AWS refused {operation} (AccessDeniedException): User: you is not authorized to perform it\n"
    )
    assert cloud.way.asked.count(operation) == 1


@pytest.mark.parametrize("command", ["dns", "cluster-logging", "teardown", "database", "apply"])
def test_an_aws_that_nobody_answers_for_is_said(
    run: Run, cloud: Cloud, commands: dict[str, tuple[str, ...]], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """The name leads to a machine where nothing listens."""
    url = "http://{}:{}".format(*free_address())
    monkeypatch.setattr(type(cloud.way), "url", url)

    done = run(*commands[command])

    assert done.status == 1
    assert done.error.startswith("error: AWS cannot be asked: Could not connect to the endpoint URL")


@pytest.mark.parametrize("command", ["dns", "cluster-logging", "apply"])
def test_nobodys_credentials_are_said(
    cloud: Cloud, commands: dict[str, tuple[str, ...]], tmp_path: Path, command: str
) -> None:
    """Neither in the environment nor in a file."""
    done = as_process(
        *commands[command], "--outputs", str(cloud.file), HOME=str(tmp_path), AWS_ENDPOINT_URL=cloud.way.url
    )

    assert (
        done.returncode,
        done.stdout,
        done.stderr,
    ) == (1, "", "error: AWS cannot be asked: Unable to locate credentials\n")
    assert cloud.way.asked == []


def test_a_profile_that_is_not_there_is_said(cloud: Cloud, tmp_path: Path) -> None:
    """AWS_PROFILE names one that no file has."""
    done = as_process("dns", "--outputs", str(cloud.file), HOME=str(tmp_path), AWS_PROFILE="nobody")

    assert done.returncode == 1
    assert done.stderr == "error: AWS cannot be asked: The config profile (nobody) could not be found\n"


def test_an_interrupted_command_ends_quietly(cloud: Cloud, ground: Ground, tmp_path: Path) -> None:
    """Ctrl-C while it waits: 130, and no traceback."""
    environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_") or name == "PATH"}
    process = subprocess.Popen(
        [sys.executable, "-m", "ops", "dns", "--outputs", str(cloud.file)],
        cwd=ROOT,
        env={**environment, "HOME": str(tmp_path), "AWS_ENDPOINT_URL": ground.way.url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        assert process.stdout.readline().startswith("Waiting for the load balancer")
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=20)
    finally:
        process.kill()
        process.communicate()

    assert (process.returncode, error) == (130, "")
