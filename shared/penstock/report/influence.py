"""Which inputs move the answers, from the sample of them that is explained."""

from __future__ import annotations

from ..pages.drawing import bars
from ..pages.words import cut, percent
from ..records import Contributed
from ..statistics.quality import added
from .records import Records
from .section import Block, Drawn, Missing, Note, Section, Table

__all__ = ["influence"]

SHOWN = 15


def influence(records: Records) -> Section:
    """The mean size of each input's contribution, of the version that was explained most recently."""
    title, total = "What moves the answers", dict[str, Contributed]()
    newest = ""
    for statistic in records.statistics:
        total = added(total, {v: c for v, c in statistic.contributions.items() if c.n > 0})
        newest = records.champion if records.champion in total else next(iter(sorted(statistic.contributions)), newest)
    found = total.get(newest, Contributed())
    whole = sum(found.absolute.values())
    if not found.n or whole <= 0:
        why = Missing("Explain one in a hundred:", "@ps.model(explain=0.01)")
        what = f"No answer of this period was explained, so it is not known which inputs move them; to know it: {why.fix}."
        return Section("influence", title, what, [why], "unknown")
    order = sorted(found.absolute, key=lambda name: (-found.absolute[name], name))
    rows = [
        (
            cut(name),
            percent(round(1e6 * found.absolute[name] / whole), 1_000_000),
            f"{found.absolute[name] / found.n:.4f}",
            f"{found.signed.get(name, 0.0) / found.n:+.4f}",
        )
        for name in order
    ]
    top = found.absolute[order[0]]
    lines = [(cut(name), found.absolute[name] / top, (row[1], row[3])) for name, row in zip(order[:SHOWN], rows, strict=False)]
    scale = next((r.data.get("explained", {}).get("scale", "") for r in reversed(records.runs) if r.version == newest), "")
    unit = "the unit of the label" if scale == "number" else scale or "the scale of the version"
    to = ", to the class that each answer names" if records.model.label.classes else ""
    blocks: list[Block] = [
        Drawn(bars(lines, "Share of each input in what moves the answers")),
        Table(("input", "share", "mean size", "mean"), rows, fold=f"All {len(rows)} inputs in numbers"),
        Note(f"Contributions are in {unit}{to}."),
    ]
    few = ", ".join(f"{cut(name, 40)} ({row[1]})" for name, row in zip(order[:3], rows, strict=False))
    return Section("influence", title, f"Most: {few}; of {found.n:,} explained answers of {newest}.", blocks)
