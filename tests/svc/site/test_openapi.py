"""The service behaves as its OpenAPI description says, for any request."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from ops.common.process import ROOT
from svc.clients.endpoints import MAX_LIMIT
from svc.http.access import digest
from svc.site import openapi
from tests.conftest import Client
from tests.service import Service

ALL_PHASES = ("--phases", "examples,coverage,fuzzing,stateful", "--max-examples", "90")
FEW_EXAMPLES = ("--phases", "examples,fuzzing", "--max-examples", "30")


@pytest.mark.parametrize(
    ("key", "phases", "min_cases"), [("", ALL_PHASES, 900), ("a-key", FEW_EXAMPLES, 50)], ids=["open", "key"]
)
def test_schemathesis_finds_no_failure(
    serve: Callable[..., Service], tmp_path: Path, key: str, phases: Sequence[str], min_cases: int
) -> None:
    """All checks of Schemathesis pass: in all phases without a key, and for fewer cases with a key."""
    service = serve(**({"API_KEY_HASHES": digest(key).hex()} if key else {}))
    done = subprocess.run(
        [
            *(Path(sys.executable).with_name("schemathesis"), "--config-file", ROOT / "schemathesis.toml", "run"),
            *(f"{service.url}/openapi.json", "--no-color", "--checks", "all", "--seed", "20", *phases),
            *("--suppress-health-check", "too_slow"),  # on a busy machine, generating data may take long
            *(("--header", f"Authorization: Bearer {key}") if key else ()),
        ],
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "PYTHONPATH": str(ROOT),
        },  # schemathesis.toml names hooks
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert found, done.stdout + done.stderr
    generated, passed = map(int, found.groups())

    assert done.returncode == 0, done.stdout
    assert generated == passed >= min_cases


async def test_the_description_is_served(api: Client) -> None:
    """GET /openapi.json is the document that openapi.describe() builds."""
    response = await api.get("/openapi.json")

    assert response.content_type == "application/json"
    assert await response.json() == openapi.describe(requires_key=False)


def test_the_description_has_every_endpoint() -> None:
    """The document has all paths and methods of the API, and their bounds."""
    paths = openapi.describe(requires_key=False)["paths"]

    assert {(path, method) for path, item in paths.items() for method in item} == {
        *(("/getall", "get"), ("/add", "post"), ("/get/{id}", "get")),
        *(("/healthz", "get"), ("/readyz", "get"), ("/version", "get")),
    }
    assert paths["/getall"]["get"]["parameters"][0]["schema"]["maximum"] == MAX_LIMIT


def test_an_add_is_described_in_all_three_forms() -> None:
    """The fields are in a JSON object, in a form, or in the query, so none of the three is required."""
    add = openapi.describe(requires_key=False)["paths"]["/add"]["post"]

    assert set(add["requestBody"]["content"]) == {"application/json", "application/x-www-form-urlencoded"}
    assert {field["name"] for field in add["parameters"] if field["in"] == "query"} == {"name", "money"}
    assert not add["requestBody"]["required"]
    assert not any(field.get("required") for field in add["parameters"])
