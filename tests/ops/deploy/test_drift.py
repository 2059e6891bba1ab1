"""How AWS differs from the code is reported in one issue of an environment, on a fake GitHub on loopback."""

import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import parse_qs, urlsplit

import pytest

from ops.common.process import ROOT
from tests.missing import missing

pytestmark = pytest.mark.slow

Issue: TypeAlias = dict[str, Any]
Drift: TypeAlias = Callable[..., subprocess.CompletedProcess[str]]

BOT = {"login": "github-actions[bot]"}
ISSUES = "/repos/olimac/clients/issues"
PLAN = """
Terraform will perform the following actions:

  # data.aws_iam_policy_document.pods will be read during apply
  # (depends on a resource or a module with changes pending)
 <= data "aws_iam_policy_document" "pods" {
    }

  # aws_security_group.database will be updated in-place
  ~ resource "aws_security_group" "database" {
      ~ description = "a value" -> "another value"
    }

Plan: 0 to add, 1 to change, 0 to destroy.
"""


class GitHub(ThreadingHTTPServer):
    """The issues of a repository: https://docs.github.com/en/rest/issues/issues."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.issues: list[Issue] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def add(self, title: str, **fields: Any) -> Issue:
        issue = {"number": len(self.issues) + 1, "title": title, "state": "open", "user": BOT, **fields}
        self.issues.append(issue)
        return issue


class Handler(BaseHTTPRequestHandler):
    server: GitHub

    def do_GET(self) -> None:
        query = {name: value for name, (value,) in parse_qs(urlsplit(self.path).query).items()}
        found = [issue for issue in self.server.issues if issue["state"] == query["state"]]
        start = (int(query["page"]) - 1) * int(query["per_page"])
        self._respond(found[start : start + int(query["per_page"])])

    def do_POST(self) -> None:
        self._respond(self.server.add(**self._content()), status=201)

    def do_PATCH(self) -> None:
        issue = self.server.issues[int(self.path.rpartition("/")[2]) - 1]
        issue.update(self._content())
        self._respond(issue)

    def _content(self) -> Issue:
        content: Issue = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        return content

    def _respond(self, content: Any, status: int = 200) -> None:
        authorised = self.headers["Authorization"] == "Bearer a-token" and self.path.startswith(ISSUES)
        self.send_response(status if authorised else 401)
        self.end_headers()
        if authorised:
            self.wfile.write(json.dumps(content).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(name="github")
def run_github() -> Iterator[GitHub]:
    with GitHub() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(name="drift")
def run_drift(github: GitHub, tmp_path: Path) -> Drift:
    """Runs the report with a plan that prints and exits as told."""

    def run(status: int, output: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        plan = tmp_path / "plan"
        plan.write_text(output)
        command = [sys.executable, "-c", f"print(open({str(plan)!r}).read()); raise SystemExit({status})"]
        return report(command, github, **environment)

    return run


def report(command: list[str], github: GitHub, **environment: str) -> subprocess.CompletedProcess[str]:
    drift = [sys.executable, "-m", "ops.deploy.drift", "staging", "--", *command]
    variables = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "GITHUB_TOKEN": "a-token",
        "GITHUB_API_URL": github.url,
        "GITHUB_SERVER_URL": "https://github.example",
        "GITHUB_REPOSITORY": "olimac/clients",
        "GITHUB_RUN_ID": "7",
    }
    return subprocess.run(drift, cwd=ROOT, env=variables | environment, capture_output=True, text=True, check=False)


def test_differences_open_an_issue(github: GitHub, drift: Drift) -> None:
    """It names what would change, without values, since it may be public; the run has the whole plan."""
    result = drift(2, PLAN)

    assert result.returncode == 0
    assert "another value" in result.stdout
    (issue,) = github.issues
    assert issue["title"] == "Drift in staging"
    assert "# aws_security_group.database will be updated in-place\nPlan: 0 to add, 1 to change" in issue["body"]
    assert "https://github.example/olimac/clients/actions/runs/7" in issue["body"]
    assert not re.search("value|data|depends", issue["body"].replace("database", ""))


def test_the_issue_is_updated_and_closed(github: GitHub, drift: Drift) -> None:
    """There is one issue, however long something differs. A later difference opens a new one."""
    drift(2, PLAN)
    drift(2, PLAN.replace("database", "cluster"))

    (issue,) = github.issues
    assert "aws_security_group.cluster" in issue["body"]
    assert drift(0, "No changes.").returncode == 0
    assert issue["state"] == "closed"
    drift(2, PLAN)
    assert [one["state"] for one in github.issues] == ["closed", "open"]


def test_nothing_is_reported_when_nothing_differs(github: GitHub, drift: Drift) -> None:
    """No issue is opened."""
    assert drift(0, "No changes.").returncode == 0
    assert github.issues == []


def test_a_plan_that_fails_is_reported(github: GitHub, drift: Drift) -> None:
    """Nobody sees a failed run of the night, and the job fails all the same."""
    assert drift(1, "Error: no credentials").returncode == 1
    (issue,) = github.issues
    assert "could not plan" in issue["body"]


def test_other_issues_are_left_alone(github: GitHub, drift: Drift) -> None:
    """Those of other people and environments, and pull requests, also if they fill a page of GitHub's API."""
    for number in range(100):
        github.add(f"Issue {number}")
    github.add("Drift in production")
    github.add("Drift in staging", user={"login": "somebody"})
    github.add("Drift in staging", pull_request={})
    ours = github.add("Drift in staging")

    assert drift(2, PLAN).returncode == 0
    assert [issue for issue in github.issues if "body" in issue] == [ours]


def test_a_github_that_refuses_is_an_error(github: GitHub, drift: Drift) -> None:
    """The job fails, so that the drift is not lost."""
    result = drift(2, PLAN, GITHUB_TOKEN="another")

    assert result.returncode == 1
    assert result.stderr.startswith(f"error: GitHub's API: GET {github.url}{ISSUES}?")
    assert "another" not in result.stderr.replace("another value", "")


def test_without_a_token_the_plan_is_printed(github: GitHub, drift: Drift) -> None:
    """On a laptop. The status says whether something differs."""
    assert drift(2, PLAN, GITHUB_TOKEN="").returncode == 1
    assert drift(0, "No changes.", GITHUB_TOKEN="").returncode == 0
    assert github.issues == []


def test_terraforms_own_plan_is_read(github: GitHub, tmp_path: Path) -> None:
    """Its status and its lines are those that the report expects."""
    if not shutil.which("terraform"):
        missing("terraform is missing")
    (tmp_path / "main.tf").write_text('resource "terraform_data" "one" {}\n')
    terraform = ["terraform", f"-chdir={tmp_path}"]
    subprocess.run([*terraform, "init"], capture_output=True, check=True)

    result = report([*terraform, "plan", "-no-color", "-detailed-exitcode"], github)

    assert result.returncode == 0
    (issue,) = github.issues
    assert "# terraform_data.one will be created\nPlan: 1 to add, 0 to change, 0 to destroy." in issue["body"]
