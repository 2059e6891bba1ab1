"""Reports how AWS differs from this code, as Terraform plans it, in one issue on GitHub for each environment.

    python -m ops.deploy.drift ENVIRONMENT -- terraform … plan -detailed-exitcode -no-color …

The issue is opened, updated each time, and closed when nothing differs. Without GITHUB_TOKEN, the plan is only printed.
A job on GitHub has the other variables: https://docs.github.com/en/actions/reference/workflows-and-actions/variables
"""

import argparse
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

from ops.deploy.common import CannotProceed, report

_NO_CHANGES: Final = 0  # of terraform plan -detailed-exitcode; 1 is an error
_CHANGES: Final = 2
_AUTHOR: Final = "github-actions[bot]"  # whose issues these are: in a public repository, anyone can open one
_PAGE: Final = 100  # the maximum of GitHub's API
_NO_RESOURCES: Final = ("  # (", "  # data.")  # remarks, and what a plan would read again
_MAX_BODY: Final = 60_000  # characters; GitHub's limit is 65,536
_TIMEOUT_SECONDS: Final = 30


@dataclass(frozen=True)
class Repository:
    """The issues of a repository on GitHub.

    Attributes:
        url: of its issues in GitHub's REST API.
        token: may read and write issues.
    """

    url: str
    token: str

    def find(self, title: str) -> int | None:
        """Returns the number of our open issue with this title."""
        for issue in self._open_issues():
            if issue["title"] == title and issue["user"]["login"] == _AUTHOR and "pull_request" not in issue:
                return int(issue["number"])
        return None

    def open(self, title: str, body: str) -> None:
        self._send("POST", "", {"title": title, "body": body})

    def update(self, number: int, **fields: str) -> None:
        self._send("PATCH", f"/{number}", fields)

    def _open_issues(self) -> Iterator[dict[str, Any]]:
        for page in count(1):
            issues = self._send("GET", f"?state=open&per_page={_PAGE}&page={page}")
            yield from issues
            if len(issues) < _PAGE:
                return

    def _send(self, method: str, path: str, content: dict[str, str] | None = None) -> Any:
        request = urllib.request.Request(  # noqa: S310 - GitHub's own address
            self.url + path,
            method=method,
            data=None if content is None else json.dumps(content).encode(),
            headers={"Authorization": f"Bearer {self.token}", "Accept": "application/vnd.github+json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response:  # noqa: S310 - as above
                return json.load(response)
        except (OSError, ValueError) as error:
            raise CannotProceed(f"GitHub's API: {method} {self.url}{path}: {error}") from None


def main() -> int:
    """Runs the plan; returns 0 if nothing differs or an issue says what does, otherwise 1."""
    parser = argparse.ArgumentParser(prog="python -m ops.deploy.drift", description=__doc__)
    parser.add_argument("environment")
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    plan = subprocess.run(arguments.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    report(plan.stdout.rstrip())
    if not os.environ.get("GITHUB_TOKEN"):
        return int(plan.returncode != _NO_CHANGES)
    try:
        _report(arguments.environment, plan.returncode, plan.stdout)
    except CannotProceed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return int(plan.returncode not in {_NO_CHANGES, _CHANGES})


def _report(environment: str, status: int, output: str) -> None:
    repository = Repository(
        f"{os.environ['GITHUB_API_URL']}/repos/{os.environ['GITHUB_REPOSITORY']}/issues", os.environ["GITHUB_TOKEN"]
    )
    title = f"Drift in {environment}"
    number = repository.find(title)
    body = _body(status, output)
    if number is None:
        if status != _NO_CHANGES:
            repository.open(title, body)
    elif status == _NO_CHANGES:
        repository.update(number, body=body, state="closed")
    else:
        repository.update(number, body=body)


def _body(status: int, output: str) -> str:
    """Names what differs, without the values: the issue may be public."""
    run = "{GITHUB_SERVER_URL}/{GITHUB_REPOSITORY}/actions/runs/{GITHUB_RUN_ID}".format_map(os.environ)
    if status == _NO_CHANGES:
        return f"Nothing differs: [the last run]({run})."
    if status != _CHANGES:
        return f"What differs is unknown, because Terraform could not plan: [the last run]({run}) has the error."
    named = [line for line in output.splitlines() if line.startswith(("  # ", "Plan: "))]
    changes = "\n".join(line.strip() for line in named if not line.startswith(_NO_RESOURCES))
    return (
        f"To make AWS what `main` says, Terraform would make these changes. [The last run]({run}) has the whole plan. "
        "Either somebody changed AWS by hand, or `main` is not deployed yet.\n\n"
        f"```\n{changes[:_MAX_BODY]}\n```\n"
    )


if __name__ == "__main__":
    sys.exit(main())
