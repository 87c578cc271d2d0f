"""replay: what other policies would have done, over a past range. The machines are imported only when asked for."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import screen
from .options import moment, project_settings, write_page

if TYPE_CHECKING:
    from ..harness.result import Change, Result

__all__ = ["replay"]

MACHINE = "penstock.services.replay"


def replay(
    model: Annotated[str, typer.Argument(help="The model whose policy is tried.", show_default=False)],
    policy: Annotated[
        list[Path] | None, typer.Option("--policy", metavar="FILE.py", help="Policies to try beside its own; may be repeated.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="Report from then on; what came before is lived through, too.")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="Replay up to then.")] = None,
    change: Annotated[
        list[str] | None,
        typer.Option("--change", metavar="[NAME=]TIME", help="When something is known to have changed; may be repeated."),
    ] = None,
    within: Annotated[str, typer.Option(metavar="LENGTH", help="An alarm so long after a change has found it.")] = "30d",
    folder: Annotated[
        Path | None,
        typer.Option("--input", metavar="DIR", help="Events from files, as simulate reads them; default: the offline tables."),
    ] = None,
    utc: Annotated[bool, typer.Option("--utc", help="Times without a zone are UTC (else such rows are refused).")] = False,
    as_served: Annotated[
        bool, typer.Option("--as-served", help="Judge the answers that were given, from the counts in the log: monitors only.")
    ] = False,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page that stands by itself.")] = None,
) -> None:
    """Try other policies on what has been.

    Runs the whole loop over past events, once for each policy, in this process: how soon alarms find what has changed, which are
    false, how often it retrains, how good the answers are, what that costs. A policy file is Python that names some:

        weekly = ps.Policy(retrain=ps.every("7d", on="60d"))

    The same events give the same decisions, byte for byte; their digest is in --json.
    """
    from ..duration import micros
    from ..harness.page import page
    from ..harness.policies import policies

    settings = project_settings()
    tried = policies(policy or [], change or [])
    found: list[Result] = import_module(MACHINE).replay(
        settings,
        model,
        tried,
        since=moment(since, "--from"),
        until=moment(until, "--until"),
        within=micros(within),
        folder=folder,
        utc=utc,
        as_served=as_served,
    )
    if html is not None:
        write_page(html, page(model, found))
    first = found[0]
    head = f"{model}, {first.since:%Y-%m-%d %H:%M} to {first.until:%Y-%m-%d %H:%M}"
    screen.answer({"model": model, "policies": found}, head, screen.rows(table(found)))
    if not first.changes:
        screen.note("  no change is known in it, so no alarm can be called false:  --change TIME")
    if html is not None:
        screen.note(f"-> open {html}")


def table(found: list[Result]) -> list[tuple[str, ...]]:
    """One line a policy; columns that say nothing of any are left out."""
    from ..report.quality import spoken

    heads = ("policy", "alarms", "false", "a month", *(c.name for c in found[0].changes), "fits", "by alarm", "promoted")
    lines = [(*heads, "rolled back", "seconds", *map(spoken, found[0].shown), "skill", "value")]
    lines += [_line(each) for each in found]
    kept = [at for at in range(len(lines[0])) if at == 0 or any(line[at] not in ("", "–") for line in lines[1:])]
    return [tuple(line[at] for at in kept) for line in lines]


def _line(result: Result) -> tuple[str, ...]:
    from ..report.quality import figure

    served = result.measures.get("served", {})
    return (
        result.policy,
        str(len(result.alarms)),
        _number(result.false_alarms, "d"),
        f"{result.alarms_per_month if result.false_per_month is None else result.false_per_month:.2f}",
        *map(_found, result.changes),
        str(result.fits),
        str(result.fits_by_alarm),
        str(result.promotions),
        str(result.rollbacks),
        _number(result.seconds, ".1f"),
        *(figure(served[name].value) if name in served else "–" for name in result.shown),
        _number(result.skill, ".3f"),
        _number(result.value, ",.0f"),
    )


def _found(change: Change) -> str:
    return "missed" if change.delay is None else f"after {_length(change.delay)} by {change.signal}"


def _length(seconds: float) -> str:
    """Roughly.

    >>> _length(90), _length(7200), _length(3.5 * 86_400)
    ('2m', '2h', '3.5d')
    """
    return (
        f"{seconds / 60:.0f}m"
        if seconds < 3600
        else f"{seconds / 3600:.3g}h"
        if seconds < 172_800
        else f"{seconds / 86_400:.3g}d"
    )


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else f"{value:{form}}"
