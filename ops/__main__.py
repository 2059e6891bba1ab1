"""The command line of a deployment and of its recovery: `python -m ops COMMAND`; `--help` lists the commands."""

import argparse
import signal
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn, TypeAlias

from botocore.exceptions import BotoCoreError, ClientError

from ops.deploy import (
    canary,
    cluster_logging,
    database,
    dns,
    manifests,
    password,
    protection,
    release,
    restore,
    rollout,
    teardown,
)
from ops.deploy.common import CannotProceed, Outputs, aws_error_message, read_outputs, report
from ops.deploy.smoke import SmokeTest

Option: TypeAlias = Callable[[argparse.ArgumentParser], None]

_STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)

_EPILOG: Final = """\
Each command can be run again at any time. AWS and the cluster are called with the AWS credentials of the environment,
which are found as the AWS command line finds them. docs/deploying.md and docs/recovery.md say when to run which
command.
"""


def main() -> int:
    """Runs the command; returns 0 for success, 1 for failure, 2 for an invalid command line."""
    for number in _STOP_SIGNALS:
        signal.signal(number, _interrupt_once)
    arguments = _parser().parse_args()
    command: Callable[[argparse.Namespace], None] = arguments.command
    try:
        command(arguments)
    except CannotProceed as error:
        return _fail(str(error))
    except (BotoCoreError, ClientError) as error:
        return _fail(aws_error_message(error))
    except KeyboardInterrupt:
        return 130
    return 0


def _interrupt_once(_: int, __: FrameType | None) -> NoReturn:
    """Ends the command after its clean-up, which later signals do not interrupt: GitHub sends one after another."""
    for number in _STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _fail(reason: str) -> int:
    print(f"error: {reason}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ops",
        description="The steps of a deployment after terraform apply, the step before terraform destroy, and recovery.",
        epilog=_EPILOG,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, command, options in _COMMANDS:
        summary = (command.__doc__ or "").partition("\n")[0]
        sub = commands.add_parser(name, help=summary, description=summary)
        sub.set_defaults(command=command)
        text = "the output of `terraform output -json` (default: outputs.json)"
        sub.add_argument("--outputs", type=Path, default=Path("outputs.json"), metavar="FILE", help=text)
        for option in options:
            option(sub)
    return parser


def _apply(arguments: argparse.Namespace) -> None:
    """Applies the objects of an overlay of k8s/overlays to the cluster, and waits for their pods."""
    outputs = read_outputs(arguments.outputs)
    manifests.apply(arguments.overlay, outputs, arguments.image, timeout=arguments.timeout, dry_run=arguments.dry_run)


def _database(arguments: argparse.Namespace) -> None:
    """Stores the database's address and passwords in the cluster, and migrates and seeds the database."""
    outputs = read_outputs(arguments.outputs)
    ca_bundle = _ca_bundle(arguments, outputs)
    database.prepare(outputs, arguments.image, arguments.environment, ca_bundle, dry_run=arguments.dry_run)


def _canary(arguments: argparse.Namespace) -> None:
    """Runs one pod of the image beside the service's pods, and compares its requests with theirs."""
    options = {"seconds": arguments.seconds, "timeout": arguments.timeout, "dry_run": arguments.dry_run}
    canary.run(read_outputs(arguments.outputs), arguments.image, arguments.environment, **options)


def _accept(arguments: argparse.Namespace) -> None:
    """Watches the first minutes of the release that runs, and keeps it as the one to go back to."""
    outputs = read_outputs(arguments.outputs)
    image, environment = arguments.image, arguments.environment
    release.accept(outputs, image, environment, seconds=arguments.seconds, dry_run=arguments.dry_run)


def _rollback(arguments: argparse.Namespace) -> None:
    """Brings the last good release back, and waits until its pods serve."""
    release.rollback(read_outputs(arguments.outputs), timeout=arguments.timeout, dry_run=arguments.dry_run)


def _dns(arguments: argparse.Namespace) -> None:
    """Points the service's public name at its load balancer, and waits until Route 53 is in sync."""
    dns.update_record(read_outputs(arguments.outputs), dry_run=arguments.dry_run)


def _cluster_logging(arguments: argparse.Namespace) -> None:
    """Turns on the control plane's five log types if some are off, and waits for EKS."""
    cluster_logging.turn_on(read_outputs(arguments.outputs), dry_run=arguments.dry_run)


def _protect(arguments: argparse.Namespace) -> None:
    """Protects the cluster from deletion, until teardown, and waits for EKS."""
    protection.turn_on(read_outputs(arguments.outputs), dry_run=arguments.dry_run)


def _smoke(arguments: argparse.Namespace) -> None:
    """Sends requests to the three endpoints over HTTPS, which change nothing, and checks certificate and responses."""
    outputs = read_outputs(arguments.outputs)
    if arguments.dry_run:
        report(f"Would send requests to https://{outputs.hostname}")
        return
    SmokeTest(outputs.hostname, arguments.connect, arguments.authority).run()


def _teardown(arguments: argparse.Namespace) -> None:
    """Removes the DNS record and the load balancer, which Terraform did not create, before terraform destroy."""
    teardown.run(read_outputs(arguments.outputs), dry_run=arguments.dry_run)


def _restore(arguments: argparse.Namespace) -> None:
    """Restores the database beside the old one, checks it, and moves the service to it."""
    outputs = read_outputs(arguments.outputs)
    source = restore.Source(arguments.snapshot, arguments.time)
    move = restore.Move(arguments.image, _ca_bundle(arguments, outputs), is_confirmed=arguments.yes)
    restore.run(outputs, arguments.identifier, source, arguments.zone, move, dry_run=arguments.dry_run)
    if not arguments.dry_run:
        restore.write_outputs(arguments.outputs, arguments.identifier)


def _remove_database(arguments: argparse.Namespace) -> None:
    """Deletes a database that the service has left, or never used; a final snapshot stays."""
    restore.remove(read_outputs(arguments.outputs), arguments.identifier, dry_run=arguments.dry_run)


def _rotate_password(arguments: argparse.Namespace) -> None:
    """Moves the service to its other database role, with a new password, and takes the old role's password."""
    outputs = read_outputs(arguments.outputs)
    password.rotate(outputs, _ca_bundle(arguments, outputs), dry_run=arguments.dry_run)


def _ca_bundle(arguments: argparse.Namespace, outputs: Outputs) -> str:
    source: str = arguments.authority or database.ca_bundle_url(outputs.region)
    return source


# --- Options


def _dry_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="print what would change, and change nothing")


def _image(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--image", required=True, help="the service's image by digest: name@sha256:…")


def _overlay(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("overlay", choices=manifests.APPLIED, help=", ".join(manifests.APPLIED))


def _environment(parser: argparse.ArgumentParser) -> None:
    text = f"{' or '.join(manifests.ENVIRONMENTS)} (default: %(default)s)"
    parser.add_argument("--environment", choices=manifests.ENVIRONMENTS, default=manifests.ENVIRONMENTS[0], help=text)


def _rollout_timeout(seconds: float) -> Option:
    return _seconds("--timeout", seconds, "how long the pods may take to become available")


def _duration(seconds: float, text: str) -> Option:
    return _seconds("--seconds", seconds, text)


def _seconds(name: str, default: float, text: str) -> Option:
    def add(parser: argparse.ArgumentParser) -> None:
        text_with_default = f"{text}, in seconds (default: %(default)g)"
        parser.add_argument(name, type=float, default=default, metavar="SECONDS", help=text_with_default)

    return add


def _database_ca(parser: argparse.ArgumentParser) -> None:
    text = "a URL or a file with the CA certificates of the database (default: AWS's bundle for the region)"
    parser.add_argument("--authority", metavar="URL_OR_FILE", help=text)


def _instance(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("identifier", help="the identifier of the RDS instance")


def _source(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group()
    text = "restore this point in time, such as 2026-11-29T16:05:00Z (default: the latest possible one)"
    source.add_argument("--time", type=_time, metavar="TIME", help=text)
    source.add_argument("--snapshot", default="", help="restore this snapshot instead")
    text = "the zone of the new database, if the other zone is lost (default: RDS chooses)"
    parser.add_argument("--zone", default="", help=text)
    parser.add_argument("--yes", action="store_true", help="move the service without asking")


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError("it has no time zone")
    return time


def _address(parser: argparse.ArgumentParser) -> None:
    text = "connect to this address instead of resolving the public name; the certificate must still match the name"
    parser.add_argument("--connect", type=_host_and_port, metavar="HOST:PORT", help=text)
    text = "a file with the CA certificates to trust (default: those of this machine)"
    parser.add_argument("--authority", type=Path, metavar="FILE", help=text)


def _host_and_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


_COMMANDS: Final = (
    ("protect", _protect, (_dry_run,)),
    ("apply", _apply, (_overlay, _image, _rollout_timeout(rollout.ROLLOUT_SECONDS), _dry_run)),
    ("database", _database, (_image, _environment, _database_ca, _dry_run)),
    (
        "canary",
        _canary,
        (
            *(_image, _environment, _duration(canary.SECONDS, "how long it serves")),
            *(_rollout_timeout(canary.READY_SECONDS), _dry_run),
        ),
    ),
    ("accept", _accept, (_image, _environment, _duration(release.SECONDS, "how long to watch"), _dry_run)),
    ("rollback", _rollback, (_rollout_timeout(rollout.ROLLOUT_SECONDS), _dry_run)),
    ("dns", _dns, (_dry_run,)),
    ("cluster-logging", _cluster_logging, (_dry_run,)),
    ("smoke", _smoke, (_address, _dry_run)),
    ("teardown", _teardown, (_dry_run,)),
    ("restore", _restore, (_instance, _image, _source, _database_ca, _dry_run)),
    ("remove-database", _remove_database, (_instance, _dry_run)),
    ("rotate-password", _rotate_password, (_database_ca, _dry_run)),
)


if __name__ == "__main__":
    sys.exit(main())
