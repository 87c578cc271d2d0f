"""dataset: training sets with a manifest, to be made again byte for byte."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import PenstockError
from . import screen
from .options import command, project_of, project_settings, settings_of

if TYPE_CHECKING:
    import pandas as pd

    from ..frames.manifest import Manifest
    from ..log import Log
    from ..offline import Tables
    from ..records import Quarantine
    from ..settings import Settings

__all__ = ["app"]

app = typer.Typer(help="Training sets that can be made again, byte for byte.", no_args_is_help=True, rich_markup_mode=None)

Name = Annotated[str, typer.Argument(metavar="DATASET", help="Its name or its id.", show_default=False)]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="FILE.parquet", help="Where the data goes.", dir_okay=False, show_default=False),
]


def _tables() -> Tables:
    from ..offline import Tables

    return Tables(settings_of().offline)


@command(app)
def create(
    model: Annotated[str, typer.Argument(help="The model that is to learn from it.", show_default=False)],
    name: Annotated[str, typer.Option("--name", help="What to call it; default: its id.", show_default=False)] = "",
    start: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Scored events from this moment on, such as 2026-02-01T00:00Z.", show_default=False),
    ] = None,
    end: Annotated[str | None, typer.Option(metavar="TIME", help="Scored events before this moment.", show_default=False)] = None,
    known_before: Annotated[
        str | None, typer.Option(metavar="TIME", help="With the labels that were known then.", show_default=False)
    ] = None,
    as_known_now: Annotated[
        bool, typer.Option("--as-known-now", help="Features computed anew, with what came late; labels whenever they came.")
    ] = False,
    without_late: Annotated[
        bool, typer.Option("--without-late", help="Leave out rows that came late: their values know of newer events.")
    ] = False,
    without_quarantined: Annotated[
        bool, typer.Option("--without-quarantined", help="Leave out what is in quarantine, as the log says now.")
    ] = False,
    out: Out = None,
) -> None:
    """Make a training set of a model, and keep its manifest.

    It lies beside the tables and pins the versions that were read (vacuum leaves them alone), the query, the definitions and
    a hash of the content. The same again gives the same dataset.
    """
    from ..frames.dataset import create

    settings = project_settings()
    project = project_of(settings)
    quarantines = _quarantines(settings, model) if without_quarantined else []
    manifest, frame = create(
        _tables(), project, project.model(model), name, start=start, end=end, known_before=known_before,
        as_known_now=as_known_now, late=not without_late, quarantines=quarantines,
    )  # fmt: skip
    written = _written(frame, manifest, out)
    said = name or manifest.id
    screen.answer({**_fact(said, manifest), "file": written}, _lines(said, manifest), [f"  written to {out}"] if out else [])
    if "source" in frame and len(left := frame["source"][frame["label"].isna() & (frame["source"] != "")]):
        told = ", ".join(f"{source} {n:,}" for source, n in left.value_counts(sort=False).sort_index().items())
        screen.note(f"  labels beyond the caps of their sources are left out: {told}")
    if not manifest.rows:
        for reason in _why_empty(manifest):
            screen.note(f"{screen.paint('warning', 'yellow', sys.stderr)}  0 rows: {reason}")
    elif out is None:
        screen.note(f"-> penstock dataset checkout {said}")


@command(app, "list")
def list_() -> None:
    """Show all datasets."""
    from ..frames.manifest import listed

    tables = _tables()
    found = listed(tables)
    table: list[tuple[str, ...]] = [("dataset", "model", "rows", "from", "until", "known before", "content")]
    for name, manifest in found.items():
        asked = manifest.query
        moments = [(said or "-").replace("+00:00", "Z") for said in (asked.start, asked.end, asked.known_before)]
        known = "now" if asked.as_known_now else moments[2]
        table.append((name, asked.model, f"{manifest.rows:,}", *moments[:2], known, manifest.sha256[:16]))
    where = f"{screen.count(len(found), 'dataset')} in {tables.location!r}"
    facts = [_fact(name, manifest) for name, manifest in found.items()]
    screen.answer({"datasets": facts}, screen.rows(table) if found else [], f"  {where}")


@command(app)
def show(name: Name) -> None:
    """Show what a dataset is made of."""
    from ..frames.manifest import load

    manifest = load(_tables(), name)
    screen.answer(_fact(name, manifest), _lines(name, manifest))


@command(app)
def diff(
    left: Annotated[str, typer.Argument(help="A dataset.", show_default=False)],
    right: Annotated[str, typer.Argument(help="Another one.", show_default=False)],
    data: Annotated[bool, typer.Option("--data", help="Check both out and compare rows and values, too.")] = False,
) -> None:
    """Show in what two datasets differ."""
    from ..frames.dataset import checkout, differences
    from ..frames.manifest import load

    tables = _tables()
    frames = None
    if data:
        project = project_of(project_settings())
        frames = checkout(tables, project, left), checkout(tables, project, right)
    found = differences(load(tables, left), load(tables, right), frames)
    table = [("", left, right), *((what, str(a), str(b)) for what, (a, b) in found.items())]
    screen.answer(
        {"left": left, "right": right, "differences": found},
        screen.rows(table) if found else f"  {left} and {right} are the same",
    )


@command(app)
def checkout(
    name: Name,
    out: Out = None,
) -> None:
    """Make the data of a dataset again, as Parquet.

    Refused, with the reason, unless it is what it was.
    """
    from ..frames.dataset import checkout
    from ..frames.manifest import load

    tables = _tables()
    target = out or Path(f"{name}.parquet")
    if target.exists():
        raise PenstockError(f"{target} is there already", f"remove it, or: penstock dataset checkout {name} --out FILE.parquet")
    frame = checkout(tables, project_of(project_settings()), name)
    manifest = load(tables, name)
    _written(frame, manifest, target)
    told = f"{screen.count(len(frame), 'row')} in {target}, content {manifest.sha256[:16]} as it was"
    screen.answer({**_fact(name, manifest), "file": str(target)}, told)


def _quarantines(settings: Settings, model: str) -> list[Quarantine]:
    """All of a model, those that were lifted, too: which of them hold follows from --known-before."""
    from . import broker
    from .options import topics_of
    from .quarantine import held

    topics = topics_of(settings)

    async def work(log: Log) -> list[Quarantine]:
        return await held(log, topics, model)

    return broker.use(settings, work, f"reading {topics.quarantines}")


def _why_empty(manifest: Manifest) -> list[str]:
    """What most likely made a training set empty: the tables read, then the moments asked for."""
    tables = _tables()
    counts = {pin.name: tables.table(pin.name).at(version=pin.version).rows for pin in manifest.tables}
    empty = [name for name, rows in counts.items() if not rows and not name.endswith(".dlq")]
    if empty:
        return [f"nothing is archived in {', '.join(empty)} yet; look:  penstock tables list"]
    asked = manifest.query
    said = {"--start": asked.start, "--end": asked.end, "--known-before": asked.known_before}
    if given := [f"{option} {moment}" for option, moment in said.items() if moment]:
        return [f"no scored event is inside {', '.join(given)}; look:  penstock tables show {manifest.tables[1].name}"]
    return [f"no row of {manifest.tables[0].name} has its event archived, too; look:  penstock tables verify"]


def _written(frame: pd.DataFrame, manifest: Manifest, out: Path | None) -> str | None:
    """The data as Parquet, with the id of its manifest; whole or not there."""
    if out is None:
        return None
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(frame, preserve_index=False)
    said = {b"penstock.frames.dataset": manifest.id.encode(), b"penstock.sha256": manifest.sha256.encode()}
    scratch = out.with_name(f".{out.name}.part")
    try:
        pq.write_table(table.replace_schema_metadata({**(table.schema.metadata or {}), **said}), scratch)
        scratch.replace(out)
    except OSError as error:
        raise PenstockError(f"{out} cannot be written: {error}", "--out FILE.parquet   in a folder that is there") from error
    return str(out)


def _fact(name: str, manifest: Manifest) -> dict[str, Any]:
    import msgspec

    return {"dataset": name, **msgspec.to_builtins(manifest)}


def _lines(name: str, manifest: Manifest) -> list[str]:
    from ..duration import spoken

    asked, label = manifest.query, manifest.label
    moments = f"from {asked.start or 'the first'} until {asked.end or 'the last'}"
    known = "as known now" if asked.as_known_now else f"as known before {asked.known_before or 'the versions below end'}"
    silence = "" if label["otherwise"] is None else f", silence means {label['otherwise']}"
    caps = ", ".join(f"{source} {cap:g}" for source, cap in label.get("caps", []))
    silence += f", sources {caps}" if caps else ""
    table = [
        ("dataset", f"{name}   id {manifest.id}"),
        ("content", f"{screen.count(manifest.rows, 'row')}, {len(manifest.columns)} columns, sha256 {manifest.sha256}"),
        ("query", f"model {asked.model}, {moments}, {known}{'' if asked.late else ', without late rows'}"),
        *(("quarantine", f"{one.id}   {one.actor}: {one.reason or 'no reason given'}") for one in asked.quarantines),
        ("label", f"{label['column']} within {spoken(label['within'])}{silence}"),
        ("project", f"{manifest.project['name']}   fingerprint {manifest.project['fingerprint'][:16]}"),
        *((f"view {view}", f"fingerprint {print_}") for view, print_ in manifest.views.items()),
    ]
    for pin in manifest.tables:
        ends = ", ".join(f"{number}: {offset:,}" for number, offset in sorted(pin.positions.items()))
        table.append(
            (f"table {pin.name}", f"version {pin.version}, {screen.count(len(pin.files), 'file')}, up to {ends or 'unknown'}")
        )
    return screen.rows(table)
