"""The report of a model: its sections in their order, and the verdict over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from . import (
    alarms,
    calibration,
    drifting,
    examples,
    expected,
    groups,
    influence,
    judged,
    labels,
    quality,
    rollouts,
    running,
    slices,
    unseen,
    versions,
)
from .records import Records, day
from .section import Facts, Missing, Note, Section, Table, Tone, words_of
from .verdict import verdict

__all__ = ["SECTIONS", "Report", "report_of"]

SECTIONS: Final[tuple[Callable[[Records], Section], ...]] = (
    quality.over_time,
    versions.versions,
    calibration.calibration,
    groups.groups,
    slices.slices,
    expected.expected,
    drifting.drift,
    unseen.unseen,
    alarms.alarms,
    labels.labels,
    judged.judged,
    influence.influence,
    rollouts.rollouts,
    examples.examples,
    running.running,
)
"""In the order in which they are read."""


@dataclass(frozen=True)
class Report:
    """A report, ready to be written."""

    records: Records
    tone: Tone
    said: str
    """The verdict, a sentence."""
    sections: Sequence[Section]

    @property
    def title(self) -> str:
        return f"{self.records.project}: {self.records.model.name}"

    @property
    def head(self) -> list[tuple[str, str]]:
        """What it is of."""
        records = self.records
        answers, given, silent, _, _ = labels.coverage([known for _, known in records.cohorts])
        return [
            ("period", f"{day(records.start)} to {day(records.until)}"),
            ("known by", day(records.heard)),
            ("champion", records.champion or "none"),
            ("answers", f"{answers:,}"),
            ("with a label", f"{given:,}"),
            *([("silent, taken as declared", f"{silent:,}")] if silent else []),
            ("outcomes that count", f"{sum(map(quality.outcomes, records.cohorts)):,}"),
        ]

    def described(self) -> dict[str, Any]:
        """For programs."""
        records = self.records
        return {
            "project": records.project,
            "model": records.model.name,
            "start": records.start,
            "until": records.until,
            "known_at": records.known_at,
            "heard": records.heard,
            "champion": records.champion,
            "verdict": self.tone,
            "said": self.said,
            "sections": [_described(section) for section in self.sections],
        }

    def to_html(self) -> str:
        """A page that stands by itself."""
        from .page import page

        return page(self)

    def to_markdown(self) -> str:
        """A short form, for a pull request."""
        from .markdown import markdown

        return markdown(self)


def report_of(records: Records) -> Report:
    """The report of what was recorded. Pure: the same records give the same bytes."""
    tone, said = verdict(records)
    return Report(records, tone, said, [section(records) for section in SECTIONS])


def _described(section: Section) -> dict[str, Any]:
    tables = [b for b in section.blocks if isinstance(b, Table)]
    return {
        "name": section.name,
        "tone": section.tone,
        "said": section.said,
        "facts": {name: value for b in section.blocks if isinstance(b, Facts) for name, value in b.pairs},
        "tables": [{"heads": t.heads, "rows": [[words_of(cell) for cell in row] for row in t.rows]} for t in tables],
        "notes": [b.text for b in section.blocks if isinstance(b, Note)],
        "missing": [{"what": b.what, "fix": b.fix} for b in section.blocks if isinstance(b, Missing)],
    }
