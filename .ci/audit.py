"""Security audit: bandit checks our own code, and pip-audit checks the locked packages against the advisories of OSV.

    python .ci/audit.py [--osv-url URL]

The exit status is 0 without findings, 1 with findings, and 3 if no advisory service answers, because then the packages
were not checked. Advisories that are accepted for a limited time are in .ci/advisories.toml.
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

# A version and its hashes, perhaps with an environment marker. All versions are checked, whatever this machine is.
PIN = re.compile(r"^([\w.-]+)==([^\s;]+)[^\\\n]*\\\n((?:\s+--hash=\S+(?: \\)?\n)+)", re.MULTILINE)

# A canary: every complete advisory service knows that PyYAML before 5.4 executes code in its input.
CANARY = {("pyyaml", "5.1"): f"    --hash=sha256:{'0' * 64}\n"}

Pins = dict[tuple[str, str], str]  # hashes by name and version
Advisory = tuple[str, str, dict[str, list[str]]]  # name, version, and what pip-audit reports


class NoAdvisoryService(Exception):
    """No advisory service answers, or it has no data."""


def report(message: str) -> None:
    print(f"audit: {message}", flush=True)


def check_code() -> bool:
    """Returns whether bandit finds nothing; pyproject.toml lists the rules that it skips, with reasons."""
    command = [BIN / "bandit", "--quiet", "--configfile", "pyproject.toml", "--recursive", "svc", "ops", ".ci"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        print(result.stdout or result.stderr)
    report("error: bandit: see above" if result.returncode else "bandit, svc ops .ci: nothing found")
    return not result.returncode


def check_packages(osv_url: str) -> bool:
    """Returns whether no package of any lock file has a vulnerability that is not accepted.

    Raises:
        NoAdvisoryService: with the reason.
    """
    locks = sorted(Path("requirements").glob("*.txt"))
    pins = {pin.group(1, 2): pin[3] for lock in locks for pin in PIN.finditer(lock.read_text())}
    known = list(advisories(pins | CANARY, osv_url))
    if not any(one[:2] in CANARY for one in known):
        raise NoAdvisoryService(f"{osv_url} has no vulnerability of PyYAML 5.1, so its data is not complete")
    found = list(findings([one for one in known if one[:2] not in CANARY]))
    for one in found:
        report(f"error: {one}")
    if not found:
        report(f"pip-audit, {len(pins)} versions in {len(locks)} lock files: no known vulnerabilities")
    return not found


def findings(known: list[Advisory]) -> Iterator[str]:
    """Describes each vulnerability that is not accepted."""
    accepted = {one["id"]: one for one in tomllib.loads(ACCEPTED.read_text()).get("accepted", [])}
    today = datetime.now(UTC).date()
    for name, version, advisory in known:
        names = (advisory["id"], *sorted(advisory["aliases"]))
        text = (
            f"{name} {version}: {', '.join(names)}, fixed in {', '.join(advisory['fix_versions']) or 'no version yet'}"
        )
        exception = next((accepted[one] for one in names if one in accepted), None)
        if exception is None:
            yield text
        elif exception["until"] < today:
            yield f"{text}; it was accepted until {exception['until']}"
        else:
            report(f"{text}; accepted until {exception['until']}: {exception['reason']}")


def advisories(pins: Pins, osv_url: str) -> Iterator[Advisory]:
    """Yields name, version and advisory for each vulnerability that pip-audit finds in these versions.

    Raises:
        NoAdvisoryService: with the reason.
    """
    versions = defaultdict(list)
    for name, version in pins:
        versions[name].append(version)
    # pip-audit takes one version of a package at a time. The lock files may have several of one package.
    for round_ in range(max(map(len, versions.values()))):
        batch = [(name, several[round_]) for name, several in versions.items() if len(several) > round_]
        requirements = "".join(f"{name}=={version} \\\n{pins[name, version]}" for name, version in batch)
        for package in run_pip_audit(requirements, osv_url):
            yield from ((package["name"], package["version"], advisory) for advisory in package["vulns"])


def run_pip_audit(requirements: str, osv_url: str) -> list[dict]:
    """Returns the packages that pip-audit reports for the content of a requirements file.

    The service is OSV rather than PyPI, because a mirror of PyPI may have all packages but no advisories.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "requirements.txt")
        file.write_text(requirements)
        command = [BIN / "pip-audit", "--requirement", file, "--require-hashes", "--disable-pip", "--strict"]
        options = ["--format", "json", "--desc", "off", "--progress-spinner", "off", "--cache-dir", folder]
        service = ["--vulnerability-service", "osv", "--osv-url", osv_url]
        result = subprocess.run([*command, *options, *service], capture_output=True, text=True, check=False)
    try:
        # The exit status is the same for an unavailable service and for a vulnerability.
        packages: list[dict] = json.loads(result.stdout)["dependencies"]
    except ValueError:
        raise NoAdvisoryService(result.stderr.strip().rpartition("\n")[2]) from None
    return packages


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--osv-url", default=OSV, help="the advisory service (default: %(default)s)")
    arguments = parser.parse_args()
    is_clean = check_code()
    try:
        is_clean &= check_packages(arguments.osv_url)
    except NoAdvisoryService as reason:
        report(f"error: pip-audit: no advisory service answers, so the packages were not checked: {reason}")
        return 3 if is_clean else 1
    return 0 if is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
