"""Datasets: training sets that can be made again, byte for byte, years later.

A manifest says which versions of which tables were read (with their files, which vacuum then leaves alone, and positions), by
which query, under which definitions, and what the content hashed to. It lies in `datasets/` beside the tables and is never
changed. Checking it out runs the query over those versions again and refuses, with the reason, whatever hashes otherwise.

The content hash is sha256 over the columns in order, each as its name, kind and number of rows (JSON, with a line feed), then
its values, little-endian:

    number    float64, every missing one as the same NaN
    time      int64 microseconds since 1970 UTC, the least int64 where missing
    truth     int8: 0, 1, -1 where missing
    text      int64 lengths in bytes, -1 where missing, then all bytes in UTF-8

It says nothing of files, so it holds for any version of Parquet. A manifest's id is the sha256 of all it says, shortened.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from ..errors import PenstockError
from ..event import from_micros
from ..model import Model
from ..offline import Tables
from ..project import Project
from ..records import Quarantine
from .columns import micros
from .manifest import Asked, Manifest, PinnedTable, identified, keep, load, pinned
from .training import Query, moment

__all__ = ["changes", "checkout", "content", "create", "differences"]


def create(
    tables: Tables,
    project: Project,
    model: Model,
    name: str = "",
    *,
    start: str | None = None,
    end: str | None = None,
    known_before: str | None = None,
    as_known_now: bool = False,
    late: bool = True,
    quarantines: Sequence[Quarantine] = (),
) -> tuple[Manifest, pd.DataFrame]:
    """Read a training set and leave its manifest as `name` (default: its id). The same again is the same dataset.

    PenstockError where another dataset has that name.
    """
    asked = Asked(
        model=model.name, as_known_now=as_known_now, late=late, waits=model.label.waits,
        start=_spoken(moment(start, "start")), end=_spoken(moment(end, "end")),
        known_before=_spoken(moment(known_before, "known_before")), quarantines=list(quarantines),
    )  # fmt: skip
    query = _query(asked, project, model)
    pins = [pinned(table) for table in query.tables(tables, project.name)]
    frame = query.run([PinnedTable(tables, name or "to be", pin) for pin in pins])
    manifest = identified(
        Manifest(
            project={"name": project.name, "fingerprint": project.fingerprint},
            query=asked,
            **_definitions(model),
            tables=pins,
            rows=len(frame),
            columns={column: kind for column, kind, _ in _columns(frame)},
            sha256=content(frame),
        )
    )
    keep(tables.location, name or manifest.id, manifest)
    return manifest, frame


def checkout(tables: Tables, project: Project, name: str) -> pd.DataFrame:
    """The data of a dataset, made again from the versions that it pins, and equal to what it was; PenstockError says why not."""
    manifest = load(tables, name)
    model = project.model(manifest.query.model)
    changed = changes(manifest, model)
    if changed:
        raise PenstockError(
            f"dataset {name} was made under other definitions: {'; '.join(changed)}",
            f"check out the project of then, with fingerprint {manifest.project['fingerprint'][:16]}, and try again",
        )
    query = _query(manifest.query, project, model)
    frame = query.run([PinnedTable(tables, name, pin) for pin in manifest.tables])
    frame = frame[[column for column in frame.columns if column != "late" or column in manifest.columns]]  # it came later
    if (now := content(frame)) != manifest.sha256:
        changed_since = project.fingerprint != manifest.project["fingerprint"]
        raise PenstockError(
            f"dataset {name} had content {manifest.sha256[:16]} and now has {now[:16]}, though the versions are the same: "
            + ("the project has changed since" if changed_since else "the code of penstock or the files have changed"),
            "check out the project and install the penstock of then; if that does not help, files were altered",
        )
    return frame


def changes(manifest: Manifest, model: Model) -> list[str]:
    """What is declared otherwise now and bears on the data, in words."""
    now, said = _definitions(model), list[str]()
    if now["inputs"] != manifest.inputs:
        unlike = sorted(set(now["inputs"]) ^ set(manifest.inputs))
        said.append(f"the inputs of {model.name} are others ({', '.join(unlike) or 'in another order'})")
    if now["label"] != manifest.label:
        said.append(f"the label of {model.name} is {_told(now['label'])}, and was {_told(manifest.label)}")
    if manifest.query.as_known_now:  # features that were served are read, not computed
        for view, print_ in now["views"].items():
            if manifest.views.get(view, print_) != print_:
                said.append(f"view {view} is {print_}, and was {manifest.views[view]}")
    return said


def differences(
    left: Manifest, right: Manifest, data: tuple[pd.DataFrame, pd.DataFrame] | None = None
) -> dict[str, tuple[Any, Any]]:
    """What two datasets do not share, by name, as (left, right); with their data also which rows and values differ."""
    found: dict[str, tuple[Any, Any]] = {}
    pairs = {
        "project": (left.project["fingerprint"][:16], right.project["fingerprint"][:16]),
        **{f"query.{f}": (getattr(left.query, f), getattr(right.query, f)) for f in Asked.__struct_fields__},
        **{f"label.{f}": (left.label.get(f), right.label.get(f)) for f in {**left.label, **right.label}},
        "inputs": (left.inputs, right.inputs),
        **{f"view {n}": (left.views.get(n), right.views.get(n)) for n in {**left.views, **right.views}},
    }
    versions = [{pin.name: pin.version for pin in manifest.tables} for manifest in (left, right)]
    pairs |= {f"table {n}": (versions[0].get(n), versions[1].get(n)) for n in sorted({**versions[0], **versions[1]})}
    pairs |= {"rows": (left.rows, right.rows), "content": (left.sha256[:16], right.sha256[:16])}
    found |= {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    if data is not None:
        one, other = (frame.drop_duplicates("id").set_index("id") for frame in data)
        alone = len(one.index.difference(other.index)), len(other.index.difference(one.index))
        found |= {"rows that the other has not": alone} if any(alone) else {}
        both = one.index.intersection(other.index)
        for column in one.columns.intersection(other.columns):
            a, b = one.loc[both, column].astype(object), other.loc[both, column].astype(object)
            unlike = int(((a != b).fillna(True) & ~(a.isna() & b.isna())).sum())
            if unlike:
                found[f"values of {column}"] = (unlike, unlike)
    return found


# --- content -------------------------------------------------------------------------------------------------------------


def content(frame: pd.DataFrame) -> str:
    """The hash of a training set; see the top of this module.

    >>> content(pd.DataFrame({"x": [1.0, float("nan")]}))[:16]
    '9d226757189d3b58'
    """
    whole = hashlib.sha256()
    for name, kind, values in _columns(frame):
        whole.update(msgspec.json.encode([name, kind, len(frame)]) + b"\n")
        for part in values:
            whole.update(part)
    return whole.hexdigest()


def _columns(frame: pd.DataFrame) -> Iterator[tuple[str, str, Iterator[Any]]]:
    for name in frame.columns:
        series = frame[name]
        kind = "text"
        if isinstance(series.dtype, pd.DatetimeTZDtype):
            kind = "time"
        elif pd.api.types.is_bool_dtype(series.dtype):
            kind = "truth"
        elif pd.api.types.is_numeric_dtype(series.dtype):
            kind = "number"
        yield name, kind, _bytes(series, kind)


def _bytes(series: Any, kind: str) -> Iterator[Any]:
    if kind == "number":
        values = series.to_numpy(np.float64, na_value=np.nan)
        yield np.where(np.isnan(values), np.nan, values).astype("<f8").tobytes()
    elif kind == "time":
        yield micros(series, series.name).astype("<i8").tobytes()
    elif kind == "truth":
        yield series.astype("boolean").to_numpy(np.int8, na_value=-1).tobytes()
    else:
        texts = [None if missing else text.encode() for text, missing in zip(series, series.isna(), strict=True)]
        yield np.array([-1 if text is None else len(text) for text in texts], "<i8").tobytes()
        yield b"".join(text for text in texts if text is not None)


# --- manifests -----------------------------------------------------------------------------------------------------------


def _definitions(model: Model) -> dict[str, Any]:
    label, said = model.label, {}
    if label.sources is not None:
        said = {"source": repr(label.sources.column), "caps": [list(cap) for cap in label.sources.caps]}
    return {
        "inputs": list(model.inputs),
        "label": {"column": repr(label.column), "within": label.within, "otherwise": label.otherwise, **said},
        "views": {view.name: view.fingerprint for view in model.views},
    }


def _query(asked: Asked, project: Project, model: Model) -> Query:
    start, end, before = (moment(said, "the moment") for said in (asked.start, asked.end, asked.known_before))
    return Query(
        model, project.topology, start, end, before, asked.as_known_now, asked.late, asked.waits, tuple(asked.quarantines)
    )


def _told(label: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in label.items())


def _spoken(micros: int | None) -> str | None:
    return None if micros is None else from_micros(micros).isoformat()
