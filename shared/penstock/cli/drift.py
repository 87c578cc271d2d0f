"""drift: has what is in a table moved away from a reference?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import PenstockError
from . import screen
from .options import command

__all__ = ["app"]

app = typer.Typer(help="Drift: compare tables column by column.", no_args_is_help=True, rich_markup_mode=None)


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
    materially (above its floor: --floor, or what parts of the reference differ from the rest of it). Exit code 1 where one
    has, or where none could be compared.
    """
    from ..comparison.compare import compare as compared
    from ..frames.tabular import Bad, frame_of

    bad: dict[str, list[Bad]] = {"reference": [], "current": []}
    then, now = frame_of(reference, bad["reference"]), frame_of(current, bad["current"])
    found = compared(
        then, now, columns=column or None, like=like or (), alpha=alpha, floor=floor, multivariate=multivariate
    )  # fmt: skip
    if html is not None:
        try:
            html.write_text(found.to_html(f"{reference.name} → {current.name}"), encoding="utf-8")
        except OSError as error:
            raise PenstockError(f"{html} cannot be written: {error.strerror}", "name another file with --html") from None
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
        raise PenstockError(found.why, fix)
