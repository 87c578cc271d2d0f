"""The loop at a glance, folded from topics alone: what the demo's screen and the dashboard show. Its memory is bounded."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec
from msgspec import UNSET

from .evidence import summary
from .log import Batch, Log, Partition, Reader
from .records import Alarm, Decision, Run, Statistic
from .topics import Topics

__all__ = ["WINDOWS", "Happening", "Picture", "cause_of", "stages"]

NEWEST = 1_000
"""Happenings kept; the topics hold the rest."""

WINDOWS = 2_000
"""Closed windows kept of each model: five years of days."""

LINE = 500
"""Characters kept of what a happening says: people write reasons, and may write a book."""

KNOWN = 10_000
"""Ids kept to drop what comes twice; a repeat follows within the records of one step."""


@dataclass(frozen=True)
class Happening:
    """Something people want to see: an alarm, a fit, a decision."""

    at: datetime
    kind: str
    model: str
    text: str
    state: str = ""
    """Of an alarm: raised or cleared; of a run: the version it offered; of a champion: promoted or rolled back."""


def stages(topics: Topics) -> dict[str, list[str]]:
    """The topics behind each count, in the order in which data flows."""
    project = topics.project
    return {
        "events": [event.topic for event in project.events],
        "rows": [topics.rows(event) for event in project.topology.reads],
        "predictions": [topics.predictions(model.name) for model in project.models],
        "outcomes": [topics.outcomes(model.name) for model in project.models],
        "dead letters": [topics.dead_letters(event.topic) for event in project.events],
        "scored": [event.topic for event in project.topology.reads],
    }


@dataclass(eq=False)
class Picture:
    """Follow the topics with `watch`, then ask. All times are stream time.

    `statistics` hold the newest windows without the bins of their scores; `ends` the records written per topic so far.
    """

    topics: Topics
    happenings: list[Happening] = field(default_factory=list)
    """In the order in which they were heard; topics are heard one after the other when there is much to catch up with."""
    statistics: dict[str, list[Statistic]] = field(default_factory=dict)
    champions: dict[str, Decision] = field(default_factory=dict)
    challengers: dict[str, Decision | None] = field(default_factory=dict)
    online: dict[str, Decision] = field(default_factory=dict)
    """The newest snapshot of the online learner that answers too."""
    open_alarms: dict[tuple[str, str], Alarm] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    now: datetime | None = None
    alarms: int = 0
    retrains: int = 0
    promotions: int = 0
    snapshots: int = 0
    heard: int = 0
    """Happenings so far, those no longer kept included."""
    read: int = 0
    """Records read so far; when it stands still, so does everything but the counts."""
    behind: int = 0
    """Records that were there at the last `watch` and are still to be read."""
    ends: dict[str, int] = field(default_factory=dict)
    unreadable: int = 0
    flaw: str = ""
    """Where the newest unreadable record lies, and what is wrong with it."""
    _reader: Reader | None = None
    _at: dict[Partition, int] = field(default_factory=dict)
    _seen: dict[str, None] = field(default_factory=dict)

    async def watch(self, log: Log) -> None:
        """Read what is new since the last call. LogError: the log is away, or (Gap) lost what was to be read next."""
        if self._reader is None:
            names = [self.topics.alarms, self.topics.runs, self.topics.models] if self.topics.project.models else []
            names += [self.topics.statistics(m.name) for m in self.topics.project.models]
            self._at = await log.begins(names)
            self._reader = await log.reader(self._at)
        while batches := await self._reader.read(2000, 0):
            for batch in batches:
                self._hear(batch)
        await self._count(log)

    async def close(self) -> None:
        """Stop reading; what was folded stays."""
        if self._reader is not None:
            await self._reader.close()
            self._reader = None

    async def _count(self, log: Log) -> None:
        """Records per topic and stage, from the ends of the topics."""
        ends = await log.ends([topic.name for topic in self.topics.all()])
        self.behind = sum(max(ends[partition] - at, 0) for partition, at in self._at.items())
        self.ends = {}
        for partition, end in ends.items():
            self.ends[partition.topic] = self.ends.get(partition.topic, 0) + end
        self.counts = {name: sum(self.ends[topic] for topic in topics) for name, topics in stages(self.topics).items()}

    def _hear(self, batch: Batch) -> None:
        self._at[batch.partition] = batch.next
        for offset, key, value in zip(batch.offsets, batch.keys, batch.values, strict=True):
            self.read += 1
            try:
                self._take(batch.partition.topic, key, value)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:  # its service says so; here it is one not shown
                self.unreadable += 1
                self.flaw = f"{batch.partition.topic}/{batch.partition.number} record {offset}: {error}"[:300]

    def _take(self, topic: str, key: bytes | None, value: bytes | None) -> None:
        decode = msgspec.json.decode
        if topic == self.topics.models:
            self._decision((key or b"").decode(), None if value is None else decode(value, type=Decision))
        elif value is None:
            return
        elif topic == self.topics.alarms:
            self._alarm(decode(value, type=Alarm))
        elif topic == self.topics.runs:
            self._run(decode(value, type=Run))
        else:
            self._statistic(decode(value, type=Statistic))

    def _new(self, name: str) -> bool:
        """Whether this is said for the first time."""
        if name in self._seen:
            return False
        self._seen[name] = None
        if len(self._seen) > KNOWN:
            del self._seen[next(iter(self._seen))]
        return True

    def _statistic(self, statistic: Statistic) -> None:
        if not self._new(f"window {statistic.id}"):
            return
        none: dict[str, Any] = {"bins_true": [], "bins_false": [], "errors": UNSET, "confusion": UNSET}
        quality = {v: msgspec.structs.replace(q, **none) for v, q in statistic.quality.items()}
        kept = self.statistics.setdefault(statistic.model, [])
        kept.append(msgspec.structs.replace(statistic, quality=quality))
        del kept[:-WINDOWS]
        if statistic.end.year < 9000:
            self.now = max(self.now or statistic.end, statistic.end)

    def _alarm(self, alarm: Alarm) -> None:
        if not self._new(alarm.id + alarm.state):
            return
        self.alarms += alarm.state == "raised"
        if alarm.state == "cleared":
            self.open_alarms.pop((alarm.model, alarm.signal), None)
        else:
            self.open_alarms[alarm.model, alarm.signal] = alarm  # held has the newest evidence
        if alarm.state != "held":
            text = f"{alarm.signal} {alarm.state}: {summary(alarm.evidence)}"
            self._say(alarm.at, "alarm", alarm.model, text, alarm.state)

    def _run(self, run: Run) -> None:
        if not self._new(run.id):
            return
        if run.kind == "full":
            self.retrains += 1
            text = f"fitted on {run.data.get('rows', '?')} outcomes because of {cause_of(run.cause)}"
            if not run.version:
                text += f", offered nothing: {run.data.get('refused', 'no reason given')}"
            self._say(run.at, "fit", run.model, text, run.version)
        else:
            self.snapshots += 1
            why = str(run.data.get("refused", ""))
            # nothing was there to learn (0 rows) is how it begins; any other reason stays, and is said once
            if not run.version and why and run.data.get("rows") != 0 and self._new(f"refused {run.model} {why}"):
                self._say(run.at, "fit", run.model, f"the online learner offered nothing: {why}")

    def _decision(self, key: str, decision: Decision | None) -> None:
        model, _, alias = key.partition("/")
        if alias == "challenger":
            self.challengers[model] = decision
        if decision is None:
            return
        if alias == "champion":
            self.champions[model] = decision
        elif alias == "online":
            self.online[model] = decision
        if decision.kind == "snapshot" or not self._new(decision.id):
            return
        back = "rolled_back" in decision.evidence
        self.promotions += decision.kind == "champion" and bool(decision.expected) and not decision.evidence.get("rolled_back")
        state = ("rolled back" if back else "promoted") if decision.kind == "champion" else ""
        text = f"{decision.version}: {decision.reason}"
        self._say(decision.at, decision.kind.replace("_", " "), decision.model, text, state)

    def _say(self, at: datetime, kind: str, model: str, text: str, state: str = "") -> None:
        self.heard += 1
        self.happenings.append(Happening(at, kind, model, text[:LINE], state))
        del self.happenings[:-NEWEST]


def cause_of(cause: str) -> str:
    """Why a job was started, in words; causes are `alarm:<id>`, `schedule.<n>:<id>` and `command:<id>`.

    >>> cause_of("alarm:late/drift/2013-02-09T00:00:00+00:00/raised"), cause_of("schedule.0:late/2013-02-11T00:00:00+00:00")
    ('the drift alarm of 2013-02-09', 'its schedule')
    """
    kind, _, rest = cause.partition(":")
    parts = rest.split("/")
    if kind == "alarm" and len(parts) > 2:
        return f"the {parts[1]} alarm of {parts[2][:10]}"
    return "its schedule" if kind.startswith("schedule") else f"the {kind} {rest}"
