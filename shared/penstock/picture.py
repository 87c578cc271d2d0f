"""The loop at a glance, folded from topics alone: what the demo's screen and the dashboard show."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from .log import Batch, Log, Partition
from .records import Alarm, Decision, Run, Statistic
from .topics import Topics

__all__ = ["Happening", "Picture"]

NEWEST = 200
"""Happenings kept; the topics hold the rest."""


@dataclass(frozen=True)
class Happening:
    """Something people want to see: an alarm, a fit, a decision."""

    at: datetime
    kind: str
    model: str
    text: str


@dataclass
class Picture:
    """Follow the topics with `watch`, then ask. All times are stream time."""

    topics: Topics
    happenings: list[Happening] = field(default_factory=list)
    statistics: dict[str, list[Statistic]] = field(default_factory=dict)
    champions: dict[str, Decision] = field(default_factory=dict)
    challengers: dict[str, Decision | None] = field(default_factory=dict)
    open_alarms: dict[tuple[str, str], Alarm] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    now: datetime | None = None
    alarms: int = 0
    retrains: int = 0
    promotions: int = 0
    snapshots: int = 0
    heard: int = 0
    """Happenings so far, those no longer kept included."""
    _reader: Any = None
    _seen: set[str] = field(default_factory=set)

    async def watch(self, log: Log) -> None:
        """Read what is new since the last call."""
        if self._reader is None:
            names = [self.topics.alarms, self.topics.runs, self.topics.models] if self.topics.project.models else []
            names += [self.topics.statistics(m.name) for m in self.topics.project.models]
            self._reader = await log.reader({Partition(name, 0): 0 for name in names})
        while batches := await self._reader.read(2000, 0):
            for batch in batches:
                self._hear(batch)
        await self._count(log)

    async def _count(self, log: Log) -> None:
        """Records per stage, from the ends of the topics."""
        project = self.topics.project
        groups = {
            "events": [e.topic for e in project.events],
            "rows": [self.topics.rows(e) for e in project.topology.reads],
            "predictions": [self.topics.predictions(m.name) for m in project.models],
            "outcomes": [self.topics.outcomes(m.name) for m in project.models],
            "dead letters": [self.topics.dead_letters(e.topic) for e in project.events],
        }
        for name, topics in groups.items():
            self.counts[name] = sum((await log.ends(topics)).values()) if topics else 0
        self.counts["scored"] = sum((await log.ends([e.topic for e in project.topology.reads])).values())

    def _hear(self, batch: Batch) -> None:
        topic = batch.partition.topic
        for value in batch.values:
            if value is None:
                continue
            if topic == self.topics.alarms:
                self._alarm(msgspec.json.decode(value, type=Alarm))
            elif topic == self.topics.runs:
                self._run(msgspec.json.decode(value, type=Run))
            elif topic == self.topics.models:
                self._decision(msgspec.json.decode(value, type=Decision))
            else:
                statistic = msgspec.json.decode(value, type=Statistic)
                self.statistics.setdefault(statistic.model, []).append(statistic)
                self.now = max(self.now or statistic.end, statistic.end) if statistic.end.year < 9000 else self.now

    def _alarm(self, alarm: Alarm) -> None:
        if alarm.id + alarm.state in self._seen:
            return
        self._seen.add(alarm.id + alarm.state)
        if alarm.state == "raised":
            self.alarms += 1
            self.open_alarms[alarm.model, alarm.signal] = alarm
        elif alarm.state == "cleared":
            self.open_alarms.pop((alarm.model, alarm.signal), None)
        if alarm.state != "held":
            self._say(alarm.at, "alarm", alarm.model, f"{alarm.signal} {alarm.state}: {_evidence(alarm.evidence)}")

    def _run(self, run: Run) -> None:
        if run.id in self._seen:
            return
        self._seen.add(run.id)
        if run.kind == "full":
            self.retrains += 1
            self._say(run.at, "fit", run.model, f"fitted on {run.data.get('rows', '?')} outcomes because of {run.cause}")
        else:
            self.snapshots += 1

    def _decision(self, decision: Decision) -> None:
        if decision.kind == "champion":
            self.champions[decision.model] = decision
        if decision.kind in ("shadow", "canary"):
            self.challengers[decision.model] = decision
        elif decision.kind in ("champion", "rejected", "retired", "rolled_back"):
            self.challengers[decision.model] = None
        if decision.id in self._seen or decision.kind == "snapshot":
            return
        self._seen.add(decision.id)
        self.promotions += decision.kind == "champion" and bool(decision.expected)
        self._say(decision.at, decision.kind.replace("_", " "), decision.model, f"{decision.version}: {decision.reason}")

    def _say(self, at: datetime, kind: str, model: str, text: str) -> None:
        self.heard += 1
        self.happenings.append(Happening(at, kind, model, text))
        del self.happenings[:-NEWEST]


def _evidence(evidence: dict[str, Any]) -> str:
    """The first few facts of an alarm, short enough for a line."""
    parts = []
    for name, value in list(evidence.items())[:3]:
        if isinstance(value, float):
            parts.append(f"{name} {value:.3g}")
        elif isinstance(value, list):
            parts.append(f"{name} {', '.join(str(v.get('input', v)) if isinstance(v, dict) else str(v) for v in value[:3])}")
        elif isinstance(value, dict):
            parts.append(f"{name} {', '.join(list(value)[:3])}")
        else:
            parts.append(f"{name} {value}")
    return "; ".join(parts)
