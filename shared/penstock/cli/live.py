"""The live screen of the demo: the loop at a glance on a terminal, plain lines elsewhere, JSON lines for programs."""

from __future__ import annotations

import sys
import time
from collections import deque
from datetime import datetime
from typing import Any

import msgspec

from ..picture import Happening, Picture

__all__ = ["Live"]

COLOURS = {
    "alarm": "red", "fit": "cyan", "champion": "bold green", "rejected": "yellow",
    "rolled back": "red", "shadow": "blue", "canary": "blue", "retired": "dim",
}  # fmt: skip
STEPS = ("alarm", "fit", "registered", "canary", "champion", "retired", "rejected", "rolled back", "shadow")
"""What follows from what at one moment of stream time: topics are heard one after the other, and told as one story."""
NEWEST = 14
EVERY = {"rich": 0.12, "plain": 2.0, "json": 1.0}
"""Seconds between two drawings."""


class Live:
    """Shows a Picture; `update` as often as you like. A context manager."""

    def __init__(self, title: str, start: datetime, end: datetime, total: int, json: bool = False) -> None:
        self.title, self.start, self.end, self.total = title, start, end, total
        self.form = "json" if json else "rich" if sys.stdout.isatty() else "plain"
        self._drawn = 0.0
        self._told = start
        self._said = 0
        self._rates: deque[tuple[float, int]] = deque(maxlen=40)
        self._screen: Any = None

    def __enter__(self) -> Live:
        if self.form == "rich":
            from rich.live import Live as Screen

            self._screen = Screen(refresh_per_second=8)
            self._screen.__enter__()
        elif self.form == "plain":
            print(self.title, flush=True)
        return self

    def __exit__(self, *error: object) -> None:
        if self._screen is not None:
            self._screen.__exit__(*error)

    def tell(self, line: str) -> None:
        """What happens before there is anything to draw."""
        if self.form == "rich":
            self._screen.update(line.strip())
        else:
            self._say(line, {"type": "note", "text": line.strip()})

    def update(self, picture: Picture, published: int, now: datetime, final: bool = False) -> None:
        """Show the state of things; `now` is the stream time published so far."""
        moment = time.monotonic()
        self._rates.append((moment, published))
        if self.form != "rich":
            self._tell(picture)
        if not final and moment - self._drawn < EVERY[self.form]:
            return
        self._drawn = moment
        if self.form == "rich":
            self._screen.update(self._draw(picture, published, now))
            return
        self._told = max(self._told, now)
        fact = {"at": self._told, "published": published, "total": self.total, "per_second": round(self.rate)}
        line = f"{self._told:%Y-%m-%d}  {published:,}/{self.total:,} events  {self.rate:,.0f}/s   {_flow(picture)}"
        self._say(line, {"type": "progress", **fact, **picture.counts})

    @property
    def rate(self) -> float:
        """Events a second over the last drawings."""
        (first, low), (last, high) = self._rates[0], self._rates[-1]
        return (high - low) / (last - first) if last > first else 0.0

    def _tell(self, picture: Picture) -> None:
        new = picture.heard - self._said
        self._said = picture.heard
        for happening in sorted(picture.happenings[-new:] if new else [], key=_place):
            self._told = max(self._told, happening.at)
            fact = {"at": happening.at, "kind": happening.kind, "model": happening.model, "text": happening.text}
            self._say(f"{happening.at:%Y-%m-%d}  {happening.kind:<11} {_text(picture, happening)}", {"type": "happening", **fact})

    def _say(self, line: str, fact: dict[str, Any]) -> None:
        print(msgspec.json.encode(fact).decode() if self.form == "json" else line, flush=True)

    def _draw(self, picture: Picture, published: int, now: datetime) -> Any:
        from rich.console import Group
        from rich.panel import Panel
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        head = Table.grid(expand=True, padding=(0, 2))
        head.add_column(width=12)
        head.add_column(ratio=1)
        head.add_column(justify="right")
        done = (now - self.start) / (self.end - self.start) if self.end > self.start else 1.0
        bar = ProgressBar(total=1.0, completed=min(max(done, 0.0), 1.0))
        head.add_row(f"{now:%d %b %Y}", bar, f"{published:,} events  {self.rate:,.0f}/s")
        facts = Table.grid(expand=True, padding=(0, 2))
        facts.add_column(style="bold", width=12)
        facts.add_column()
        facts.add_row("flow", _flow(picture))
        for model in sorted(set(picture.statistics) | set(picture.champions)):
            facts.add_row(model, _standing(picture, model))
        fits = f"fits {picture.retrains}   snapshots {picture.snapshots}"
        facts.add_row("so far", f"alarms {picture.alarms}   {fits}   promotions {picture.promotions}")
        story = Table.grid(padding=(0, 2))
        for happening in sorted(picture.happenings[-NEWEST:], key=_place):
            style = COLOURS.get(happening.kind, "")
            story.add_row(f"{happening.at:%d %b}", Text(happening.kind, style=style), Text(_short(_text(picture, happening))))
        return Panel(Group(head, "", facts, "", story), title=self.title, border_style="dim")


def _place(happening: Happening) -> tuple[datetime, int]:
    return happening.at, STEPS.index(happening.kind) if happening.kind in STEPS else len(STEPS)


def _standing(picture: Picture, model: str) -> str:
    champion, challenger = picture.champions.get(model), picture.challengers.get(model)
    said = f"champion {champion.version}" if champion else "no model yet"
    if challenger:
        said += f"   {challenger.kind} {challenger.version}"
    newest = next((s for s in reversed(picture.statistics.get(model, [])) if s.log_loss.get("served") is not None), None)
    if newest is not None:
        prior = f" (prior {newest.prior_loss:.3f})" if newest.prior_loss is not None else ""
        said += f"   {newest.loss} of {newest.start:%d %b}: {newest.log_loss['served']:.3f}{prior}"
    return said


def _text(picture: Picture, happening: Happening) -> str:
    """What happened, and to which model where there are several."""
    several = len(picture.topics.project.models) > 1 and happening.model
    return f"{happening.model}: {happening.text}" if several else happening.text


def _short(text: str) -> str:
    return text if len(text) < 96 else text[:93] + "..."


def _flow(picture: Picture) -> str:
    counts = picture.counts
    lag = max(counts.get("scored", 0) - counts.get("predictions", 0), 0)
    return (
        "   ".join(f"{name} {counts.get(name, 0):,}" for name in ("rows", "predictions", "outcomes", "dead letters"))
        + f"   lag {lag:,}"
    )
