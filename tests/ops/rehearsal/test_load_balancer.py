"""The load balancer of the rehearsal: it has what the annotations say, and refuses what AWS would."""

import asyncio
import contextlib
import copy
import http.client
import json
import logging
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ops.deploy.common import aws_client
from ops.rehearsal import haproxy, load_balancer
from ops.rehearsal.annotations import PREFIX
from ops.rehearsal.aws import REGION
from ops.rehearsal.controllers import Controllers
from ops.rehearsal.environment import NAME
from ops.rehearsal.kubernetes import Object, Store, kind_of
from ops.rehearsal.load_balancer import LoadBalancers, Refused
from ops.rehearsal.tls import Address
from tests.ops.deploy.fixtures import HOSTNAME, VERSION, Account, MockAws, free_address, require_haproxy
from tests.patience import PATIENCE_SECONDS


@pytest.fixture(name="service")
def find_service(production_objects: list[Object]) -> Object:
    """The Service of the deployment, as the cluster has it."""
    (found,) = [copy.deepcopy(one) for one in production_objects if one["kind"] == "Service"]
    found["metadata"]["uid"] = "01234567-89ab-cdef-0123-456789abcdef"
    return found


def annotate(service: Object, name: str, value: str) -> None:
    service["metadata"]["annotations"][PREFIX + name] = value


@pytest.fixture(name="balancers")
def create_balancers(account: Account, mock_aws: MockAws, service: Object, tmp_path: Path) -> Iterator[LoadBalancers]:
    """Creates what they need in AWS: a subnet, and the certificate of the Service."""
    annotate(service, "ssl-cert", aws_client("acm", REGION).request_certificate(DomainName=HOSTNAME)["CertificateArn"])
    ec2 = aws_client("ec2", REGION)
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    tags = [
        {"Key": f"kubernetes.io/cluster/{account.outputs.name}", "Value": "shared"},
        {"Key": "kubernetes.io/role/elb", "Value": "1"},
    ]
    specification = [{"ResourceType": "subnet", "Tags": tags}]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24", TagSpecifications=specification)["Subnet"]
    require_haproxy()
    created = LoadBalancers(NAME, mock_aws.certificate, free_address(), tmp_path / "haproxy")
    yield created
    created.close()
    ec2.delete_subnet(SubnetId=subnet["SubnetId"])


def described() -> list[dict[str, Any]]:
    """All load balancers, as AWS describes them."""
    found: list[dict[str, Any]] = aws_client("elb", REGION).describe_load_balancers()["LoadBalancerDescriptions"]
    return found


def test_the_load_balancer_has_what_the_annotations_say(balancers: LoadBalancers, service: Object) -> None:
    """Its listener, health check, attributes and tags are those of the deployment's Service."""
    hostname = balancers.create(service, lambda: None)
    elb = aws_client("elb", REGION)
    (balancer,) = described()
    (listener,) = [one["Listener"] for one in balancer["ListenerDescriptions"]]
    name = balancer["LoadBalancerName"]
    attributes = elb.describe_load_balancer_attributes(LoadBalancerName=name)["LoadBalancerAttributes"]
    (tagged,) = elb.describe_tags(LoadBalancerNames=[name])["TagDescriptions"]

    assert balancer["DNSName"] == hostname
    assert (listener["Protocol"], listener["LoadBalancerPort"]) == ("HTTPS", 443)
    assert balancer["HealthCheck"] == {
        "Target": "HTTP:10256/healthz",
        "Interval": 10,
        "Timeout": 5,
        "HealthyThreshold": 2,
        "UnhealthyThreshold": 2,
    }
    assert attributes["CrossZoneLoadBalancing"] == {"Enabled": True}
    assert attributes["ConnectionDraining"] == {"Enabled": True, "Timeout": 30}
    assert attributes["ConnectionSettings"] == {"IdleTimeout": 60}
    assert {"Key": "Project", "Value": NAME} in tagged["Tags"]


def test_a_wrong_annotation_is_refused(balancers: LoadBalancers, service: Object) -> None:
    """The mock AWS would accept it. The Service can be deleted without a load balancer."""
    annotate(service, "healthcheck-protocol", "http")

    with pytest.raises(Refused, match="healthcheck-protocol is 'http'; it must be HTTP or HTTPS or SSL or TCP"):
        balancers.create(service, lambda: None)
    assert described() == []
    balancers.delete(service)


def test_a_changed_annotation_changes_the_load_balancer(balancers: LoadBalancers, service: Object) -> None:
    """It remains the same load balancer."""
    hostname = balancers.create(service, lambda: None)
    annotate(service, "healthcheck-path", "/livez")

    assert balancers.create(service, lambda: None) == hostname
    (balancer,) = described()
    assert balancer["HealthCheck"]["Target"] == "HTTP:10256/livez"


def test_access_logs_are_written_to_the_bucket_of_the_annotations(balancers: LoadBalancers, service: Object) -> None:
    """With the prefix and the interval that are given."""
    annotate(service, "access-log-enabled", "true")
    annotate(service, "access-log-emit-interval", "5")
    annotate(service, "access-log-s3-bucket-name", "a-bucket")
    annotate(service, "access-log-s3-bucket-prefix", "api")
    balancers.create(service, lambda: None)
    (balancer,) = described()
    elb = aws_client("elb", REGION)
    attributes = elb.describe_load_balancer_attributes(LoadBalancerName=balancer["LoadBalancerName"])

    assert attributes["LoadBalancerAttributes"]["AccessLog"] == {
        "Enabled": True,
        "EmitInterval": 5,
        "S3BucketName": "a-bucket",
        "S3BucketPrefix": "api",
    }


class Pod:
    """Responds with the headers of each request, their names in lower case."""

    def __init__(self) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = json.dumps({name.lower(): value for name, value in self.headers.items()}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address: Address = ("127.0.0.1", self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(name="pod")
def run_pod() -> Iterator[Pod]:
    pod = Pod()
    yield pod
    pod.close()


def get(balancers: LoadBalancers, mock_aws: MockAws) -> tuple[int, str]:
    """The status and the body of the response to a request over TLS."""
    tls = ssl.create_default_context(cafile=mock_aws.ca.certificate)
    connection = http.client.HTTPSConnection(*balancers.address, timeout=PATIENCE_SECONDS, context=tls)
    with contextlib.closing(connection):
        connection.request("GET", "/")
        response = connection.getresponse()
        return response.status, response.read().decode()


def wait_until_served(balancers: LoadBalancers, mock_aws: MockAws) -> dict[str, str]:
    end = time.monotonic() + PATIENCE_SECONDS
    while (served := get(balancers, mock_aws))[0] != 200:
        assert served[0] == 503
        assert time.monotonic() < end
    headers: dict[str, str] = json.loads(served[1])
    return headers


def test_a_node_is_in_service_after_its_first_checks(
    balancers: LoadBalancers, service: Object, mock_aws: MockAws, pod: Pod
) -> None:
    """HAProxy counts a server up before its first check; a load balancer of AWS does not. Requests are as AWS's."""
    balancers.create(service, lambda: pod.address)

    assert get(balancers, mock_aws)[0] == 503
    headers = wait_until_served(balancers, mock_aws)
    assert (headers["x-forwarded-for"], headers["x-forwarded-proto"]) == ("127.0.0.1", "https")


def test_a_load_balancer_that_failed_half_way_is_created_again(
    balancers: LoadBalancers, service: Object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HAProxy does not start at first; the security group and the load balancer of that attempt are no obstacle."""
    with monkeypatch.context() as patch:
        patch.setattr(haproxy, "_START_SECONDS", 0.0)
        patch.setattr(haproxy, "_is_listening", lambda _: False)
        with pytest.raises(TimeoutError, match="HAProxy does not listen"):
            balancers.create(service, lambda: None)

    assert balancers.create(service, lambda: None) == described()[0]["DNSName"]
    assert len(balancers._nodes) == 2


def test_a_node_that_fails_its_checks_gets_no_requests(
    balancers: LoadBalancers, service: Object, mock_aws: MockAws, pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the target is a path that kube-proxy does not have, as after a slip in the annotation."""
    monkeypatch.setattr(haproxy, "_IN_SERVICE_SECONDS", 5.0)
    annotate(service, "healthcheck-path", "/livez")
    balancers.create(service, lambda: pod.address)

    with pytest.raises(TimeoutError, match="is not in service"):
        balancers.replace_nodes()
    assert get(balancers, mock_aws)[0] == 503


def test_nodes_are_replaced_without_a_failed_request(
    balancers: LoadBalancers, service: Object, mock_aws: MockAws, pod: Pod
) -> None:
    """Each new one is in service before an old one goes."""
    balancers.create(service, lambda: pod.address)
    wait_until_served(balancers, mock_aws)
    before = list(balancers._nodes)
    statuses: list[int] = []
    replacing = threading.Thread(target=balancers.replace_nodes)
    replacing.start()
    while replacing.is_alive():
        statuses.append(get(balancers, mock_aws)[0])

    assert set(statuses) == {200}
    assert len(before) == len(balancers._nodes) == 2
    assert not any(node in before for node in balancers._nodes)


@pytest.mark.parametrize(
    ("given", "protocols"),
    [
        ({"ssl-cert": "an ARN", "backend-protocol": "http"}, ("HTTPS", "HTTP")),
        ({"ssl-cert": "an ARN", "backend-protocol": "https"}, ("HTTPS", "HTTPS")),
        ({"ssl-cert": "an ARN", "backend-protocol": "ssl"}, ("SSL", "SSL")),
        ({"ssl-cert": "an ARN"}, ("SSL", "TCP")),
        ({"ssl-cert": "an ARN", "backend-protocol": "http", "ssl-ports": "443"}, ("HTTPS", "HTTP")),
        ({"ssl-cert": "an ARN", "backend-protocol": "http", "ssl-ports": "other"}, ("HTTP", "HTTP")),
        ({"backend-protocol": "http"}, ("HTTP", "HTTP")),
        ({"backend-protocol": "https"}, ("TCP", "TCP")),
        ({}, ("TCP", "TCP")),
    ],
)
def test_the_protocols_of_a_listener(given: dict[str, str], protocols: tuple[str, str]) -> None:
    """They follow from the certificate, its ports and the protocol of the pods, as in the controller's source."""
    listener = load_balancer._listener({"name": "https", "port": 443}, given)

    assert (listener["Protocol"], listener["InstanceProtocol"]) == protocols
    assert ("SSLCertificateId" in listener) == (protocols[0] in {"HTTPS", "SSL"})


@pytest.mark.parametrize(
    ("given", "target"),
    [
        ({}, "TCP:30080"),
        ({"healthcheck-protocol": "SSL", "healthcheck-path": "/ignored"}, "SSL:30080"),
        ({"healthcheck-protocol": "HTTP"}, "HTTP:30080/"),
        ({"healthcheck-protocol": "HTTPS", "healthcheck-port": "traffic-port"}, "HTTPS:30080/"),
        ({"healthcheck-protocol": "HTTP", "healthcheck-port": "10256", "healthcheck-path": "/a"}, "HTTP:10256/a"),
    ],
)
def test_the_target_of_the_health_check(given: dict[str, str], target: str) -> None:
    """Only a check by HTTP has a path."""
    assert load_balancer._health_check(given)["Target"] == target


class OneChance:
    """A cloud provider that refuses until the annotation is mended."""

    def __init__(self) -> None:
        self.targets: list[str] = []

    def create(self, service: Object, upstream: Callable[[], Address | None]) -> str:
        assert upstream() is None
        self.targets.append(service["metadata"]["annotations"][f"{PREFIX}healthcheck-protocol"])
        if self.targets[-1] != "HTTP":
            raise Refused("the reason")
        return "balancer.example"

    def delete(self, service: Object) -> None: ...


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 - neither a log nor a store has an event to wait for
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def running(folder: Path, cloud: OneChance) -> AsyncIterator[Store]:
    store = Store(VERSION)
    async with Controllers({}, folder, cloud).running(store):
        yield store


async def test_a_mended_annotation_gets_the_service_its_load_balancer(
    tmp_path: Path, service: Object, caplog: pytest.LogCaptureFixture
) -> None:
    """The refusal is logged with its reason. The controller handles the Service again when an annotation changes."""
    cloud, kind = OneChance(), kind_of("Service")
    key = (kind.plural, service["metadata"]["namespace"], service["metadata"]["name"])
    async with running(tmp_path, cloud) as store:
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": key[1]}}
        store.apply(kind_of("Namespace"), namespace)
        annotate(service, "healthcheck-protocol", "http")
        store.apply(kind, copy.deepcopy(service))
        await until(lambda: caplog.records)
        (record,) = [one for one in caplog.records if one.levelno == logging.ERROR]
        assert record.getMessage() == "the cluster cannot handle Service clients/clients-api"
        assert record.exc_info
        assert str(record.exc_info[1]) == "the reason"
        assert "status" not in (store.get(*key) or {})

        annotate(service, "healthcheck-protocol", "HTTP")
        store.apply(kind, copy.deepcopy(service))
        await until(lambda: "status" in (store.get(*key) or {}))

    assert cloud.targets == ["http", "HTTP"]
