"""The command line of a deployment: `python -m ops apply | database | dns | cluster-logging | smoke | teardown`."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from botocore.exceptions import BotoCoreError, ClientError

from ops.deploy import cluster_logging, database, dns, manifests, teardown
from ops.deploy.common import CannotProceed, in_words, read_outputs, say
from ops.deploy.smoke import Smoke

_EPILOG: Final = """\
Each may be run as often as one likes. AWS is asked with the credentials that the environment gives, as for its own
command line; the cluster with these credentials too. docs/deploying.md says when to run what.
"""


def main() -> int:
    """Does what the command line says; 0 where it worked, 1 where not, 2 where it is not understood."""
    arguments = _parser().parse_args()
    command: Callable[[argparse.Namespace], None] = arguments.command
    try:
        command(arguments)
    except CannotProceed as error:
        return _refuse(str(error))
    except (BotoCoreError, ClientError) as error:
        return _refuse(in_words(error))
    except KeyboardInterrupt:
        return 130
    return 0


def _refuse(why: str) -> int:
    print(f"error: {why}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ops",
        description="The steps of a deployment after terraform apply, and the one before terraform destroy.",
        epilog=_EPILOG,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, command, options in _COMMANDS:
        summary = (command.__doc__ or "").partition("\n")[0]
        sub = commands.add_parser(name, help=summary, description=summary)
        sub.set_defaults(command=command)
        text = "what `terraform output -json` wrote (outputs.json)"
        sub.add_argument("--outputs", type=Path, default=Path("outputs.json"), metavar="FILE", help=text)
        for option in options:
            option(sub)
    return parser


def _apply(arguments: argparse.Namespace) -> None:
    """Makes objects of the cluster what k8s/overlays/production says, or monitoring."""
    outputs = read_outputs(arguments.outputs)
    manifests.apply(arguments.overlay, outputs, arguments.image, dry_run=arguments.dry_run)


def _database(arguments: argparse.Namespace) -> None:
    """Tells the cluster of the database, migrates and seeds it within the cluster, and waits for the service."""
    outputs = read_outputs(arguments.outputs)
    authority = arguments.authority or database.authority_url(outputs.region)
    database.prepare(outputs, arguments.image, authority, dry_run=arguments.dry_run)


def _dns(arguments: argparse.Namespace) -> None:
    """Points the service's public name to its load balancer, and waits until Route 53 is in sync."""
    dns.point(read_outputs(arguments.outputs), dry_run=arguments.dry_run)


def _cluster_logging(arguments: argparse.Namespace) -> None:
    """Turns on the control plane's five types of logs where they are off, and waits for EKS."""
    cluster_logging.turn_on(read_outputs(arguments.outputs), dry_run=arguments.dry_run)


def _smoke(arguments: argparse.Namespace) -> None:
    """Asks the three endpoints by their public name over HTTPS, and checks certificate and answers."""
    outputs = read_outputs(arguments.outputs)
    if arguments.dry_run:
        say(f"Would ask https://{outputs.hostname}")
        return
    Smoke(outputs.hostname, arguments.connect, arguments.authority).run()


def _teardown(arguments: argparse.Namespace) -> None:
    """Removes the record and the load balancer, which Terraform did not make, before terraform destroy."""
    teardown.run(read_outputs(arguments.outputs), dry_run=arguments.dry_run)


# --- Options


def _dry_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")


def _image(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--image", required=True, help="the service's image by digest, name@sha256:…")


def _overlay(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("overlay", choices=manifests.APPLIED, help=" or ".join(manifests.APPLIED))


def _database_authority(parser: argparse.ArgumentParser) -> None:
    text = "a URL or file of the CA certificates of the database (AWS's own of the region)"
    parser.add_argument("--authority", metavar="WHERE", help=text)


def _address(parser: argparse.ArgumentParser) -> None:
    text = "connect there instead of where the name leads; the certificate still has to be for the name"
    parser.add_argument("--connect", type=_host_and_port, metavar="HOST:PORT", help=text)
    parser.add_argument("--authority", type=Path, metavar="FILE", help="a CA to trust instead of the machine's")


def _host_and_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


_COMMANDS: Final = (
    ("apply", _apply, (_overlay, _image, _dry_run)),
    ("database", _database, (_image, _database_authority, _dry_run)),
    ("dns", _dns, (_dry_run,)),
    ("cluster-logging", _cluster_logging, (_dry_run,)),
    ("smoke", _smoke, (_address, _dry_run)),
    ("teardown", _teardown, (_dry_run,)),
)


if __name__ == "__main__":
    sys.exit(main())
