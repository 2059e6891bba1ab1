"""The contenders: this service, its peers, and floors. Starts and stops each of them."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ops.common.ports import free_port

_PEERS: Final = Path(__file__).with_name("peers")
_READY_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 10.0


class CannotRun(Exception):
    """A contender needs a tool that is not installed, could not be built, or does not start."""


@dataclass(frozen=True)
class Contender:
    """One way to build the service: ours, a peer's, or a floor.

    Attributes:
        name: a short name.
        title: a short description.
        prepare: builds it in a folder, if it has to be built, and returns the command that serves on a port. Raises
            CannotRun if it cannot be built.
        environment: variables that only this contender gets.
        is_floor: whether it gives the same fixed response to every request, as a lower bound for every service.
        exports_traces: whether it exports traces, and so needs a collector.
        telemetry: the design of its telemetry, as ops/cost names it; empty if it has none.
    """

    name: str
    title: str
    prepare: Callable[[Path, int], Sequence[str | Path]]
    environment: Mapping[str, str] = field(default_factory=dict)
    is_floor: bool = False
    exports_traces: bool = False
    telemetry: str = ""


@dataclass(frozen=True)
class Running:
    """A started contender.

    Attributes:
        url: its address.
        pid: of its first process, from which all others descend.
    """

    url: str
    pid: int


def _module(name: str, *arguments: str) -> Callable[[Path, int], Sequence[str | Path]]:
    return lambda _, port: [sys.executable, "-m", name, *(argument.format(port=port) for argument in arguments)]


def _fastify(folder: Path, _: int) -> Sequence[str | Path]:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise CannotRun("Node.js or npm is missing; CONTRIBUTING.md says which one to install")
    built = folder / "fastify"
    shutil.copytree(_PEERS / "fastify", built, dirs_exist_ok=True)
    _build([npm, "ci", "--no-audit", "--no-fund"], built)
    return [node, built / "server.js"]


# Debian's golang packages install their sources here.
_GO_PATH: Final = Path("/usr/share/gocode")


def _go(folder: Path, _: int) -> Sequence[str | Path]:
    return _built_go(folder / "go-pgx", {"github.com/jackc/pgx/v4": "golang-github-jackc-pgx-v4-dev"})


def _go_telemetry(folder: Path, _: int) -> Sequence[str | Path]:
    packages = {
        "github.com/jackc/pgx/v4": "golang-github-jackc-pgx-v4-dev",
        "github.com/prometheus/client_golang": "golang-github-prometheus-client-golang-dev",
        "github.com/rs/zerolog": "golang-github-rs-zerolog-dev",
        "go.opentelemetry.io/otel": "golang-opentelemetry-otel-dev",
    }
    return _built_go(folder / "go-pgx-telemetry", packages, "-tags=telemetry")


def _built_go(binary: Path, packages: Mapping[str, str], *options: str) -> Sequence[str | Path]:
    """Builds it from its source and that of Debian's packages, by import path; both forms use Go's own cache."""
    go = shutil.which("go")
    if go is None:
        raise CannotRun("Go is missing; on Debian: apt install golang-go")
    if missing := [package for path, package in packages.items() if not (_GO_PATH / "src" / path).exists()]:
        raise CannotRun(f"packages are missing; on Debian: apt install {' '.join(missing)}")
    environment = {"GO111MODULE": "off", "GOPATH": str(_GO_PATH), "GOFLAGS": ""}
    _build([go, "build", *options, "-o", binary, "."], _PEERS / "go", **environment)
    return [binary]


# Debian's librust packages install the sources of crates here.
_CRATES: Final = Path("/usr/share/cargo/registry")


def _rust(folder: Path, _: int) -> Sequence[str | Path]:
    cargo = shutil.which("cargo")
    if cargo is None:
        raise CannotRun("Rust is missing; on Debian: apt install cargo")
    crates = ("hyper", "serde", "serde_json", "tokio", "tokio-postgres")
    if not all(list(_CRATES.glob(f"{crate}-[0-9]*")) for crate in crates):
        packages = " ".join(f"librust-{crate.replace('_', '-')}-dev" for crate in crates)
        raise CannotRun(f"crates are missing; on Debian: apt install {packages}")
    built = folder / "rust"
    shutil.copytree(_PEERS / "rust", built, dirs_exist_ok=True)
    sources = ('source.crates-io.replace-with="debian"', f'source.debian.directory="{_CRATES}"')
    options = [option for source in sources for option in ("--config", source)]
    _build([cargo, "build", "--release", "--offline", "--quiet", *options], built)
    return [built / "target/release/clients"]


def _build(command: Sequence[str | Path], folder: Path, **environment: str) -> None:
    try:
        subprocess.run(
            command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=True
        )
    except subprocess.CalledProcessError as error:
        raise CannotRun(f"the build failed: {error.stderr.strip()[-500:]}") from None


_STOPS_AT_ONCE: Final = {"DRAIN_SECONDS": "0"}  # no load balancer needs time to notice

OURS: Final = Contender("clients-api", "this service", _module("svc", "serve"), {"TELEMETRY": "off", **_STOPS_AT_ONCE})

OURS_WITH_TELEMETRY: Final = Contender(
    "clients-api-telemetry",
    "this service, with its telemetry as it is deployed",
    _module("svc", "serve"),
    _STOPS_AT_ONCE,
    exports_traces=True,
    telemetry="this",
)

PEERS: Final = [
    OURS_WITH_TELEMETRY,
    Contender(
        "flask",
        "Flask, psycopg2, a connection per request, Flask's server",
        _module("ops.bench.peers.flask_plain"),
    ),
    Contender(
        "flask-gunicorn",
        "Flask, psycopg2 pool, gunicorn with threads",
        _module("gunicorn", "--threads=10", "--bind=127.0.0.1:{port}", "ops.bench.peers.flask_pool:app"),
    ),
    Contender(
        "fastapi",
        "FastAPI, asyncpg, uvicorn with uvloop and httptools",
        _module(
            *("uvicorn", "--loop=uvloop", "--http=httptools", "--no-access-log", "--log-level=warning"),
            *("--port={port}", "ops.bench.peers.fastapi_app:app"),
        ),
    ),
    Contender(
        "blacksheep",
        "BlackSheep, asyncpg, Granian with uvloop",
        _module(
            *("granian", "--interface=asgi", "--no-ws", "--loop=uvloop", "--log-level=warning"),
            *("--port={port}", "ops.bench.peers.blacksheep_app:app"),
        ),
    ),
    Contender("aiohttp", "aiohttp, asyncpg pool, uvloop: the textbook", _module("ops.bench.peers.aiohttp_app")),
    Contender(
        "aiohttp-telemetry",
        "the textbook with off-the-shelf telemetry",
        _module("ops.bench.peers.aiohttp_telemetry"),
        {"AWS_EMF_ENVIRONMENT": "local"},  # writes to stdout; the default first tries to reach AWS's metadata service
        telemetry="off-the-shelf",
    ),
    Contender("fastify", "Fastify, pg", _fastify),
    Contender("go-pgx", "Go net/http, pgx", _go),
    Contender(
        "go-pgx-telemetry",
        "the same with a line and a histogram for all requests, and 5 % of the traces",
        _go_telemetry,
        exports_traces=True,
    ),
    Contender("rust-hyper", "Rust hyper, tokio-postgres", _rust),
]

FLOORS: Final = [
    Contender(
        "floor-uvloop", "a fixed response on bare uvloop", _module("ops.bench.peers.floor_uvloop"), is_floor=True
    ),
    Contender(
        "floor-aiohttp",
        "a fixed response on aiohttp's low-level server",
        _module("ops.bench.peers.floor_aiohttp"),
        is_floor=True,
    ),
]


@contextlib.contextmanager
def started(contender: Contender, environment: Mapping[str, str], folder: Path) -> Iterator[Running]:
    """Starts the contender on a free port, and stops it at the end.

    Args:
        contender: to start.
        environment: the variables with which it finds its database.
        folder: for what it builds, and for its log.

    Raises:
        CannotRun: a tool is missing, the build failed, or it does not answer in time.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    log = folder / f"{contender.name}.log"
    with log.open("wb") as output, _reader() as reader, _collector(contender) as export:
        process = subprocess.Popen(
            contender.prepare(folder, port),
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith(("PG", "DB_"))},
                **contender.environment,
                **export,
                **environment,
                "PORT": str(port),
            },
            stdin=subprocess.DEVNULL,
            stdout=reader,
            stderr=output,
            start_new_session=True,
        )
        try:
            _wait_until_it_answers(process, url, log)
            yield Running(url, process.pid)
        finally:
            _stop(process)


@contextlib.contextmanager
def _reader() -> Iterator[int]:
    """A pipe with a reader, so that writing to stdout costs what it costs in a container."""
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        yield process.stdin.fileno()


@contextlib.contextmanager
def _collector(contender: Contender) -> Iterator[Mapping[str, str]]:
    """The variables that point a contender at a collector, if it exports traces. The collector's CPU is not counted."""
    if not contender.exports_traces:
        yield {}
        return
    port = free_port()
    with subprocess.Popen([sys.executable, "-m", "ops.bench.collector", str(port)]) as process:
        try:
            yield {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"}
        finally:
            process.terminate()


def _wait_until_it_answers(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end = time.monotonic() + _READY_SECONDS
    while process.poll() is None and time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"{url}/get/1", timeout=5):  # noqa: S310 - http, on loopback
                return
        except urllib.error.HTTPError as error:
            error.close()
        except OSError:
            pass
        time.sleep(0.05)
    raise CannotRun(f"it does not answer; the end of {log}:\n{log.read_text(errors='replace')[-1000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_SECONDS)
    # Kills the processes that it left behind, which are in its process group.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
