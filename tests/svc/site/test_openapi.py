"""The service does what its OpenAPI description says, whatever is sent."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ops.common.process import ROOT, Service
from svc.clients.endpoints import MAX_LIMIT
from svc.http.access import digest
from svc.site import openapi
from tests.conftest import Client

CASES = 2000


@pytest.mark.parametrize("key", ["", "a-key"])
def test_schemathesis_finds_nothing(serve: Callable[..., Service], tmp_path: Path, key: str) -> None:
    """Schemathesis, with every check on, finds no failure in thousands of cases."""
    service = serve(**({"API_KEY_HASHES": digest(key).hex()} if key else {}))
    schemathesis = Path(sys.executable).with_name("schemathesis")
    done = subprocess.run(
        [
            *(schemathesis, "--config-file", ROOT / "schemathesis.toml", "run", "--no-color"),
            *("--checks", "all", "--max-examples", "250", "--seed", "20", f"{service.url}/openapi.json"),
            *(("--header", f"Authorization: Bearer {key}") if key else ()),
        ],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert found, done.stdout + done.stderr
    generated, passed = map(int, found.groups())
    print(f"{generated} cases, {passed} passed")

    assert done.returncode == 0, done.stdout
    assert generated == passed >= CASES


async def test_the_description_is_served(api: Client) -> None:
    """GET /openapi.json is what openapi.describe() says."""
    response = await api.get("/openapi.json")

    assert response.content_type == "application/json"
    assert await response.json() == openapi.describe(wants_key=False)


def test_the_description_has_every_endpoint_of_the_contract() -> None:
    """All paths and methods of the API are described, with their bounds."""
    paths = openapi.describe(wants_key=False)["paths"]

    assert {(path, method) for path, item in paths.items() for method in item} == {
        *(("/getall", "get"), ("/add", "post"), ("/get/{id}", "get")),
        *(("/healthz", "get"), ("/readyz", "get"), ("/version", "get")),
    }
    assert paths["/getall"]["get"]["parameters"][0]["schema"]["maximum"] == MAX_LIMIT
