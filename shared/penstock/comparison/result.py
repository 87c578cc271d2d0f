"""The result of a comparison, for people and for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from ..errors import PenstockError
from ..mistake import nearest
from ..statistics.drift import Column, Counted, Verdict

if TYPE_CHECKING:
    import pandas as pd

    from .together import Together

__all__ = ["Comparison"]


@dataclass(frozen=True, kw_only=True, repr=False)
class Comparison:
    """The verdict of a table and of its columns. "drift": one column at least has; "unknown": none could be compared."""

    columns: tuple[Column, ...]
    """In the order of the reference."""
    counted: Mapping[str, Counted] = field(repr=False)
    """The columns that were compared, as counts."""
    rows_then: int
    rows_now: int
    like: tuple[str, ...]
    alpha: float
    together: Together | None = None
    """Whether all columns together tell the tables apart; None where it was not asked."""

    @property
    def verdict(self) -> Verdict:
        verdicts = {column.verdict for column in self.columns}
        if "drift" in verdicts or (self.together is not None and self.together.verdict == "drift"):
            return "drift"
        return "steady" if "steady" in verdicts else "unknown"

    @property
    def drifted(self) -> tuple[str, ...]:
        """The columns that have drifted, those first that are furthest above their floor; before them what is not there or of
        another kind."""
        found = [column for column in self.columns if column.verdict == "drift"]
        return tuple(column.name for column in sorted(found, key=lambda c: -c.excess if c.answers else -1e9))

    @property
    def why(self) -> str:
        """The verdict as a sentence."""
        compared = [column for column in self.columns if column.verdict != "unknown"]
        if self.columns and not compared and not (self.rows_then and self.rows_now):
            return f"nothing could be compared: {'there are no rows now' if self.rows_then else 'the reference has no rows'}"
        if not compared:
            return "nothing could be compared" + (f": {self.columns[0].why}" if self.columns else ": there is no column")
        if self.drifted:
            few = ", ".join(self.drifted[:5]) + (f" and {len(self.drifted) - 5} more" if len(self.drifted) > 5 else "")
            return f"drift in {len(self.drifted)} of {len(compared)} columns: {few}"
        if self.verdict == "drift":
            return f"none of {len(compared)} columns has drifted by itself, but all together tell the tables apart"
        return f"no drift in {len(compared)} columns"

    def __getitem__(self, name: str) -> Column:
        for column in self.columns:
            if column.name == name:
                return column
        raise PenstockError(f"no column {name!r} was compared", nearest(name, [column.name for column in self.columns]))

    def __str__(self) -> str:
        head = f"{self.why[0].upper()}{self.why[1:]} ({self.rows_then:,} rows in the reference, {self.rows_now:,} now)"
        order = {name: at for at, name in enumerate(self.drifted)}
        shown = sorted(self.columns, key=lambda column: (order.get(column.name, len(order)), column.verdict == "unknown"))
        width = min(max((len(column.name) for column in shown), default=0), 32)
        lines = [f"  {column.verdict:8} {column.name[:32]:{width}}  {column.why}" for column in shown]
        if self.together is not None:
            lines.append(f"  {self.together.verdict:8} {'(together)':{width}}  {self.together.why}")
        return "\n".join([head, *lines])

    __repr__ = __str__

    def described(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {
            "verdict": self.verdict,
            "why": self.why,
            "rows_then": self.rows_then,
            "rows_now": self.rows_now,
            "alpha": self.alpha,
            "like": list(self.like),
            "drifted": list(self.drifted),
            "columns": msgspec.to_builtins(self.columns),
            "together": msgspec.to_builtins(self.together),
        }

    def to_json(self) -> str:
        return msgspec.json.encode(self.described()).decode()

    def to_pandas(self) -> pd.DataFrame:
        """A row for each column, with its distances."""
        import pandas as pd

        rows = []
        for column in msgspec.to_builtins(self.columns):
            rest = {name: value for name, value in column.items() if name not in ("answers", "distances")}
            rows.append(rest | column["distances"])
        return pd.DataFrame(rows)

    def to_html(self, title: str = "Drift") -> str:
        """One page that stands by itself: no script, no network."""
        from .page import page

        return page(title, self)
