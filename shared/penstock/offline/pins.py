"""Which versions of tables training sets need. Whoever makes one leaves its manifest in `datasets/` beside the tables."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from ..errors import PenstockError
from .location import Location

__all__ = ["DATASETS", "Pin", "pins"]

DATASETS = "datasets"
"""The folder of manifests. No table can have this name while it holds one."""


@dataclass(frozen=True, slots=True)
class Pin:
    """A training set needs this version of a table, which consists of these files (paths below the table's folder)."""

    dataset: str
    table: str
    version: int
    files: tuple[str, ...]


class _Pinned(msgspec.Struct, frozen=True):
    name: str
    version: int
    files: tuple[str, ...] = ()


class _Manifest(msgspec.Struct, frozen=True):
    """What is read of a manifest here; it says more."""

    tables: list[_Pinned]


def pins(location: Location) -> list[Pin]:
    """What all manifests name. PenstockError for one that cannot be read: what it needs is then unknown."""
    found = []
    for path in location.listed(DATASETS):
        if not path.endswith(".json"):
            continue
        try:
            manifest = msgspec.json.decode(location.read(path) or b"", type=_Manifest)
        except msgspec.MsgspecError as error:
            raise PenstockError(
                f"{location.uri(path)} is not a manifest of a training set: {error}",
                "repair or remove it; until then nobody knows which versions it needs",
            ) from error
        name = path.rpartition("/")[2].removesuffix(".json")
        found += [Pin(name, table.name, table.version, table.files) for table in manifest.tables]
    return found
