"""schemathesis asks every operation of openapi.json on real sockets, with what its schema allows and with what it does not: never
a server error, never a status, type or body that the description does not know, and nothing for who has no key."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    response_schema_conformance,
    status_code_conformance,
)
from tests.services import graphs
from tests.services.air import TOPICS, Door, World
from tests.services.opened import opened
from tests.services.served import word

from penstock.doors.access import Access
from penstock.doors.keys import Keys
from penstock.doors.scopes import SCOPES
from penstock.online.reader import OnlineFeatures
from penstock.services.feature_store import api as features
from penstock.services.inference.open_inference.protocol import Limits
from penstock.services.inference.open_inference.repository import Repository, named
from penstock.services.inference.open_inference.serve import Serve
from penstock.store.memory import MemoryStore


def no_fault_of_ours(context: Any, response: Any, case: Any) -> Any:
    """503 in a sentence is none: one of the gateway's models has no version in charge."""
    if response.status_code == 503 and "no version in charge yet" in response.json()["error"]:
        return None
    return not_a_server_error(context, response, case)


CHECKS: list[Any] = [
    no_fault_of_ours, status_code_conformance, content_type_conformance, response_schema_conformance, ignored_auth,
]  # fmt: skip
EXAMPLES = 4
"""Of each operation and mode: enough for each of its kinds of input, within seconds."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("artefacts"))


def gateway(folder: Path, world: World, access: Access) -> AbstractContextManager[str]:
    async def make() -> Any:
        door = Door(world)
        await door.log.create(TOPICS.all())
        await door.log.send([door.said("champion", "v1")])
        return access.door(door.app(), "0.0.0.0", {"arrivals"})

    return opened(make)


def feature_store(folder: Path, world: World, access: Access) -> AbstractContextManager[str]:
    async def make() -> Any:
        return access.door(features.app(OnlineFeatures(TOPICS, MemoryStore()), ["Origin"], str), "0.0.0.0")

    return opened(make)


def serve(folder: Path, world: World, access: Access) -> AbstractContextManager[str]:
    async def make() -> Any:
        repository = Repository([named(word(folder, "double", graphs.scaled(2.0)))])
        await repository.open()
        return access.door(Serve(repository, Limits(), True), "0.0.0.0")

    return opened(make, lifespan=False)


@pytest.fixture(params=[gateway, feature_store, serve], ids=lambda made: made.__name__)
def asked(request: pytest.FixtureRequest, tmp_path: Path, world: World) -> Iterator[tuple[str, str]]:
    """The URL of a server behind its door, and a key that may everything."""
    keys = Keys(tmp_path / "keys.json", "pepper")
    _, words = keys.create("schemathesis", SCOPES)
    with request.param(tmp_path, world, Access(keys=str(keys.path), pepper="pepper")) as url:
        while httpx.get(f"{url}/readyz").status_code != 200:
            pass
        yield url, words


def test_no_request_is_answered_with_an_error_of_ours_or_otherwise_than_described(asked: tuple[str, str]) -> None:
    url, words = asked
    headers = {"Authorization": f"Bearer {words}"}
    said = httpx.get(f"{url}/openapi.json", headers=headers).json()
    schema = schemathesis.openapi.from_dict(said)
    schema.config.update(base_url=url)
    for found in schema.get_all_operations():
        result: Any = found
        operation = result.ok()
        for mode in schemathesis.GenerationMode:

            @settings(
                max_examples=EXAMPLES, derandomize=True, deadline=None, database=None, phases=[Phase.explicit, Phase.generate],
                suppress_health_check=list(HealthCheck),
            )  # fmt: skip
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case: Any) -> None:
                case.call_and_validate(headers=headers, checks=CHECKS)

            with contextlib.suppress(Unsatisfiable):  # of an operation that takes nothing, or any text, nothing is wrong
                ask()
