"""What the tests of inference are given."""

from __future__ import annotations

import pytest
from tests.services.air import Door, Driven, World


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("data") / "models")


@pytest.fixture
def driven(world: World) -> Driven:
    return Driven(world)


@pytest.fixture
def door(world: World) -> Door:
    return Door(world)
