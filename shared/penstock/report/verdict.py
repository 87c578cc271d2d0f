"""The verdict of a report: one sentence, and whether it is good news."""

from __future__ import annotations

from .alarms import standing
from .labels import coverage
from .quality import compared, headline, judged
from .records import Records
from .section import Tone

__all__ = ["verdict"]

_RANK: dict[Tone, int] = {"": 0, "good": 0, "unknown": 1, "warn": 2, "bad": 3}


def verdict(records: Records) -> tuple[Tone, str]:
    """What whoever answers for the model should know first: is it better than no model, does an alarm stand, do labels come."""
    cohorts = judged(records)
    name = headline(cohorts)
    tone: Tone = "unknown"
    if not records.champion:
        said = "No version is in charge yet."
    elif not name:
        said = f"{records.champion} is in charge, and no label tells yet how good its answers are."
    else:
        tone, said = compared(records, cohorts, name)
        said = f"{records.champion} is in charge. {said}"
    still = standing(records)
    if still:
        tone = max(tone, "warn", key=lambda each: _RANK[each])
        names = ", ".join(one.told for one in still[:3])
        said += f" {len(still)} alarm{' stands' if len(still) == 1 else 's stand'}: {names}."
    else:
        said += " No alarm stands."
    done = [pair.known for pair in records.cohorts if pair.known.complete]
    answers, given, silent, _, _ = coverage(done)
    if answers and given + silent < 0.5 * answers:
        tone = max(tone, "warn", key=lambda each: _RANK[each])
        said += f" Only {(given + silent) / answers:.0%} of the answers were ever labelled."
    return tone, said
