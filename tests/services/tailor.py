"""Flights of `air`, asked about with functions (`seams`) around the model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingClassifier
from tests.services.air import (
    CLOCK,
    EVENT,
    LABEL,
    MODELS,
    ROWS,
    START,
    TOPICS,
    Door,
    Flight,
    Origin,
    World,
    batch,
    flight,
    long,
    talking,
)  # fmt: skip
from tests.services.seams import DIES, HANGS, INFINITE, RAISES, centre, cut, double, hold, short

import penstock as ps
from penstock.artefact import Artefacts
from penstock.label import Label
from penstock.log import Send
from penstock.model import Model
from penstock.project import Project
from penstock.records import Candidate, Code, Decision, Row
from penstock.scoring.around import Around, Functions, Plan
from penstock.scoring.decisions import keep
from penstock.services.inference.gateway.api import gateway
from penstock.services.inference.meters import Meters
from penstock.services.inference.sessions import Sessions
from penstock.services.inference.shard import ScoringShard
from penstock.services.trainer.fitting import fit
from penstock.store import Saved
from penstock.topics import Topics

Floats = npt.NDArray[np.float64]


@ps.model(
    scores=Flight,
    features=[Origin, Flight.distance, Flight.night, Flight.seats],
    label=LABEL,
    before=cut,
    after=hold,
    explain=1.0,
)
def late() -> ps.Learner:
    return ps.Learner(batch=HistGradientBoostingClassifier(max_iter=8))


PROJECT = ps.Project("air", [late, long])
OTHERS: Final = (short, double, centre)
"""Functions of this file that no model declares, as one leaves them there that versions were fitted with."""


def rows(n: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Inputs of `late`, some of them missing."""
    drawn = np.random.default_rng(seed)
    found = (drawn.normal(size=(n, 5)) * 100).astype(np.float32)
    found[:, 3] = drawn.random(n) < 0.5
    found[drawn.random(found.shape) < 0.1] = np.nan
    found[:, 2:4] = np.nan_to_num(found[:, 2:4])
    return found


class Tailor:
    """A learner fitted with the functions, registered as the trainer does; and what it answers, by plain calls."""

    def __init__(self, folder: Path) -> None:
        self.artefacts = Artefacts(folder)
        self.learner = HistGradientBoostingClassifier(max_iter=30, learning_rate=0.3)
        functions = Functions(Plan.of(late))
        around = functions.declared() or Around()
        seen = rows(500)
        labels = np.nan_to_num(seen[:, 2]) > np.random.default_rng(1).normal(size=500) * 50
        made = fit(self.learner, "late", late.inputs, seen, labels, around=around)
        self.stored, self.codes, self.metrics = self.artefacts.put(made.onnx, "onnx"), around.codes, made.metrics
        functions.close()

    def decision(self, codes: dict[str, Code] | None = None, version: str = "v1", kind: str = "champion") -> Decision:
        candidate = Candidate(
            id=f"c-{version}", model="late", version=version, kind="full", at=START, artefact=self.stored,
            inputs=list(late.inputs), weights={}, edges={}, reference={}, metrics={}, run="r", fingerprint="f",
            functions=self.codes if codes is None else codes,
        )  # fmt: skip
        return Decision(
            id=f"{kind}-{version}", model="late", kind=kind, version=version, at=START, actor="registry", reason="", share=1.0,
            expected="", evidence={}, candidate=candidate,
        )  # fmt: skip

    def answer(self, rows: npt.NDArray[np.float32]) -> Floats:
        """By the learner itself, its functions called in this process."""
        wide = rows.astype(np.float64)
        seen = cut(rows, wide[:, 2], wide[:, 3])["X"]
        found: Floats = hold(self.learner.predict_proba(seen)[:, 1], wide[:, 3])["score"]
        return found


def other(**changes: Any) -> Project:
    """The project with another model of that name."""
    label: Label = LABEL
    changed: Model = replace(late, label=label, **changes)
    return ps.Project("air", [changed, long])


SAYS = {
    RAISES: ("failed", "cut failed with ValueError; the server's log says why"),
    HANGS: ("failed", "cut did not answer within 1 s"),
    DIES: ("failed", "cut died of these values: its process was killed by SIGKILL"),
    INFINITE: ("failed", "cut gave an infinite value"),
    -20_000.0: ("schema", "cut: no flight is that short"),
}


def said(tailored: Tailor, **changes: Any) -> Send:
    return Send(TOPICS.models, b"late/champion", msgspec.json.encode(tailored.decision(**changes)))


class Stream:
    """The shard of the stream, with a version on duty."""

    def __init__(self, tailored: Tailor, project: Project = PROJECT, **changes: Any) -> None:
        self.meters = Meters()
        self.sessions = Sessions(tailored.artefacts, self.meters)
        self.shard = ScoringShard(Topics(project, 1), 0, self.sessions, self.meters, ["feature_store.0"])
        self.shard.open(Saved())
        self._next, self._flights = {MODELS: 0, CLOCK: 0, ROWS: 0}, 0
        self.take(said(tailored, **changes))

    def take(self, *sends: Send) -> list[Send]:
        batches = []
        for place in (MODELS, ROWS):
            if mine := [send for send in sends if send.topic == place.topic]:
                batches.append(batch(place, self._next[place], mine))
                self._next[place] += len(mine)
        self.shard.take(batches, 0.0)
        effects = self.shard.step([])
        return [] if effects is None else effects.sends

    def flights(self, many: int, **changes: Any) -> list[Send]:
        """The next flights, which nobody has asked about yet."""
        self._flights += many
        return [flight(n, **changes) for n in range(self._flights - many, self._flights)]

    def close(self) -> None:
        self.sessions.close()


def inputs_of(sent: Send) -> dict[str, float | None]:
    row = msgspec.json.decode(sent.value or b"", type=Row)
    event, features = json.loads(bytes(row.event)), json.loads(bytes(row.features))
    return {n: features[n] if n in features else event.get(n.partition(".")[2]) for n in late.inputs}


def matrix(rows: Sequence[dict[str, float | None]]) -> Any:
    return np.array([[np.nan if v is None else float(v) for v in row.values()] for row in rows], np.float32)


def data_of(tailored: Tailor, **changes: Any) -> Path:
    """A data folder in which a run in one process left the decision."""
    decided = said(tailored, **changes)
    keep(tailored.artefacts.root, TOPICS.models, {decided.key or b"": decided.value or b""})
    return tailored.artefacts.root.parent


def door(tailored: Tailor, talk: Callable[[httpx.AsyncClient], Awaitable[None]]) -> Door:
    """A gateway of the project with functions."""
    world: Any = World.__new__(World)
    world.artefacts = tailored.artefacts
    found = Door(world)

    async def whole() -> None:
        app = gateway(Topics(PROJECT, 1), found.log, found.sessions, found.meters, found.look)
        await found.log.create(TOPICS.all())
        await found.log.send([said(tailored)])
        async with talking(app) as client, asyncio.timeout(60):
            while (await client.get("/v2/models/late/ready")).status_code != 200:
                await asyncio.sleep(0.01)
            await talk(client)

    asyncio.run(whole())
    found.sessions.close()
    return found


def event(n: int, **changes: Any) -> dict[str, Any]:
    return {**EVENT, "flight": f"e{n}", **changes}
