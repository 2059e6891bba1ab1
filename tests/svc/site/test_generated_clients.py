"""Clients generated from the OpenAPI description work against the running service, and linters accept it."""

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from ops.common.process import ROOT
from svc.http.access import digest
from svc.site import openapi
from tests.node import node_packages
from tests.service import Service

Start = Callable[..., Service]

HERE = Path(__file__).parent
KEY = "a-key"
NEW = {"name": "Sofía", "money": "12.50"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the Node.js packages."""
    (tmp_path / "node_modules").symlink_to(node_packages())
    return tmp_path


def run(folder: Path, *command: str | Path, timeout: float = 300) -> str:
    """The output of a command, which has to succeed."""
    binaries = [str(Path(sys.executable).parent), str(node_packages() / ".bin"), os.environ["PATH"]]
    environment = {"PATH": os.pathsep.join(binaries), "HOME": str(folder), "REDOCLY_TELEMETRY": "off"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("requires_key", [False, True])
@pytest.mark.parametrize(
    "command",
    [
        ("redocly", "lint", "--extends", "recommended-strict", "openapi.json"),
        ("spectral", "lint", "--fail-severity", "hint", "--ruleset", HERE / "spectral.yaml", "openapi.json"),
    ],
    ids=["redocly", "spectral"],
)
def test_a_linter_finds_nothing(folder: Path, command: Sequence[str | Path], requires_key: bool) -> None:
    """Neither an error nor a warning."""
    (folder / "openapi.json").write_text(json.dumps(openapi.describe(requires_key=requires_key)))

    run(folder, *command)


def test_a_generated_python_client_works(serve: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client of openapi-python-client adds by JSON and form, retries with a key, pages, and reads problems."""
    service = serve(API_KEY_HASHES=digest(KEY).hex())
    options = ("--meta", "none", "--output-path", "generated_client", "--fail-on-warning")
    run(tmp_path, "openapi-python-client", "generate", "--url", f"{service.url}/openapi.json", *options)
    monkeypatch.syspath_prepend(tmp_path)
    generated = importlib.import_module("generated_client")
    models = importlib.import_module("generated_client.models")
    add, get, get_all = (
        importlib.import_module(f"generated_client.api.clients.{name}")
        for name in ("add_client", "get_client", "get_all_clients")
    )
    urls: list[str] = []
    client = generated.AuthenticatedClient(
        base_url=service.url,
        token=KEY,
        httpx_args={"event_hooks": {"request": [lambda request: urls.append(str(request.url))]}},
    )

    with client, generated.Client(base_url=service.url) as anonymous:
        new = models.NewClient(**NEW)
        added, again = (add.sync(client=client, body=new, idempotency_key="python") for _ in range(2))
        by_form = add.sync(client=client, body=models.NewClientForm(name="Ann", money="1"))
        listed: list[int] = []
        after: int | None = 0
        while after is not None:
            page = get_all.sync_detailed(client=client, limit=2, after=after)
            listed += [found.id for found in page.parsed]
            link = re.search(r"after=(\d+)", page.headers.get("Link", ""))
            after = int(link[1]) if link else None
        sofia = get.sync(added.id, client=client)
        problems = [
            get.sync(999999, client=client),
            add.sync(client=client, body=models.NewClient(name="Ann", money="much")),
            add.sync(client=client, body=models.NewClient(name="Sofía", money=13.0), idempotency_key="python"),
            get.sync(1, client=anonymous),
        ]

    kinds = models.ProblemType
    assert added == again == models.AddedClient(id=added.id)
    assert (sofia.name, sofia.money) == tuple(NEW.values())
    check_listed(listed, [added.id, by_form.id])
    assert [problem.type_ for problem in problems] == [
        *(kinds.NO_SUCH_CLIENT, kinds.INVALID_FIELD, kinds.IDEMPOTENCY_KEY_REUSED, kinds.KEY_MISSING)
    ]
    assert [problem.status for problem in problems] == [404, 400, 422, 401]
    assert problems[1].field == "money"
    check_urls(urls)


def test_a_generated_typescript_client_works(serve: Start, folder: Path) -> None:
    """The client of openapi-typescript compiles in strict mode, and does the same."""
    service = serve(API_KEY_HASHES=digest(KEY).hex())
    run(folder, "openapi-typescript", f"{service.url}/openapi.json", "--output", "api.ts")
    (folder / "client.ts").write_bytes((HERE / "client.ts").read_bytes())
    (folder / "package.json").write_bytes((ROOT / "tests/node/package.json").read_bytes())
    options = ("--strict", "--noUncheckedIndexedAccess", "--module", "nodenext", "--target", "es2022", "--skipLibCheck")
    run(folder, "tsc", *options, "client.ts")

    got: dict[str, Any] = json.loads(run(folder, "node", "client.js", service.url, KEY))

    added, again, by_form = got["added"]
    assert added == again
    assert got["sofia"] == {"id": added, **NEW}
    check_listed(got["listed"], [added, by_form])
    kinds = "tag:olimac.link,2026:clients/"
    assert got["problems"] == [
        [f"{kinds}no-such-client", 404, None],
        [f"{kinds}invalid-field", 400, "money"],
        [f"{kinds}idempotency-key-reused", 422, None],
    ]
    check_urls(got["urls"])


def check_listed(listed: Sequence[int], added: Sequence[int]) -> None:
    """Paging gave each client once, in order, and the added ones last."""
    assert len(listed) == 4 + 2
    assert all(one < next_one for one, next_one in pairwise(listed))
    assert list(listed[-2:]) == list(added)


def check_urls(urls: Sequence[str]) -> None:
    """Adds have no query, so no log of a proxy has names or amounts."""
    adds = [url for url in urls if "/add" in url]
    assert adds
    assert not any("?" in url for url in adds)
