"""Looks for what is unsafe: in our own code with bandit, and in what it is made of with pip-audit, by OSV's advisories.

    python .ci/audit.py [--osv-url URL]

It ends with 0 where nothing is found, with 1 where something is, and with 3 where no advisory service answers: not to
know of any hole is then no success. Advisories that we live with for a while are in .ci/advisories.toml.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

OSV = "https://api.osv.dev/v1/query"
ACCEPTED = Path(".ci/advisories.toml")
BIN = Path(sys.executable).parent

# A version, its hashes, and perhaps where it is for. All of them are asked for, whatever this machine is.
PIN = re.compile(r"^([\w.-]+)==([^\s;]+)[^\\\n]*\\\n((?:\s+--hash=\S+(?: \\)?\n)+)", re.MULTILINE)

# Everyone who knows of any hole knows of this package's: PyYAML before 5.4 runs what it reads.
KNOWN = {("pyyaml", "5.1"): f"    --hash=sha256:{'0' * 64}\n"}

Pins = dict[tuple[str, str], str]


class NobodyAnswers(Exception):
    """No advisory service could be asked."""


def say(words: str) -> None:
    print(f"audit: {words}", flush=True)


def check_code() -> bool:
    """Whether bandit finds nothing; pyproject.toml has what it leaves alone, and why."""
    command = [BIN / "bandit", "--quiet", "--configfile", "pyproject.toml", "--recursive", "svc", "ops", ".ci"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout or done.stderr)
    say("error: bandit: see above" if done.returncode else "bandit, svc ops .ci: nothing found")
    return not done.returncode


def check_packages(osv_url: str) -> bool:
    """Whether nothing is known against any package of any lock file, but for what is accepted.

    Raises:
        NobodyAnswers: with the reason.
    """
    if not list(advisories(KNOWN, osv_url)):
        raise NobodyAnswers(f"{osv_url} knows of no hole in PyYAML 5.1, so it cannot know of others")
    locks = sorted(Path("requirements").glob("*.txt"))
    pins = {pin.group(1, 2): pin[3] for lock in locks for pin in PIN.finditer(lock.read_text())}
    found = [f"{name} {version}: {told}" for name, version, told in judged(pins, osv_url)]
    for one in found:
        say(f"error: {one}")
    if not found:
        say(f"pip-audit, {len(pins)} versions in {len(locks)} lock files: nothing is known against them")
    return not found


def judged(pins: Pins, osv_url: str) -> Iterator[tuple[str, str, str]]:
    """The packages with a hole that is not accepted: name, version, and what to know of it."""
    accepted = {one["id"]: one for one in tomllib.loads(ACCEPTED.read_text()).get("accepted", [])}
    today = datetime.now(UTC).date()
    for name, version, hole in advisories(pins, osv_url):
        names = (hole["id"], *sorted(hole["aliases"]))
        told = f"{', '.join(names)}, mended in {', '.join(hole['fix_versions']) or 'no version yet'}"
        exception = next((accepted[one] for one in names if one in accepted), None)
        if exception is None:
            yield name, version, told
        elif exception["until"] < today:
            yield name, version, f"{told}; it was accepted until {exception['until']}"
        else:
            say(f"{name} {version}: {told}; accepted until {exception['until']}: {exception['reason']}")


def advisories(pins: Pins, osv_url: str) -> Iterator[tuple[str, str, dict[str, list[str]]]]:
    """What pip-audit tells of these versions.

    Raises:
        NobodyAnswers: with the reason.
    """
    versions = defaultdict(list)
    for name, version in pins:
        versions[name].append(version)
    # It takes one version of a package at a time. Lock files have others for other Pythons, or in other environments.
    for round_ in range(max(map(len, versions.values()))):
        asked = [(name, several[round_]) for name, several in versions.items() if len(several) > round_]
        for package in ask("".join(f"{name}=={version} \\\n{pins[name, version]}" for name, version in asked), osv_url):
            yield from ((package["name"], package["version"], hole) for hole in package["vulns"])


def ask(requirements: str, osv_url: str) -> list[dict]:
    """pip-audit's answer for a file of requirements.

    OSV rather than PyPI's own interface: where a mirror stands for PyPI, it may know all packages and no advisories.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "requirements.txt")
        file.write_text(requirements)
        command = [BIN / "pip-audit", "--requirement", file, "--require-hashes", "--disable-pip", "--strict"]
        options = ["--format", "json", "--desc", "off", "--progress-spinner", "off", "--cache-dir", folder]
        service = ["--vulnerability-service", "osv", "--osv-url", osv_url]
        done = subprocess.run([*command, *options, *service], capture_output=True, text=True, check=False)
    try:
        # By its status alone, a service that is away and a hole that is found are the same.
        answer: list[dict] = json.loads(done.stdout)["dependencies"]
    except ValueError:
        raise NobodyAnswers(done.stderr.strip().rpartition("\n")[2]) from None
    return answer


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--osv-url", default=OSV, help="who is asked for advisories (%(default)s)")
    arguments = parser.parse_args()
    is_clean = check_code()
    try:
        is_clean &= check_packages(arguments.osv_url)
    except NobodyAnswers as reason:
        say(f"error: pip-audit: no advisory service can be asked from here, so nothing is known: {reason}")
        return 3 if is_clean else 1
    return 0 if is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
