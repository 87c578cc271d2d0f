"""Rollouts and refits: what was fitted and why, what was tried, what took charge."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from ..duration import DAY, spoken
from ..picture import cause_of
from ..records import Decision, Run
from .records import Records, day
from .section import Block, Cell, Missing, Note, Section, Table, Tone

__all__ = ["rollouts"]

ORDER: Final = ("fit", "registered", "shadow", "canary", "champion", "retired", "rejected", "rolled_back")
"""What follows from what at one moment."""
TONES: Final[dict[str, Tone]] = {"champion": "good", "rejected": "warn", "rolled_back": "bad"}


def rollouts(records: Records) -> Section:
    """Every fit and every decision of the period, in order."""
    title = "Rollouts and refits"
    decisions = [d for d in records.decisions if d.kind != "snapshot" and records.inside(d.at)]
    fits = [r for r in records.runs if r.kind == "full" and records.inside(r.at)]
    snapshots = sum(r.kind != "full" and records.inside(r.at) for r in records.runs)
    told: list[tuple[datetime, int, tuple[str | Cell, ...]]] = [(d.at, _rank(d.kind), _decision(d)) for d in decisions]
    told += [(run.at, _rank("fit"), _fit(run)) for run in fits]
    told.sort(key=lambda each: each[:2])
    before = [d for d in records.champions if d.at < records.start]
    blocks: list[Block] = []
    if told:
        rows = [row for _, _, row in told]
        blocks.append(Table(("at", "what", "version", "why", "on what"), rows, numbers=9, brief=12))
    if before:
        blocks.append(Note(f"{before[-1].version} was in charge when the period began, since {day(before[-1].at)}."))
    if snapshots:
        blocks.append(Note(f"Beside them an online learner was brought up to date {snapshots} times."))
    if not told and not snapshots:
        blocks.append(Missing("Nothing was fitted or decided.", "penstock status" if not records.champion else ""))
    waits = starving(records)
    ups = [d for d in decisions if d.kind == "champion"]
    back = sum(d.kind == "rolled_back" or bool(d.evidence.get("rolled_back")) for d in decisions)
    said = f"{_count(len(fits), 'full refit')}, {_count(len(ups), 'version')} took charge" + (
        f", {back} rolled back" if back else ""
    )
    said += f"; {records.champion or 'none'} is in charge." + (f" {waits}" if waits else "")
    return Section("rollouts", title, said, blocks, "warn" if back or waits else "")


def starving(records: Records) -> str:
    """That the rollout under way has too few labels to end in time, as a sentence; "" where it has enough, or there is none."""
    last = {d.version: d for d in records.decisions if d.kind != "snapshot"}
    trying = [d for d in last.values() if d.kind in ("shadow", "canary")]
    model, end = records.model, records.heard if records.told is None else min(records.told, records.heard)
    if not trying or not model.rollout:
        return ""
    one = max(trying, key=lambda d: d.at)
    n, stage, began = one.evidence.get("n", 0), one.evidence.get("stage", 0), one.evidence.get("since")
    lasts = model.rollout[min(stage, len(model.rollout) - 1)].lasts
    needed = max((gate.least for gate in model.gates), default=1)
    since = datetime.fromisoformat(str(began)) if began else one.at
    gone = (end - since).total_seconds() * 1e6
    due = gone >= lasts
    if n >= needed or gone <= 0 or (not due and n / gone * lasts >= needed):
        return ""
    word = "should be over after" if due else "is to last"
    rate = n / gone * DAY
    more = f"at {rate:,.3g} a day that takes {spoken_days((needed - n) / rate)} more" if rate else "none comes"
    what = f"The rollout of {one.version} starves: its {one.kind} {word} {spoken(lasts)}"
    return f"{what}, and has {n:,} of the {needed:,} labels needed; {more}; with too few it is given up."


def spoken_days(days: float) -> str:
    """
    >>> spoken_days(0.25), spoken_days(1.04), spoken_days(400)
    ('6 h', '1 d', '400 d')
    """
    return f"{24 * days:.2g} h" if days < 1 else f"{days:.3g} d" if days >= 100 else f"{days:.2g} d"


def _rank(kind: str) -> int:
    return ORDER.index(kind) if kind in ORDER else len(ORDER)


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


def _decision(decision: Decision) -> tuple[str | Cell, ...]:
    kind = "rolled_back" if decision.evidence.get("rolled_back") else decision.kind
    word = f"canary {decision.share:.0%}" if kind == "canary" else kind.replace("_", " ")
    who = "" if decision.actor == "registry" else f" ({decision.actor})"
    why, gate = decision.reason, _gate(decision.evidence)
    if gate and why.startswith(f"{_loss(decision.evidence)} "):  # the registry's words for the same
        why, gate = gate, ""
    return day(decision.at), Cell(word, TONES.get(kind, "")), decision.version, f"{why}{who}"[:200], gate


def _gate(evidence: Mapping[str, Any]) -> str:
    """The paired difference that was known then."""
    n, mean, error = (evidence.get(name) for name in ("n", "mean", "error"))
    if not isinstance(n, int) or not n or not isinstance(mean, float) or not isinstance(error, float):
        return ""
    return f"{_loss(evidence)} {mean:+.4f} ± {1.96 * error:.4f} against {evidence.get('against', '?')}, {n:,} outcomes"


def _loss(evidence: Mapping[str, Any]) -> str:
    return str(evidence.get("loss", "log loss"))


def _fit(run: Run) -> tuple[str | Cell, ...]:
    rows, ends = run.data.get("rows"), [str(run.data[name])[:10] for name in ("from", "to") if name in run.data]
    said = [f"{rows:,} outcomes"] if isinstance(rows, int) else []
    said += [" to ".join(ends)] if ends else []
    said += [f"{run.seconds:.3g} s"] if run.seconds else []
    if not run.version:
        why = run.data.get("refused") or ", ".join(said)
        return day(run.at), Cell("fit, nothing offered", "warn"), "", f"because of {cause_of(run.cause)}", str(why)[:200]
    return day(run.at), "fit", run.version, f"because of {cause_of(run.cause)}", ", ".join(said)
