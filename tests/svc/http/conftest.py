"""The tests of a file in this folder share a database, since hardly any depends on what is in it."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.conftest import Databases


@pytest.fixture(scope="module", name="test_database")
def make_test_database(databases: Databases) -> Iterator[str]:
    """The name of a database with the four first clients in it, to which tests may add others."""
    name = asyncio.run(databases.new())
    yield name
    asyncio.run(databases.drop(name))
