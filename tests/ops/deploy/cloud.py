"""What a deployment's commands find in tests: AWS's mock, at the end of a way that can fail, and a cluster's API."""

import contextlib
import http.client
import itertools
import json
import os
import re
import secrets
import shutil
import socket
import stat
import struct
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import parse_qs, urlsplit

import pytest
from botocore.retries.standard import ExponentialBackoff
from moto.backends import get_backend

import ops.__main__
from ops.common.ports import free_port
from ops.deploy import common
from ops.deploy.common import Outputs, aws
from ops.rehearsal import kubernetes
from ops.rehearsal.aws import ACCOUNT, REGION, StandIns, inventory, started
from ops.rehearsal.certificates import Certificate, authority, certificate
from ops.rehearsal.kubernetes import Object, Store
from ops.rehearsal.tls import Address
from ops.rehearsal.world import DATABASE, DOMAIN, NAME, is_signed
from tests.missing import missing

HOSTNAME: Final = f"flask.{DOMAIN}"
VERSION: Final = "1.35"  # of Kubernetes

Acts: TypeAlias = Callable[[Store], contextlib.AbstractAsyncContextManager[Callable[[str, str], str]]]


# --- The way to AWS


class Answer(NamedTuple):
    """An answer of AWS's."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


@dataclass(frozen=True)
class Refusal:
    """What AWS says when it does not do what it was asked."""

    code: str
    message: str = "as the test wants it"
    status: int = 400


class Lost(Exception):
    """The connection is reset."""


Turn: TypeAlias = Callable[[Callable[[], Answer]], Answer | Refusal]


def refused(code: str, message: str = "as the test wants it", status: int = 400) -> Turn:
    """AWS refuses, and does nothing."""
    return lambda _: Refusal(code, message, status)


def lost(_: Callable[[], Answer]) -> Answer:
    """The connection is reset before AWS hears of anything."""
    raise Lost


def answer_lost(ask: Callable[[], Answer]) -> Answer:
    """AWS does what it was asked, but the connection is reset before it can say so."""
    ask()
    raise Lost


def saying(words: str, others: str) -> Turn:
    """AWS answers, with other words for some."""

    def turn(ask: Callable[[], Answer]) -> Answer:
        answer = ask()
        assert words.encode() in answer.body, answer
        return answer._replace(body=answer.body.replace(words.encode(), others.encode()))

    return turn


class Way:
    """A proxy before AWS's mock, which notes what is asked and does what a test wants of it.

    Attributes:
        asked: names of the operations, in order; each attempt is one.
    """

    def __init__(self, to: str) -> None:
        self.asked: list[str] = []
        self._to = urlsplit(to).netloc
        self._turns: dict[str, Iterator[Turn]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Passing, self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return "http://{}:{}".format(*self._server.server_address)

    def at(self, operation: str, turns: Iterable[Turn]) -> None:
        """What happens at the next calls of the operation, one turn each; then they pass again."""
        self._turns[operation] = iter(turns)

    def clear(self) -> None:
        """All passes, and nothing was asked."""
        self.asked.clear()
        self._turns.clear()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        """AWS's answer, or what a test wants instead."""
        operation = _operation(method, path, headers, body)
        self.asked.append(operation)

        def ask() -> Answer:
            connection = http.client.HTTPConnection(self._to, timeout=30)
            with contextlib.closing(connection):
                connection.request(method, path, body, headers)
                got = connection.getresponse()
                return Answer(got.status, got.getheaders(), got.read())

        turn = next(self._turns.get(operation, iter(())), None)
        answer = turn(ask) if turn else ask()
        return _in_its_form(answer, headers) if isinstance(answer, Refusal) else answer


class _Passing(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body at once: apart, the second would wait for the first to be acknowledged

    def __init__(self, way: Way, *arguments: Any) -> None:
        self._way = way
        super().__init__(*arguments)

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            answer = self._way.answer(self.command, self.path, dict(self.headers), body)
        except Lost:
            # No FIN, but a RST, as from a machine that went down.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.wfile = self.rfile = open(os.devnull, "r+b")  # noqa: SIM115, PTH123 - closed by the base class
            self.connection.close()
            return
        self.send_response(answer.status)
        for name, value in answer.headers:
            if name.lower() not in ("connection", "content-length", "date", "server"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    do_GET = do_POST = do_DELETE = do_PUT = _pass  # noqa: N815 - as the base class names them

    def log_message(self, *_: Any) -> None:
        pass


# Of the APIs that name their operations by method and path alone.
_REST: Final = (
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
    asked = f"{method} {urlsplit(path).path}"
    return next((name for pattern, name in _REST if re.fullmatch(pattern, asked)), asked)


def _in_its_form(refusal: Refusal, headers: dict[str, str]) -> Answer:
    """The refusal as the API that was asked puts it; the signature says which one that was."""
    service = headers["Authorization"].split("/")[3]
    error = f"<Error><Code>{refusal.code}</Code><Message>{refusal.message}</Message></Error>"
    match service:
        case "eks" | "secretsmanager":
            told = json.dumps({"__type": refusal.code, "message": refusal.message})
            return Answer(refusal.status, [("x-amzn-errortype", refusal.code)], told.encode())
        case "ec2":
            told = f"<Response><Errors>{error}</Errors><RequestID>1</RequestID></Response>"
        case _:
            told = f"<ErrorResponse>{error}<RequestId>1</RequestId></ErrorResponse>"
    return Answer(refusal.status, [("Content-Type", "text/xml")], told.encode())


# --- AWS, as Terraform leaves it


@dataclass(frozen=True)
class Ground:
    """What the tests of a module share.

    Attributes:
        way: to AWS's mock.
        ca: that signed all certificates.
        ours: the certificate of what stands on loopback.
        database: where RDS says that the database is; nothing listens there by itself.
        owner_password: of the database, which is in Secrets Manager.
    """

    way: Way
    ca: Certificate
    ours: Certificate
    database: Address
    owner_password: str


@dataclass
class Cloud:
    """AWS with a zone, a cluster and a database in it, for one test.

    Attributes:
        outputs: of Terraform.
        file: that they are in.
        way: to AWS.
    """

    outputs: Outputs
    file: Path
    way: Way

    @property
    def cluster(self) -> Any:
        """EKS' own notion of the cluster, which a test may change."""
        return _backend("eks").clusters[NAME]

    @property
    def database(self) -> Any:
        """RDS' own notion of the database, which a test may change."""
        return _backend("rds").databases[NAME]

    @property
    def secret(self) -> Any:
        """The id of the secret that holds the owner's password."""
        return self.database.master_user_secret.secret_arn

    def remove_cluster(self) -> None:
        del _backend("eks").clusters[NAME]

    def make_balancer(self, name: str, service: str = "clients/clients-api", cluster: str = NAME) -> str:
        """A load balancer as the cluster makes it, with its security group; gives its hostname."""
        owned = {"Key": f"kubernetes.io/cluster/{cluster}", "Value": "owned"}
        ec2 = aws("ec2", REGION)
        group = ec2.create_security_group(
            GroupName=f"k8s-elb-{name}",
            Description="of a load balancer",
            TagSpecifications=[{"ResourceType": "security-group", "Tags": [owned]}],
        )
        listener = {"Protocol": "TCP", "LoadBalancerPort": 443, "InstanceProtocol": "TCP", "InstancePort": 30080}
        made = aws("elb", REGION).create_load_balancer(
            LoadBalancerName=name,
            Listeners=[listener],
            AvailabilityZones=[f"{REGION}a"],
            SecurityGroups=[group["GroupId"]],
            Tags=[owned, {"Key": "kubernetes.io/service-name", "Value": service}],
        )
        hostname: str = made["DNSName"]
        return hostname

    def balancers(self) -> list[str]:
        """Their names."""
        described = aws("elb", REGION).describe_load_balancers()["LoadBalancerDescriptions"]
        return [one["LoadBalancerName"] for one in described]

    def security_groups(self) -> list[str]:
        """Names of those that load balancers have."""
        described = aws("ec2", REGION).describe_security_groups()["SecurityGroups"]
        return [one["GroupName"] for one in described if one["GroupName"].startswith("k8s-elb-")]

    def put(self, kind: str, value: str, name: str = HOSTNAME) -> None:
        """A record in the zone."""
        record = {"Name": name, "Type": kind, "TTL": 60, "ResourceRecords": [{"Value": value}]}
        self.put_record(record)

    def put_record(self, record: dict[str, Any]) -> None:
        batch = {"Changes": [{"Action": "CREATE", "ResourceRecordSet": record}]}
        aws("route53", REGION).change_resource_record_sets(HostedZoneId=self.outputs.zone_id, ChangeBatch=batch)

    def records(self) -> dict[tuple[str, str], list[str]]:
        """All records of the zone but its own, by name and type."""
        listed = aws("route53", REGION).list_resource_record_sets(HostedZoneId=self.outputs.zone_id)
        return {
            (one["Name"].rstrip("."), one["Type"]): [value["Value"] for value in one.get("ResourceRecords", [])]
            for one in listed["ResourceRecordSets"]
            if one["Type"] not in ("NS", "SOA")
        }

    def everything(self) -> tuple[set[str], dict[tuple[str, str], list[str]], object]:
        """All that there is in AWS, and the values of what a command could change."""
        return inventory(), self.records(), self.cluster.logging


def _backend(service: str) -> Any:
    backend: Any = get_backend  # moto types it by a long list of literals
    return backend(service)[ACCOUNT]["aws" if service == "route53" else REGION]


def free_address() -> Address:
    return "127.0.0.1", free_port()


@pytest.fixture(name="ground", scope="module")
def start_ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """AWS's mock, over HTTP."""
    folder = tmp_path_factory.mktemp("ground")
    ca = authority(folder)
    ours = certificate(ca, "loopback", ["127.0.0.1", "localhost"])
    database, password = free_address(), secrets.token_urlsafe()
    # The cluster's own URL is not known yet.
    stand_ins = StandIns("https://127.0.0.1:1", ca.certificate, database, password)
    with started(stand_ins) as environment:
        way = Way(environment["AWS_ENDPOINT_URL"])
        yield Ground(way, ca, ours, database, password)
        way.close()


@pytest.fixture(name="cloud")
def make_cloud(ground: Ground, tmp_path: Path) -> Cloud:
    """AWS as Terraform leaves it, as far as the commands look."""
    for service in ("eks", "elb", "rds", "route53", "secretsmanager"):
        _backend(service).reset()
    for groups in _backend("ec2").groups.values():  # resetting all of EC2 takes long
        for group in [one for one in groups.values() if one.name.startswith("k8s-elb-")]:
            del groups[group.id]
    zone = aws("route53", REGION).create_hosted_zone(Name=DOMAIN, CallerReference="test")["HostedZone"]["Id"]
    aws("eks", REGION).create_cluster(
        name=NAME, version=VERSION, roleArn=f"arn:aws:iam::{ACCOUNT}:role/cluster", resourcesVpcConfig={}
    )
    aws("rds", REGION).create_db_instance(
        DBInstanceIdentifier=NAME,
        DBInstanceClass="db.t4g.micro",
        Engine="postgres",
        AllocatedStorage=20,
        DBName=DATABASE,
        MasterUsername="postgres",
        ManageMasterUserPassword=True,
    )
    outputs = Outputs(
        name=NAME,
        region=REGION,
        kubernetes_version=VERSION,
        cluster_range="10.0.0.0/16",
        database_range="10.1.0.0/16",
        database_identifier=NAME,
        hostname=HOSTNAME,
        zone_id=zone.rpartition("/")[2],
        certificate_arn=f"arn:aws:acm:{REGION}:{ACCOUNT}:certificate/00000000-0000-0000-0000-000000000000",
    )
    file = tmp_path / "outputs.json"
    file.write_text(json.dumps({name: {"value": value} for name, value in asdict(outputs).items()}))
    ground.way.clear()
    return Cloud(outputs, file, ground.way)


# --- The cluster


@contextlib.contextmanager
def standing_cluster(ground: Ground, cloud: Cloud, acts: Acts | None = None) -> Iterator[kubernetes.Cluster]:
    """A cluster, empty, whose objects nobody acts on unless `acts` does; it is the one that AWS tells of."""
    if shutil.which("kubectl") is None:
        missing("kubectl is missing")

    @contextlib.asynccontextmanager
    async def nobody(_: Store) -> AsyncIterator[Callable[[str, str], str]]:
        yield lambda *_: ""

    with kubernetes.started(VERSION, ground.ours, is_signed, acts or nobody) as api:
        cloud.cluster.endpoint = api.url
        yield api


@pytest.fixture(name="cluster")
def make_cluster(ground: Ground, cloud: Cloud) -> Iterator[kubernetes.Cluster]:
    with standing_cluster(ground, cloud) as cluster:
        yield cluster


def all_objects(cluster: kubernetes.Cluster) -> list[Object]:
    """All of them, of all kinds."""
    return [found for kind in kubernetes.KINDS for found in cluster.objects(kind.plural)]


def names(objects: list[Object]) -> list[str]:
    return [one["metadata"]["name"] for one in objects]


# --- The commands


class Done(NamedTuple):
    """A command that has ended.

    Attributes:
        status: its exit status.
        said: on stdout.
        error: on stderr.
    """

    status: int
    said: str
    error: str


Run: TypeAlias = Callable[..., Done]


@pytest.fixture(name="run")
def make_run(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command by its arguments, with the outputs' file; its calls to AWS take the way."""
    # What is waited for is asked for often, and calls are repeated soon.
    monkeypatch.setattr(common, "poll_seconds", 0.01)
    soon = {"throttling_base_scale": 0.001, "non_throttling_base_scale": 0.001}
    monkeypatch.setattr(ExponentialBackoff, "_DEFAULT_BACKOFF_CONFIG", soon)

    def run(*arguments: str) -> Done:
        capsys.readouterr()
        options = () if "--outputs" in arguments else ("--outputs", str(cloud.file))
        with monkeypatch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL", cloud.way.url)
            patch.setattr(sys, "argv", ["ops", *arguments, *options])
            try:
                status = ops.__main__.main()
            except SystemExit as end:  # argparse's
                status = int(end.code or 0)
        said = capsys.readouterr()
        return Done(status, said.out, said.err)

    return run


# --- kubectl


class Call(NamedTuple):
    """A call of kubectl.

    Attributes:
        arguments: its command line.
        file: of its configuration, where it had one.
        config: what was in it.
        mode: who might read it.
        said: its standard input.
    """

    arguments: list[str]
    file: str
    config: dict[str, Any]
    mode: str
    said: str


@dataclass
class Kubectl:
    """The real kubectl, and before it in PATH a script that notes how it is called.

    Attributes:
        folder: of the script and what it notes.
    """

    folder: Path
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        real = shutil.which("kubectl")
        assert real
        script = self.folder / "kubectl"
        script.write_text(
            f"""#!{sys.executable}
import json, os, subprocess, sys, tempfile
config = os.environ.get("KUBECONFIG")
given = sys.stdin.read() if "-" in sys.argv else ""
call = {{
    "arguments": sys.argv[1:],
    "file": config or "",
    "config": json.load(open(config)) if config else {{}},
    "mode": oct(os.stat(config).st_mode) if config else "",
    "said": given,
}}
with open({str(self.folder / "calls")!r}, "a") as calls:
    calls.write(json.dumps(call) + "\\n")
refusing = {str(self.folder / "refusing")!r}
if os.path.exists(refusing) and open(refusing).read() in given + " ".join(sys.argv):
    sys.exit("error: the cluster cannot be reached")
done = subprocess.run([{real!r}, *sys.argv[1:]], input=given, text=True)
failing = {str(self.folder / "failing")!r}
if os.path.exists(failing) and open(failing).read() in given + " ".join(sys.argv):
    sys.exit("error: the connection was lost")
sys.exit(done.returncode)
"""
        )
        script.chmod(script.stat().st_mode | stat.S_IXUSR)

    def fails_after(self, words: str) -> None:
        """From here on kubectl does what it is asked but says that it could not, where these words are in it."""
        (self.folder / "failing").write_text(words)

    def fails_before(self, words: str) -> None:
        """From here on kubectl does nothing and says so, where these words are in what it is asked."""
        (self.folder / "refusing").write_text(words)

    def mends(self) -> None:
        """It does and says all again."""
        for name in ("failing", "refusing"):
            (self.folder / name).unlink(missing_ok=True)

    def calls(self) -> list[Call]:
        return [Call(**json.loads(line)) for line in (self.folder / "calls").read_text().splitlines()]


@pytest.fixture(name="kubectl")
def make_kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kubectl:
    if shutil.which("kubectl") is None:
        missing("kubectl is missing")
    folder = tmp_path / "bin"
    folder.mkdir()
    made = Kubectl(folder)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return made
