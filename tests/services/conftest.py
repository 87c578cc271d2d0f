"""What tests of services are given."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.services import parcels
from tests.services.air import Door, Driven, World

from penstock.services.embedded import Embedded


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("data") / "models")


@pytest.fixture
def driven(world: World) -> Driven:
    return Driven(world)


@pytest.fixture
def door(world: World) -> Door:
    return Door(world)


@pytest.fixture(scope="session")
def parcels_delivered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Embedded, Path]:
    """The services after all parcels, and their folder; it takes long, so several modules look at the same."""
    folder = tmp_path_factory.mktemp("parcels")
    return parcels.delivered(parcels.history(), folder), folder
