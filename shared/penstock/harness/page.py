"""Results as one HTML file: no script, no network, nothing beside it. A table of the policies, and the course of each."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from ..pages.document import document
from ..pages.drawing import path
from ..pages.words import escape
from ..report.page import tabled
from ..report.quality import figure, interval, spoken
from ..report.section import Table
from .result import NEITHER, Raised, Result

__all__ = ["page"]

WIDE: Final = 1000
"""Width of a course; heights are pixels."""
ROW: Final = 14
LOSSES: Final = 70
STEPS: Final = 120
"""Points of a curve at most: windows are put together, or it would be a black band."""


def page(model: str, found: Sequence[Result]) -> str:
    """The document. `found` are of one range."""
    first = found[0]
    facts = [("from", f"{first.since:%Y-%m-%d %H:%M}"), ("until", f"{first.until:%Y-%m-%d %H:%M} UTC")]
    facts += [(change.name, f"{change.at:%Y-%m-%d %H:%M}") for change in first.changes]
    worst = max((v for r in found for _, *both in _curve(r) for v in both if v is not None), default=1.0)
    lines = "".join(_line(at, result) for at, result in enumerate(found))
    tiles = "".join(_tile(at, result, worst) for at, result in enumerate(found))
    changes = "".join(f'<th scope="col">{escape(change.name)}</th>' for change in first.changes)
    heads = "".join(
        f'<th scope="col" class="n">{name}</th>'
        for name in ("fits", "by alarm", "promoted", "rolled back", "seconds", *map(spoken, first.shown), "skill", "value")
    )
    body = (
        '<section class="tile index"><h2>Policies</h2><div class="wide"><table><thead><tr><th scope="col">policy</th>'
        '<th scope="col" class="n">alarms</th><th scope="col" class="n">false</th><th scope="col" class="n">a month</th>'
        f"{changes}{heads}</tr></thead><tbody>{lines}</tbody></table></div></section>\n{tiles}"
    )
    return document(model, "replay", facts, body, _HOW, style=_STYLE)


def _line(at: int, result: Result) -> str:
    served = result.measures.get("served", {})
    a_month = result.alarms_per_month if result.false_per_month is None else result.false_per_month
    found = "".join(
        '<td class="missed">missed</td>' if c.delay is None else f"<td>after {c.delay / 3600:,.1f} h by {escape(c.signal)}</td>"
        for c in result.changes
    )

    def measure(name: str) -> str:
        found = served.get(name)
        return "–" if found is None else f'<span title="95 % interval: {interval(found)}">{figure(found.value)}</span>'

    cells = (
        str(result.fits),
        str(result.fits_by_alarm),
        str(result.promotions),
        str(result.rollbacks),
        "–" if result.seconds is None else f"{result.seconds:.1f}",
        *map(measure, result.shown),
        "–" if result.skill is None else f"{result.skill:.3f}",
        "–" if result.value is None else f"{result.value:,.0f}",
    )
    counts = (str(len(result.alarms)), "–" if result.false_alarms is None else str(result.false_alarms), f"{a_month:.2f}")
    before, after = ("".join(f'<td class="n">{cell}</td>' for cell in part) for part in (counts, cells))
    return f'<tr><th scope="row"><a href="#p{at}">{escape(result.policy)}</a></th>{before}{found}{after}</tr>'


def _tile(at: int, result: Result, worst: float) -> str:
    signals = sorted({alarm.signal for alarm in result.alarms}) or ["no alarm"]
    top = ROW * len(signals)
    tall = top + ROW + LOSSES
    parts = [_mark(_x(result, c.at), 0, tall, "change", f"{c.name}: {c.at:%Y-%m-%d %H:%M}") for c in result.changes]
    for row, signal in enumerate(signals):
        parts += [_bar(result, alarm, row * ROW) for alarm in result.alarms if alarm.signal == signal]
    parts += [_mark(_x(result, fit), top + 2, top + ROW - 2, "fit", f"fitted {fit:%Y-%m-%d %H:%M}") for fit in result.fitted]
    parts += [
        _mark(_x(result, moment), top + 2, top + ROW - 2, "promoted", f"in charge {moment:%Y-%m-%d %H:%M}")
        for moment in result.promoted
    ]
    parts += [_losses(result, 1, worst, tall, "prior"), _losses(result, 0, worst, tall, "served")]
    names = "".join(f"<li>{escape(name)}</li>" for name in (*signals, "fits", result.loss))
    label = f"Alarms, fits and {result.loss} of {result.policy} from {result.since:%Y-%m-%d} to {result.until:%Y-%m-%d}"
    key = '<p class="key"><span class="of drift">alarm that found a change, or of which nothing is known</span>'
    key += '<span class="of false">false alarm</span><span class="of fits">fit, and version in charge</span>'
    key += f'<span class="now">{escape(result.loss)}</span><span>of the prior</span></p>'
    return (
        f'<section class="tile" id="p{at}"><h2>{escape(result.policy)} <small>{len(result.alarms)} alarms, '
        f"{result.fits} fits, {result.outcomes:,} outcomes</small></h2>"
        f'<figure><div class="course"><ol>{names}</ol><svg style="height:{tall}px" viewBox="0 0 {WIDE} {tall}" '
        f'preserveAspectRatio="none" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg></div>'
        f"<figcaption><span>{result.since:%Y-%m-%d}</span><span>{result.until:%Y-%m-%d}</span></figcaption></figure>{key}"
        f"{_alarms(result.alarms)}</section>\n"
    )


def _x(result: Result, at: datetime) -> float:
    return WIDE * (at - result.since) / (result.until - result.since)


def _mark(x: float, high: float, low: float, kind: str, said: str) -> str:
    return f'<path class="{kind}" d="M{x:.1f} {high:g}V{low:g}"><title>{escape(said)}</title></path>'


def _bar(result: Result, alarm: Raised, y: float) -> str:
    x, end = max(_x(result, alarm.at), 0.0), min(_x(result, alarm.cleared or result.until), WIDE)
    kind = "labels" if alarm.signal in NEITHER else "false" if alarm.false else "found"
    said = escape(f"{alarm.signal} {alarm.at:%Y-%m-%d %H:%M}" + (f": {', '.join(alarm.inputs)}" if alarm.inputs else ""))
    wide, tall = max(end - x, 2), ROW - 4
    return f'<rect class="{kind}" x="{x:.1f}" y="{y + 2:g}" width="{wide:.1f}" height="{tall}"><title>{said}</title></rect>'


def _curve(result: Result) -> list[tuple[datetime, float | None, float | None]]:
    """End, mean loss and that of the prior, of windows put together until there are STEPS at most."""
    many = -(-len(result.windows) // STEPS) or 1
    found: list[tuple[datetime, float | None, float | None]] = []
    for first in range(0, len(result.windows), many):
        part = result.windows[first : first + many]
        ours = [(w.n, w.loss) for w in part if w.loss is not None]
        theirs = [(w.n, w.prior_loss) for w in part if w.prior_loss is not None]
        found.append((part[-1].end, _mean(ours), _mean(theirs)))
    return found


def _mean(parts: Sequence[tuple[int, float]]) -> float | None:
    n = sum(count for count, _ in parts)
    return sum(count * loss for count, loss in parts) / n if n > 0 else None


def _losses(result: Result, which: int, worst: float, tall: float, kind: str) -> str:
    """From 0 at the foot to the worst of all policies, so that courses can be compared; broken where nothing is known."""
    points = [(_x(result, end), both[which]) for end, *both in _curve(result)]
    drawn = path(points, lambda x: f"{x:.1f}", lambda loss: f"{tall - (LOSSES - 4) * loss / worst:.1f}")
    return f'<path class="{kind}" d="{drawn}"/>' if drawn else ""


def _alarms(alarms: Sequence[Raised]) -> str:
    rows = [
        (
            f"{a.at:%Y-%m-%d %H:%M}",
            "" if a.cleared is None else f"{a.cleared:%Y-%m-%d %H:%M}",
            a.signal,
            a.change or ("false" if a.false else ""),
            ", ".join(a.inputs),
        )
        for a in alarms
    ]
    return tabled(Table(("raised", "cleared", "signal", "of", "inputs"), rows, numbers=9, fold="Alarms")) if rows else ""


_HOW: Final = (
    "Every policy lived through the same events in a platform of its own. A change is found by the first alarm within its reach; "
    "alarms at other times are false, as far as the changes are known; those about labels or groups are neither, nor those that "
    "stood before. Quality is over all outcomes that became known in the range; skill is 1 less the ratio of the loss to that of "
    "the prior, which answers with "
    "recent labels alone. Seconds are of the processor, in the trainer, over the whole run. Made by <code>penstock replay</code>."
)

_STYLE: Final = Path(__file__).with_suffix(".css").read_text(encoding="utf-8")
