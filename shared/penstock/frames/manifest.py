"""Manifests: what a dataset was made of, each a file in `datasets/` beside the tables, never changed once it is there."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ..errors import PenstockError
from ..mistake import nearest
from ..offline import Location, Table, Tables
from ..offline.pins import DATASETS
from ..records import Quarantine

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Asked", "Manifest", "Pinned", "PinnedTable", "identified", "keep", "listed", "load", "pinned"]

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Pinned(msgspec.Struct, frozen=True, kw_only=True):
    """A table at a version; `files` are paths below its folder, `positions` the next offset of each partition."""

    name: str
    topic_id: str
    version: int
    files: list[str]
    positions: dict[int, int]


class Asked(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The query, moments as ISO-8601. What older manifests do not say has the default, and is not said."""

    model: str
    start: str | None
    end: str | None
    known_before: str | None
    as_known_now: bool
    late: bool = True
    waits: bool = False
    """Whether labels counted when the horizon had passed; false also in older manifests, whose labels counted when they came."""
    quarantines: list[Quarantine] = []
    """What was left out: those that stood."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a dataset is made of. `project` and `views` are fingerprints of the definitions it was made under."""

    id: str = ""
    project: dict[str, str]
    query: Asked
    inputs: list[str]
    label: dict[str, Any]
    views: dict[str, str]
    tables: list[Pinned]
    rows: int
    columns: dict[str, str]
    sha256: str


class PinnedTable:
    """A table as a manifest pins it, read from its files: the log may have forgotten that version long since."""

    def __init__(self, tables: Tables, dataset: str, pin: Pinned) -> None:
        self.name, self.topic_id = pin.name, pin.topic_id
        self._tables, self._dataset, self._pin = tables, dataset, pin

    @property
    def schema(self) -> pa.Schema:
        """Columns and their types; those that are younger than the version are null in it."""
        return self._tables.table(self.name).schema

    def arrow(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows; PenstockError where files are gone."""
        pin, location = self._pin, self._tables.location
        found = location.files.get_file_info([f"{pin.name}/{path}" for path in pin.files])
        gone = [path for path, info in zip(pin.files, found, strict=True) if not info.is_file]
        if gone:
            raise PenstockError(
                f"dataset {self._dataset} needs version {pin.version} of {pin.name}, and {len(gone)} of its {len(pin.files)} "
                f"files are gone, such as {gone[0]}: somebody deleted them past its manifest",
                f"bring them back from a backup to {location.uri(pin.name)}   or make it anew: penstock dataset create",
            )
        return self._tables.arrow_of(pin.name, pin.files, columns)


def pinned(table: Table) -> Pinned:
    """What to write down of a table to read it again as it is."""
    return Pinned(name=table.name, topic_id=table.topic_id, version=table.version, files=table.files, positions=table.positions())


def identified(manifest: Manifest) -> Manifest:
    """The manifest with its id, a hash of all that it says."""
    said = msgspec.json.encode(msgspec.to_builtins(msgspec.structs.replace(manifest, id=""), str_keys=True), order="sorted")
    return msgspec.structs.replace(manifest, id=hashlib.sha256(said).hexdigest()[:16])


def listed(tables: Tables) -> dict[str, Manifest]:
    """All datasets by name."""
    paths = [path for path in tables.location.listed(DATASETS) if path.endswith(".json")]
    return {Path(path).stem: _read(tables.location, path) for path in paths}


def load(tables: Tables, name: str) -> Manifest:
    """The manifest of a name, or of an id."""
    found = listed(tables)
    manifest = found.get(name) or next((m for m in found.values() if m.id == name), None)
    if manifest is None:
        raise PenstockError(f"no dataset {name!r} in {tables.location!r}", nearest(name, list(found)))
    return manifest


def keep(location: Location, name: str, manifest: Manifest) -> None:
    """Leave a manifest, whole or not at all. One of that name stays; PenstockError where it says something else."""
    if not _NAME.fullmatch(name):
        raise PenstockError(f"{name!r} is not a name of a dataset", "letters, digits, dots, - and _, at most 100")
    path, said = f"{DATASETS}/{name}.json", msgspec.json.format(msgspec.json.encode(manifest)) + b"\n"
    if location.remote:  # a put is atomic; two processes that take one name in the same moment are not told apart there
        if path not in location.listed(DATASETS):
            with location.files.open_output_stream(path) as file:
                file.write(said)
    else:
        target = Path(location.root, path)
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = target.with_name(f".{target.name}.{os.getpid()}")
        scratch.write_bytes(said)
        try:
            os.link(scratch, target)  # unlike a rename it replaces nothing
        except FileExistsError:
            pass
        finally:
            scratch.unlink()
    if _read(location, path).id != manifest.id:
        raise PenstockError(
            f"there is a dataset {name} already, and it is another", f"choose another name, or see: penstock dataset show {name}"
        )


def _read(location: Location, path: str) -> Manifest:
    try:
        found = msgspec.json.decode(location.read(path) or b"", type=Manifest)
    except msgspec.MsgspecError as error:
        raise PenstockError(f"{location.uri(path)} is not a manifest of a dataset: {error}", "repair or remove it") from error
    if identified(found).id != found.id:
        raise PenstockError(
            f"{location.uri(path)} was changed: its id is {found.id}, and what it says has {identified(found).id}",
            "restore the file",
        )
    return found
