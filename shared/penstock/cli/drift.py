"""drift: has what is in a table, or what a model is asked, moved away from a reference?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import PenstockError
from ..evidence import excess
from ..log import Readable
from ..records import Moments, Shift, Statistic
from . import broker, screen
from .options import command, model_of, moment, project_settings, topics_of, write_page

if TYPE_CHECKING:
    from ..comparison.result import Comparison
    from ..frames.tabular import Bad
    from ..model import Model

__all__ = ["app"]

app = typer.Typer(help="Drift: of tables, of what models are asked, and answer.", no_args_is_help=True, rich_markup_mode=None)


@command(app, kept=True)
def show(
    model: Annotated[str | None, typer.Argument(help="A model; default: all.", show_default=False)] = None,
    at: Annotated[
        str | None, typer.Option("--at", metavar="TIME", help="The newest window that was over then, such as 2026-02-01T00:00Z.")
    ] = None,
    by: Annotated[
        str | None,
        typer.Option("--segment", metavar="COLUMN", help="Within the levels of a declared segment.", show_default=False),
    ] = None,
) -> None:
    """Show how far the inputs and answers of models have moved.

    Of the newest window that was compared with a reference: those first that exceed their limits most. What is watched drifts
    when its distance is above both: what chance and its own custom would do, and what is material. Inputs are compared with the
    training rows; score, label and contributions with the first week of the version. Mean and deviation are of the window.

    With --segment the same within each level, against the training rows of that level, or if they are too few against the first
    week of the version; and whether the shares of the levels have moved (population stability index, PSI).
    """
    import msgspec

    from ..policy import LABEL
    from .groups import segmented
    from .within import show as show_within

    settings = project_settings()
    topics, until = topics_of(settings), moment(at, "--at")
    models = {each.name: each for each in ([model_of(topics, model)] if model is not None else topics.project.models)}
    segment = None if by is None else segmented(list(models.values()), by)
    if segment is not None:
        models = {segment[0].name: segment[0]}

    async def newest(log: Readable, topic: str) -> Statistic | None:
        broker.known(topic, await log.describe())
        said = [msgspec.json.decode(found.value or b"", type=Statistic) async for found in broker.held(log, topic)]
        counted = [s for s in said if (s.drift if segment is None else (s.levels or {}).get(segment[1].name))]
        return max((s for s in counted if until is None or s.end <= until), key=lambda s: s.end, default=None)

    async def work(log: Readable) -> dict[str, Statistic | None]:
        return {name: await newest(log, topics.statistics(name)) for name in models}

    found = broker.read(settings, topics, work, f"reading the statistics of {topics.prefix}")
    if segment is not None:
        show_within(*segment, found[segment[0].name], at)
        return
    heads = ("model", "watched", "distance", "chance", "material", "mean", "deviation", "values", "")
    table = [
        (name, *_line(column, shift, said.moments.get(said.reference, {}).get(column)))
        for name, said in found.items()
        if said is not None
        for column, shift in sorted(said.drift.items(), key=lambda item: (-excess(item[1]), item[0]))
    ]
    windows = {
        name: {
            "start": s.start,
            "end": s.end,
            "reference": s.reference,
            "drift": s.drift,
            "moments": s.moments.get(s.reference, {}),
            "latency": s.latency,
            "not_judged": _unjudged(models[name], s),
        }
        for name, s in found.items()
        if s
    }
    screen.answer(windows, screen.rows([heads, *table]) if table else [])
    for name, said in found.items():
        if said is None:
            over = "over" if until is None else f"over by {at}"
            screen.note(f"no window of {name} has been compared yet: that needs a fitted version, and a window that is {over}")
            continue
        screen.note(f"  {name}: {said.start:%Y-%m-%d %H:%M} to {said.end:%Y-%m-%d %H:%M}, against {said.reference}")
        for variant, took in said.latency.items():
            screen.note(f"  {name}, {variant}: {took.n:,} answers, half within {_time(took.p50)}, 99 % within {_time(took.p99)}")
        if unjudged := _unjudged(models[name], said):
            waiting = [each for each in unjudged if each != LABEL or models[name].label.task == "binary"]
            if waiting:
                screen.note(f"  {name}: {', '.join(waiting)} not judged: the first week of {said.reference} is their reference")
            if LABEL in unjudged and LABEL not in waiting:
                what = "names a class" if models[name].label.classes else "is a number"
                screen.note(f"  {name}: label not judged: it {what}, and drift is of a rate of yes and no")


def _line(name: str, shift: Shift, moments: Moments | None) -> tuple[str, ...]:
    mean = "" if moments is None else f"{moments.mean:.4g}"
    deviation = "" if moments is None or moments.variance is None else f"{moments.variance**0.5:.4g}"
    limits = (f"{shift.ks:.3f}", f"{shift.critical:.3f}", f"{shift.floor or 0.0:.3f}")
    return name, *limits, mean, deviation, f"{shift.n:,}", "drift" if excess(shift) > 1 else ""


def _unjudged(model: Model, said: Statistic) -> list[str]:
    """What is watched of the answers, and has no reference, or none yet."""
    from ..policy import ANSWERS, CONTRIBUTIONS, Drift

    monitors = [monitor.inputs for monitor in model.monitors if isinstance(monitor, Drift)] or [()]
    names = [name for name in ANSWERS if any(not inputs or name in inputs for inputs in monitors)]
    return [name for name in names if name not in said.drift and (name != CONTRIBUTIONS or model.explain)]


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


@command(app)
def compare(
    reference: Annotated[Path, typer.Argument(help="A .parquet or .csv file: how it was, in order of time.")],
    current: Annotated[Path, typer.Argument(help="A .parquet or .csv file: how it is.")],
    column: Annotated[
        list[str] | None, typer.Option("--column", help="Compare this column; may be repeated. Default: all.")
    ] = None,
    like: Annotated[
        list[str] | None,
        typer.Option(
            "--like", metavar="COLUMN", help="Compare within it: times by hour of the week, others by value; may be repeated."
        ),
    ] = None,
    alpha: Annotated[float, typer.Option("--alpha", help="How often a table without any change may be called drifted.")] = 0.01,
    floor: Annotated[
        float | None, typer.Option("--floor", help="The least distance that matters, 0 to 1. Default: learnt, 0.05 or more.")
    ] = None,
    multivariate: Annotated[bool, typer.Option("--multivariate", help="Also ask a classifier to tell them apart.")] = False,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page that stands by itself.")] = None,
) -> None:
    """Compare two files: has any column drifted?

    A column has drifted when it differs both significantly (false discovery rate below --alpha over all columns) and
    materially (above its floor: --floor, or what parts of the reference differ from the rest of it). Exit code 0: none has;
    1: one has; 2: nothing could be compared, or an error, as with diff.
    """
    try:
        found, bad = _compared(reference, current, column, like, alpha, floor, multivariate)
        if html is not None:
            write_page(html, found.to_html(f"{reference.name} → {current.name}"))
    except PenstockError as error:
        raise _Trouble(str(error), error.fix) from None
    told = found.described()
    told["bad_cells"] = {side: [each._asdict() for each in cells] for side, cells in bad.items()}
    colour = {"drift": "red", "steady": "green", "unknown": "yellow"}[found.verdict]
    head, *lines = str(found).splitlines()
    screen.answer(told, screen.paint(head, colour), lines)
    for side, cells in bad.items():
        for each in cells:
            screen.note(f"  {side}, {each}")
    if html is not None:
        screen.note(f"-> open {html}")
    if found.verdict != "steady":
        fix = "see its columns:  penstock drift compare ... --html drift.html" if html is None else f"see its columns in {html}"
        raise (PenstockError if found.verdict == "drift" else _Trouble)(found.why, fix)


class _Trouble(PenstockError):
    """Neither drift nor none."""

    exit_code = 2


def _compared(
    reference: Path,
    current: Path,
    columns: list[str] | None,
    like: list[str] | None,
    alpha: float,
    floor: float | None,
    multivariate: bool,
) -> tuple[Comparison, dict[str, list[Bad]]]:
    """The comparison of two files, and the cells of either that are not what their column is."""
    from ..comparison.compare import compare
    from ..frames.tabular import frame_of

    bad: dict[str, list[Bad]] = {"reference": [], "current": []}
    then, now = frame_of(reference, bad["reference"]), frame_of(current, bad["current"])
    options: dict[str, Any] = {"columns": columns or None, "like": like or (), "alpha": alpha, "floor": floor}
    return compare(then, now, multivariate=multivariate, **options), bad
