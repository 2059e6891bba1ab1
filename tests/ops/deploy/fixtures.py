"""Fixtures for tests of the deployment commands: a mock AWS behind a proxy that injects faults, and a fake cluster."""

import asyncio
import contextlib
import http.client
import json
import os
import re
import secrets
import shutil
import signal
import socket
import stat
import struct
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from botocore.retries.standard import ExponentialBackoff
from moto.backends import get_backend

import ops.__main__
from ops.common import haproxy
from ops.common.ports import free_port
from ops.deploy import common, manifests
from ops.deploy.common import Outputs, aws_client
from ops.deploy.kubernetes import Kubernetes
from ops.rehearsal import aws, environment, kubernetes
from ops.rehearsal.aws import ACCOUNT, REGION, Endpoints, inventory
from ops.rehearsal.certificates import Certificate, create_ca, create_certificate
from ops.rehearsal.environment import DATABASE, DOMAIN, NAME, is_eks_token
from ops.rehearsal.kubernetes import Object, Store, kind_of
from ops.rehearsal.steps import IMAGE
from ops.rehearsal.tls import Address, listen
from svc.postgres import maintenance
from svc.postgres.embedded import EmbeddedPostgres
from svc.postgres.settings import SERVICE_ROLES
from tests.missing import missing

HOSTNAME: Final = f"flask.{DOMAIN}"
VERSION: Final = "1.35"  # of Kubernetes
OUTPUTS: Final = Outputs(
    name=NAME,
    region=REGION,
    kubernetes_version=VERSION,
    autoscaler_version=f"{VERSION}.2",
    cluster_range="10.0.0.0/16",
    database_range="10.1.0.0/16",
    database_identifier=NAME,
    hostname=HOSTNAME,
    zone_id="created by each test",
    certificate_arn=f"arn:aws:acm:{REGION}:{ACCOUNT}:certificate/00000000-0000-0000-0000-000000000000",
    balancer_logs=f"{NAME}-balancer-logs",
)

RunControllers: TypeAlias = Callable[[Store], contextlib.AbstractAsyncContextManager[Callable[[str, str], str]]]


# --- The proxy before AWS


class Response(NamedTuple):
    """A response of AWS."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


@dataclass(frozen=True)
class ErrorResponse:
    """An error of AWS, which the proxy writes in the format of the API that was called."""

    code: str
    message: str
    status: int


class ConnectionReset(Exception):
    """The proxy resets the connection instead of responding."""


Fault: TypeAlias = Callable[[Callable[[], Response]], Response | ErrorResponse]


def error_response(code: str, message: str = "injected by the test", status: int = 400) -> Fault:
    """AWS responds with an error and does nothing."""
    return lambda _: ErrorResponse(code, message, status)


def connection_reset(_: Callable[[], Response]) -> Response:
    """The connection is reset before the request reaches AWS."""
    raise ConnectionReset


def response_lost(forward: Callable[[], Response]) -> Response:
    """AWS handles the request, but the connection is reset before the response arrives."""
    forward()
    raise ConnectionReset


def replacing(old: str, new: str) -> Fault:
    """AWS responds, and the text `old` in the response becomes `new`."""

    def fault(forward: Callable[[], Response]) -> Response:
        response = forward()
        assert old.encode() in response.body, response
        return response._replace(body=response.body.replace(old.encode(), new.encode()))

    return fault


class FaultyProxy:
    """A proxy before the mock AWS, which records the calls and injects faults.

    Attributes:
        calls: the names of the operations, in order; each attempt is one.
    """

    def __init__(self, upstream: str) -> None:
        self.calls: list[str] = []
        self._upstream = urlsplit(upstream).netloc
        self._faults: dict[str, Iterator[Fault]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_ProxyHandler, self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return "http://{}:{}".format(*self._server.server_address)

    def inject(self, operation: str, faults: Iterable[Fault]) -> None:
        """Injects one fault into each of the next calls of the operation; later calls pass."""
        self._faults[operation] = iter(faults)

    def reset(self) -> None:
        """Forgets the recorded calls and the faults."""
        self.calls.clear()
        self._faults.clear()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def handle(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Response:
        """Returns the response of AWS, or that of a fault."""
        operation = _operation(method, path, headers, body)
        self.calls.append(operation)

        def forward() -> Response:
            connection = http.client.HTTPConnection(self._upstream, timeout=30)
            with contextlib.closing(connection):
                connection.request(method, path, body, headers)
                response = connection.getresponse()
                return Response(response.status, response.getheaders(), response.read())

        fault = next(self._faults.get(operation, iter(())), None)
        response = fault(forward) if fault else forward()
        return _formatted(response, headers) if isinstance(response, ErrorResponse) else response


class _ProxyHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # sends headers and body at once: separately, the body would wait for the headers' acknowledgement

    def __init__(self, proxy: FaultyProxy, *arguments: Any) -> None:
        self._proxy = proxy
        super().__init__(*arguments)

    def _forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            response = self._proxy.handle(self.command, self.path, dict(self.headers), body)
        except ConnectionReset:
            # Sends RST instead of FIN, as a machine that went down does.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.wfile = self.rfile = open(os.devnull, "r+b")  # noqa: SIM115, PTH123 - the base class closes it
            self.connection.close()
            return
        self.send_response(response.status)
        for name, value in response.headers:
            if name.lower() not in ("connection", "content-length", "date", "server"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(response.body)))
        self.end_headers()
        self.wfile.write(response.body)

    do_GET = do_POST = do_DELETE = do_PUT = _forward  # noqa: N815 - names of the base class

    def log_message(self, *_: Any) -> None:
        pass


# The operations of APIs that identify them only by method and path.
_REST_OPERATIONS: Final = (
    (r"GET /clusters/[^/]+", "DescribeCluster"),
    (r"POST /clusters/[^/]+/update-config", "UpdateClusterConfig"),
    (r"GET /clusters/[^/]+/updates/.+", "DescribeUpdate"),
    (r"GET /2013-04-01/hostedzone/[^/]+/rrset", "ListResourceRecordSets"),
    (r"POST /2013-04-01/hostedzone/[^/]+/rrset/?", "ChangeResourceRecordSets"),
    (r"GET /2013-04-01/change/.+", "GetChange"),
)


def _operation(method: str, path: str, headers: dict[str, str], body: bytes) -> str:
    if target := headers.get("X-Amz-Target"):
        return target.rpartition(".")[2]
    if action := parse_qs(body.decode(errors="replace")).get("Action"):
        return action[0]
    request = f"{method} {urlsplit(path).path}"
    return next((name for pattern, name in _REST_OPERATIONS if re.fullmatch(pattern, request)), request)


def _formatted(error: ErrorResponse, headers: dict[str, str]) -> Response:
    """Writes the error in the format of the API that was called, which the request's signature names."""
    service = headers["Authorization"].split("/")[3]
    element = f"<Error><Code>{error.code}</Code><Message>{error.message}</Message></Error>"
    match service:
        case "eks" | "secretsmanager":
            document = json.dumps({"__type": error.code, "message": error.message})
            return Response(error.status, [("x-amzn-errortype", error.code)], document.encode())
        case "ec2":
            document = f"<Response><Errors>{element}</Errors><RequestID>1</RequestID></Response>"
        case _:
            document = f"<ErrorResponse>{element}<RequestId>1</RequestId></ErrorResponse>"
    return Response(error.status, [("Content-Type", "text/xml")], document.encode())


# --- AWS after terraform apply


@dataclass(frozen=True)
class MockAws:
    """The mock AWS, which the tests of a module share.

    Attributes:
        proxy: before the mock.
        ca: signed all certificates.
        certificate: of the servers on loopback.
        database: the address of the database according to RDS; nothing listens there by itself.
        owner_password: of the database; Secrets Manager has it.
    """

    proxy: FaultyProxy
    ca: Certificate
    certificate: Certificate
    database: Address
    owner_password: str


@dataclass
class Account:
    """An AWS account with a zone, a cluster and a database, for one test.

    Attributes:
        outputs: of Terraform.
        outputs_file: the file that has them.
        proxy: before AWS.
    """

    outputs: Outputs
    outputs_file: Path
    proxy: FaultyProxy

    @property
    def cluster(self) -> Any:
        """The cluster as moto stores it; a test may change it."""
        return _backend("eks").clusters[NAME]

    @property
    def database(self) -> Any:
        """The database as moto stores it; a test may change it."""
        return _backend("rds").databases[NAME]

    @property
    def secret(self) -> Any:
        """The ARN of the secret with the owner's password."""
        return self.database.master_user_secret.secret_arn

    def remove_cluster(self) -> None:
        del _backend("eks").clusters[NAME]

    def create_load_balancer(self, name: str, service: str = "clients/clients-api", cluster: str = NAME) -> str:
        """Creates a load balancer with its security group, as a cluster does; returns its hostname."""
        owned = {"Key": f"kubernetes.io/cluster/{cluster}", "Value": "owned"}
        ec2 = aws_client("ec2", REGION)
        group = ec2.create_security_group(
            GroupName=f"k8s-elb-{name}",
            Description="of a load balancer",
            TagSpecifications=[{"ResourceType": "security-group", "Tags": [owned]}],
        )
        listener = {"Protocol": "TCP", "LoadBalancerPort": 443, "InstanceProtocol": "TCP", "InstancePort": 30080}
        created = aws_client("elb", REGION).create_load_balancer(
            LoadBalancerName=name,
            Listeners=[listener],
            AvailabilityZones=[f"{REGION}a"],
            SecurityGroups=[group["GroupId"]],
            Tags=[owned, {"Key": "kubernetes.io/service-name", "Value": service}],
        )
        hostname: str = created["DNSName"]
        return hostname

    def load_balancers(self) -> list[str]:
        """Returns the names of all load balancers."""
        described = aws_client("elb", REGION).describe_load_balancers()["LoadBalancerDescriptions"]
        return [one["LoadBalancerName"] for one in described]

    def security_groups(self) -> list[str]:
        """Returns the names of the load balancers' security groups."""
        described = aws_client("ec2", REGION).describe_security_groups()["SecurityGroups"]
        return [one["GroupName"] for one in described if one["GroupName"].startswith("k8s-elb-")]

    def create_record(self, kind: str, value: str, name: str = HOSTNAME) -> None:
        """Creates a record with one value in the zone."""
        self.create_record_set({"Name": name, "Type": kind, "TTL": 60, "ResourceRecords": [{"Value": value}]})

    def create_record_set(self, record: dict[str, Any]) -> None:
        batch = {"Changes": [{"Action": "CREATE", "ResourceRecordSet": record}]}
        aws_client("route53", REGION).change_resource_record_sets(HostedZoneId=self.outputs.zone_id, ChangeBatch=batch)

    def records(self) -> dict[tuple[str, str], list[str]]:
        """Returns the values of all records by name and type, except for those that every zone has."""
        listed = aws_client("route53", REGION).list_resource_record_sets(HostedZoneId=self.outputs.zone_id)
        return {
            (one["Name"].rstrip("."), one["Type"]): [value["Value"] for value in one.get("ResourceRecords", [])]
            for one in listed["ResourceRecordSets"]
            if one["Type"] not in ("NS", "SOA")
        }

    def snapshot(self) -> tuple[set[str], dict[tuple[str, str], list[str]], object]:
        """Returns all resources, and the values that a command could change."""
        return inventory(), self.records(), self.cluster.logging


def _backend(service: str) -> Any:
    backend: Any = get_backend  # its type is a long list of literals
    return backend(service)[ACCOUNT]["aws" if service == "route53" else REGION]


def free_address() -> Address:
    return "127.0.0.1", free_port()


@pytest.fixture(name="mock_aws", scope="module")
def run_mock_aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MockAws]:
    """Runs the mock AWS and the proxy."""
    folder = tmp_path_factory.mktemp("aws")
    ca = create_ca(folder)
    certificate = create_certificate(ca, "loopback", ["127.0.0.1", "localhost"])
    database, password = free_address(), secrets.token_urlsafe()
    # The URL of the cluster is not known yet.
    with aws.running(Endpoints("https://127.0.0.1:1", ca.certificate, database, password)) as variables:
        proxy = FaultyProxy(variables["AWS_ENDPOINT_URL"])
        yield MockAws(proxy, ca, certificate, database, password)
        proxy.close()


@pytest.fixture(name="account")
def create_account(mock_aws: MockAws, tmp_path: Path) -> Account:
    """Creates what Terraform creates, as far as the commands use it."""
    for service in ("eks", "elb", "rds", "route53", "secretsmanager"):
        _backend(service).reset()
    for groups in _backend("ec2").groups.values():  # a reset of all of EC2 is slow
        for group in [one for one in groups.values() if one.name.startswith("k8s-elb-")]:
            del groups[group.id]
    zone = aws_client("route53", REGION).create_hosted_zone(Name=DOMAIN, CallerReference="test")["HostedZone"]["Id"]
    aws_client("eks", REGION).create_cluster(
        name=NAME, version=VERSION, roleArn=f"arn:aws:iam::{ACCOUNT}:role/cluster", resourcesVpcConfig={}
    )
    aws_client("rds", REGION).create_db_instance(
        DBInstanceIdentifier=NAME,
        DBInstanceClass="db.t4g.micro",
        Engine="postgres",
        AllocatedStorage=20,
        DBName=DATABASE,
        MasterUsername="postgres",
        ManageMasterUserPassword=True,
    )
    outputs = replace(OUTPUTS, zone_id=zone.rpartition("/")[2])
    file = tmp_path / "outputs.json"
    file.write_text(json.dumps({name: {"value": value} for name, value in asdict(outputs).items()}))
    mock_aws.proxy.reset()
    return Account(outputs, file, mock_aws.proxy)


# --- The cluster


@pytest.fixture(name="production_objects", scope="session")
def render_production() -> list[Object]:
    """The objects that the command `apply production` creates."""
    require_kubectl()
    return list(yaml.safe_load_all(manifests.render("production", OUTPUTS, IMAGE)))


@contextlib.contextmanager
def running_cluster(
    mock_aws: MockAws, account: Account, controllers: RunControllers | None = None, objects: Iterable[Object] = ()
) -> Iterator[kubernetes.Cluster]:
    """Runs a cluster with these objects and controllers, and makes it the account's cluster."""
    require_kubectl()

    @contextlib.asynccontextmanager
    async def set_up(store: Store) -> AsyncIterator[Callable[[str, str], str]]:
        async with (controllers or _no_controllers)(store) as log:
            for one in objects:
                store.apply(kind_of(one["kind"]), one)
            yield log

    with kubernetes.running(VERSION, mock_aws.certificate, is_eks_token, set_up) as cluster:
        account.cluster.endpoint = cluster.url
        yield cluster


@contextlib.asynccontextmanager
async def _no_controllers(_: Store) -> AsyncIterator[Callable[[str, str], str]]:
    yield lambda *_: ""


@pytest.fixture(name="cluster")
def run_empty_cluster(mock_aws: MockAws, account: Account) -> Iterator[kubernetes.Cluster]:
    """Runs a cluster without objects and controllers."""
    with running_cluster(mock_aws, account) as cluster:
        yield cluster


@contextlib.contextmanager
def running_database(mock_aws: MockAws) -> Iterator[EmbeddedPostgres]:
    """Runs a PostgreSQL as RDS creates it, behind a TLS proxy at the address that RDS returns."""
    with (
        tempfile.TemporaryDirectory(prefix="clients-") as folder,
        environment.postgres(Path(folder), mock_aws.owner_password) as (server, port),
    ):
        proxy = listen(mock_aws.certificate, lambda: ("127.0.0.1", port), mock_aws.database, starttls=True)
        try:
            yield server
        finally:
            proxy.close()


def prepare_database(mock_aws: MockAws, account: Account, server: EmbeddedPostgres) -> None:
    """Does what the command `database` does, in a second and without its Job."""
    (host, port), password = mock_aws.database, secrets.token_urlsafe()
    url = server.dsn(database=DATABASE)
    asyncio.run(maintenance.migrate(url, password))
    asyncio.run(maintenance.seed(url))
    address = {"DB_HOST": host, "DB_PORT": str(port), "DB_NAME": DATABASE}
    credentials = {"DB_USERNAME": SERVICE_ROLES[0], "DB_PASSWORD": password}
    Kubernetes(account.outputs).apply(
        NAMESPACE,
        namespaced("Secret", "database", stringData=address | credentials),
        namespaced("ConfigMap", "database-ca", data={"ca.pem": mock_aws.ca.certificate.read_text()}),
    )


class NoLoadBalancers:
    """A cloud provider that creates no load balancers."""

    def create(self, _: Object, upstream: Callable[[], object]) -> str:
        assert callable(upstream)
        return "none.example"

    def delete(self, _: Object) -> None:
        pass


def all_objects(cluster: kubernetes.Cluster) -> list[Object]:
    """Returns the objects of all kinds."""
    return [found for kind in kubernetes.KINDS for found in cluster.objects(kind.plural)]


def names(objects: list[Object]) -> list[str]:
    return [one["metadata"]["name"] for one in objects]


def namespaced(kind: str, name: str, **content: Any) -> Object:
    """Returns a core object in the service's namespace."""
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "clients"}, **content}


NAMESPACE: Final[Object] = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "clients"}}


# --- The commands


class Result(NamedTuple):
    """The result of a command.

    Attributes:
        status: its exit status.
        stdout: its output.
        stderr: its errors.
    """

    status: int
    stdout: str
    stderr: str


Run: TypeAlias = Callable[..., Result]


@pytest.fixture(name="run")
def make_run(account: Account, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process with its arguments and the account's outputs; it calls AWS through the proxy."""
    # Short pauses between polls and between retries.
    monkeypatch.setattr(common, "poll_seconds", 0.01)
    short_backoff = {"throttling_base_scale": 0.001, "non_throttling_base_scale": 0.001}
    monkeypatch.setattr(ExponentialBackoff, "_DEFAULT_BACKOFF_CONFIG", short_backoff)

    def run(*arguments: str) -> Result:
        capsys.readouterr()
        options = () if "--outputs" in arguments else ("--outputs", str(account.outputs_file))
        with monkeypatch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL", account.proxy.url)
            patch.setattr(sys, "argv", ["ops", *arguments, *options])
            handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
            try:
                status = ops.__main__.main()
            except SystemExit as end:  # of argparse
                status = int(end.code or 0)
            finally:
                for number, handler in handlers.items():
                    signal.signal(number, handler)
        captured = capsys.readouterr()
        return Result(status, captured.out, captured.err)

    return run


# --- kubectl


def require_kubectl() -> None:
    if shutil.which("kubectl") is None:
        missing("kubectl is missing")


def require_haproxy() -> None:
    if haproxy.find() is None:
        missing("haproxy is missing (on Debian: apt install haproxy)")


class Call(NamedTuple):
    """A call of kubectl.

    Attributes:
        arguments: its command line.
        file: its kubeconfig, or an empty string.
        config: the content of the kubeconfig.
        mode: the permissions of the kubeconfig.
        stdin: its standard input.
    """

    arguments: list[str]
    file: str
    config: dict[str, Any]
    mode: str
    stdin: str


@dataclass
class Kubectl:
    """A script in PATH that records each call, injects failures, and runs the real kubectl.

    Attributes:
        folder: of the script and its files.
    """

    folder: Path

    def __post_init__(self) -> None:
        real = shutil.which("kubectl")
        assert real
        script = self.folder / "kubectl"
        script.write_text(
            f"""#!{sys.executable} -IS
import json, os, subprocess, sys
config = os.environ.get("KUBECONFIG")
stdin = sys.stdin.read() if "-" in sys.argv else ""
call = {{
    "arguments": sys.argv[1:],
    "file": config or "",
    "config": json.load(open(config)) if config else {{}},
    "mode": oct(os.stat(config).st_mode) if config else "",
    "stdin": stdin,
}}
with open({str(self.folder / "calls")!r}, "a") as calls:
    calls.write(json.dumps(call) + "\\n")
def must_fail(when):
    file = {str(self.folder)!r} + "/fail-" + when
    return os.path.exists(file) and open(file).read() in stdin + " ".join(sys.argv)
if must_fail("before"):
    sys.exit("error: the cluster cannot be reached")
done = subprocess.run([{real!r}, *sys.argv[1:]], input=stdin, text=True)
if must_fail("after"):
    sys.exit("error: the connection was lost")
sys.exit(done.returncode)
"""
        )
        script.chmod(script.stat().st_mode | stat.S_IXUSR)

    def fail_before(self, text: str) -> None:
        """From now on, calls with this text in their arguments or input fail and do nothing."""
        (self.folder / "fail-before").write_text(text)

    def fail_after(self, text: str) -> None:
        """From now on, calls with this text in their arguments or input do their work but report a failure."""
        (self.folder / "fail-after").write_text(text)

    def work_again(self) -> None:
        """Ends the injection of failures."""
        for when in ("before", "after"):
            (self.folder / f"fail-{when}").unlink(missing_ok=True)

    def calls(self) -> list[Call]:
        return [Call(**json.loads(line)) for line in (self.folder / "calls").read_text().splitlines()]


@pytest.fixture(name="kubectl")
def wrap_kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kubectl:
    require_kubectl()
    folder = tmp_path / "bin"
    folder.mkdir()
    wrapped = Kubectl(folder)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return wrapped
