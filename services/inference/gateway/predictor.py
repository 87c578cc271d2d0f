"""A predictor: one model, asked about events over HTTP. What is asked in one turn of the event loop goes together all the way.

questions of a turn -> features of all in one round trip -> one run of the model -> one send -> each has its answer

While features are on their way, what comes in is the next turn: a lone question waits for nothing, and the busier the
server, the larger its turns. An id that was answered is answered again from memory: the newest `REMEMBERED` of this process.
Older ones, and those that another process or an earlier life of this one answered, are answered anew; their records have the
same `ce_source` and `ce_id` as the first, which is the one that counts.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from hashlib import blake2b
from operator import attrgetter
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import structlog

from penstock.contributions.version import Explanation
from penstock.errors import PenstockError
from penstock.event import Event
from penstock.log import Send
from penstock.model import Model
from penstock.online.readings import Readings
from penstock.records.answers import served
from penstock.runtime.outbox import FROM, SEQUENCE
from penstock.runtime.refusals import Failed, refusal
from penstock.scoring.answers import NOBODY, Scored, Serving, score
from penstock.store import StoreError

from ..desk import Desk
from ..explainers import Explainers
from ..meters import Meters
from ..open_inference.batching import LONG, Overloaded
from ..rows import Values, matrix, segmented
from ..sessions import Member
from .onduty import LATER, nobody
from .recorder import Recorder

__all__ = ["VARIANTS", "Look", "Predictor", "Question", "Told"]

Look = Callable[[Event, Sequence[Any]], Awaitable[Readings]]
"""Reads the features of decoded events, a row for each (`OnlineFeatures.rows`). Raises StoreError when the store is away."""

REMEMBERED: Final = 10_000
"""Ids of answers, 10 MB: far more than a client repeats after a time-out."""
TOGETHER: Final = 500
"""Events of one turn; what is computed for more would hold the others up (`reader._BRIEF`)."""
ABREAST: Final = 2
"""Turns that wait for features at the same time: while one is computed, the store works for the other."""
PATIENCE: Final = 1.0
"""Seconds that a question may wait for its turn; while the oldest has waited longer, no other is let in."""
AWAY: Final = 1.0
"""Seconds for which a store that failed is not asked: else every turn would wait for it."""
LARGEST: Final = 10
"""Contributions that an explanation names."""
EXPLAINED: Final = 1_000
"""Answers that may wait for their explanation at the same time, as many as one request may have: 2 s of work for 100 trees (a
snapshot mixed with them is linear, and takes a hundredth)."""
VARIANTS: Final = ("champion", "challenger", "probation")

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Question:
    """An event to answer. `trace` is a W3C traceparent, or empty."""

    event: Any
    id: str
    entity: str
    moment: datetime
    trace: str = ""
    explain: bool = False


class Told(msgspec.Struct, frozen=True, omit_defaults=True):
    """An answer as it is given. `features_status` has each view; `trace` is a trace id, or empty. Where an explanation was asked
    for and could not be made, `unexplained` says why: the answer stands, and is recorded."""

    id: str
    score: float
    version: str
    variant: str
    scores: dict[str, float]
    features_status: dict[str, str]
    trace: str
    explanation: Explanation | None = None
    """Of the version that counted most of those that can be explained; in a mixed answer it need not be the one that is named."""
    also: list[Explanation] = []
    """Of the others that counted in it, the weightiest first."""
    weights: dict[str, float] = {}
    """How much each that is explained counted, where there are several."""
    unexplained: str = ""
    answer: str = ""
    """The class that is most probable, where the label is one of several; `score` is its probability."""
    probabilities: dict[str, float] = {}
    """Then also of every class."""


class _Waiting(msgspec.Struct, gc=False):
    question: Question
    told: asyncio.Future[Told]
    since: float


class Predictor:
    """Answers questions about the event that `desk.model` scores. Use it from one event loop.

    `source` is the `ce_source` of its records. `demanding`: without the online store nothing is answered; else events are
    answered as those of entities of which nothing is known, if the version on duty takes missing values.
    """

    def __init__(
        self,
        desk: Desk,
        look: Look,
        recorder: Recorder,
        source: bytes,
        meters: Meters,
        explainers: Explainers,
        demanding: bool = False,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.model: Model = desk.model
        self._explainers, self._explaining = explainers, 0
        self._desk, self._look, self._recorder, self._meters = desk, look, recorder, meters
        self._source, self._demanding, self._clock = (FROM, source), demanding, clock
        self._inputs = _Inputs(desk.model)
        self._waiting: list[_Waiting] = []
        self._turns: set[asyncio.Future[None]] = set()
        self._begun = self._looking = 0
        self._pace = 0.0
        """Seconds a row, of late."""
        self._asked_again = 0.0
        """When the store may be asked again (clock)."""
        self._thread = ThreadPoolExecutor(1, f"functions of {desk.model.name}")  # starts none before it is used
        self._known: OrderedDict[str, tuple[bytes, bool, asyncio.Future[Told]]] = OrderedDict()
        self._logger = structlog.get_logger(service="inference")

    def ask(self, question: Question) -> asyncio.Future[Told]:
        """The answer to come, which is recorded by then. Raises Failed 409 for an id that was asked with another content, and
        Overloaded; the future raises Failed 503 and what `Recorder.record` raises."""
        content = blake2b(_encode(question.event), digest_size=16).digest()
        known = self._known.get(question.id)
        if known is not None:
            if known[0] != content:
                raise Failed(409, f"id {question.id[:80]!r} was asked before with another content")
            if question.explain and not known[1]:
                how = f"penstock explain {question.id[:80]}"
                raise Failed(409, f"id {question.id[:80]!r} was answered before without an explanation; ask for it with: {how}")
            return known[2]
        if question.explain and (why := Explainers.missing(self._desk.duty)):
            raise Failed(501, why)
        now = self._clock()
        if self._waiting and now - self._waiting[0].since > PATIENCE:
            raise Overloaded
        if question.explain and self._explaining >= EXPLAINED:
            raise Overloaded
        told: asyncio.Future[Told] = asyncio.get_running_loop().create_future()
        if question.explain:
            self._explaining += 1
            told.add_done_callback(self._explained)
        self._known[question.id] = content, question.explain, told
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        self._waiting.append(_Waiting(question, told, now))
        if not self._begun and self._looking < ABREAST:
            self._begun = 1
            asyncio.get_running_loop().call_soon(self._begin)
        return told

    async def probe(self, question: Question, variant: str) -> Told:
        """What a variant on duty would answer alone. It decides nothing, so it is not recorded, nor remembered."""
        member: Member | None = getattr(self._desk.duty.serving, variant)
        if member is None:
            raise Failed(404, f"model {self.model.name} has no {variant} now")
        readings = await self._read([question.event])
        rows = matrix(_rows(self._inputs.of(readings, [question.event])), len(self.model.inputs))
        serving = Serving(champion=member)
        asked = partial(score, self.model.name, rows, [question.entity], serving)
        scored = await asyncio.get_running_loop().run_in_executor(self._thread, asked) if serving.apart else asked()
        told = self._told(question, 0, scored, self._statuses(readings))
        if isinstance(told, Failed):
            raise told
        return msgspec.structs.replace(told, variant=variant)

    def _begin(self) -> None:
        """Take a turn."""
        self._begun = 0
        if not self._waiting:
            return
        batch, self._waiting = self._waiting[:TOGETHER], self._waiting[TOGETHER:]
        self._looking += 1
        turn = asyncio.ensure_future(self._turn(batch))
        self._turns.add(turn)
        turn.add_done_callback(self._turns.discard)

    async def _turn(self, batch: list[_Waiting]) -> None:
        try:
            try:
                if not self._desk.duty.serving.members:
                    raise Failed(503, nobody(self.model.name), LATER)
                events = [one.question.event for one in batch]
                readings = await self._read(events)
                rows, scored = _rows(self._inputs.of(readings, events)), None
                if self._desk.duty.serving.apart:  # what comes in meanwhile waits to be the next call, where too long is told
                    scored = await self._scored(rows, [one.question.entity for one in batch])
            finally:
                self._looking -= 1
                if self._waiting and not self._begun:
                    self._begin()
            await self._answer(batch, rows, self._statuses(readings), scored)
        except Exception as error:  # whatever it is, all of this turn hear it
            for one in batch:
                self._fail(one, error)

    async def _answer(
        self, batch: list[_Waiting], rows: list[Values], statuses: dict[str, list[str]], scored: Scored | None
    ) -> None:
        questions = [one.question for one in batch]
        entities = [question.entity for question in questions]
        scored = scored or await self._scored(rows, entities)
        found = [self._told(question, at, scored, statuses) for at, question in enumerate(questions)]
        records = self._desk.records(
            [question.id for question in questions], entities, [question.moment for question in questions], rows, scored,
            self._clock() - batch[0].since, [question.trace.encode() for question in questions],
            segmented(self.model.segments, [question.event for question in questions]),
        )  # fmt: skip
        source = self._source
        sends = [
            Send(topic, key, value, (*headers, source, (SEQUENCE, key or b"")))
            for (topic, key, value, headers, _), told in zip(records, found, strict=True)
            if not isinstance(told, Failed)
        ]
        safe = self._recorder.record(sends)
        await safe
        explained = []
        for at, (one, told) in enumerate(zip(batch, found, strict=True)):
            if isinstance(told, Failed):
                self._fail(one, told)
            elif one.question.explain:
                explained.append((one, told, rows[at], scored.answers[at].weights))
            elif not one.told.done():
                one.told.set_result(told)
        for one, told, row, weights in explained:  # takes longer than all of the above, so the others have their answers by now
            with_it = await asyncio.to_thread(self._with_explanation, told, row, weights)
            if not one.told.done():
                one.told.set_result(with_it)

    async def _scored(self, rows: list[Values], entities: list[str]) -> Scored:
        """The answers; by a thread where a model that is slow of late would hold up whoever else is served, by one of its own
        where functions may hang."""
        began, expected = self._clock(), self._pace * len(rows)
        if self._desk.duty.serving.apart:
            scored = await asyncio.get_running_loop().run_in_executor(self._thread, self._desk.score, rows, entities)
        elif expected > LONG:
            scored = await asyncio.to_thread(self._desk.score, rows, entities)
        else:
            scored = self._desk.score(rows, entities)
        self._pace += 0.2 * ((self._clock() - began) / len(rows) - self._pace)
        return scored

    def _fail(self, one: _Waiting, error: Exception) -> None:
        """An answer that was not given may be asked for again."""
        if (known := self._known.get(one.question.id)) is not None and known[2] is one.told:
            del self._known[one.question.id]
        if not one.told.done():
            one.told.set_exception(error)
            one.told.exception()

    async def _read(self, events: Sequence[Any]) -> Readings | None:
        """Features of events; None when the store is away and that is to be borne."""
        if self._clock() >= self._asked_again or self._demanding:
            try:
                return await self._look(self.model.scores, events)
            except StoreError as error:
                if self._demanding:
                    raise
                if self._clock() >= self._asked_again + AWAY:
                    self._logger.warning("answering without features", model=self.model.name, cause=str(error))
                self._asked_again = self._clock() + AWAY
        self._meters.unread.inc(len(events))
        return None

    def _statuses(self, readings: Readings | None) -> dict[str, list[str]]:
        return {} if readings is None else readings.status

    def _told(self, question: Question, at: int, scored: Scored, statuses: dict[str, list[str]]) -> Told | Failed:
        answer = scored.answers[at]
        if answer is NOBODY and at in scored.why:
            return refusal(scored.why[at])
        if answer is NOBODY:
            why = f"no version of {self.model.name} gives a probability for this event"
            return Failed(
                503, f"{why}; the log says why" if statuses else f"{why} without the online store, which is away", LATER
            )
        told = Told(
            question.id,
            scored.score[at],
            answer.version,
            answer.variant,
            scored.scores[at],
            {view.name: statuses[view.name][at] if statuses else "missing" for view in self.model.views},
            question.trace[3:35],
        )
        if not scored.named:
            return told
        shares = served(scored.probabilities[at], answer.version)
        return msgspec.structs.replace(told, answer=scored.named[at], probabilities=shares)

    def _explained(self, _: asyncio.Future[Told]) -> None:
        self._explaining -= 1

    def _with_explanation(self, told: Told, row: Values, weights: Mapping[str, float]) -> Told:
        """The answer with the largest contributions to what each version that counted said, or with why there are none."""
        values = [None if value is None or value != value else value for value in row]
        found, whys = dict[str, Explanation](), list[str]()
        for version in sorted(weights, key=lambda version: (-weights[version], version != told.version)):
            try:
                made = self._explainers.explained(self._desk.duty, version, values, told.answer)
                found[version] = msgspec.structs.replace(made, contributions=made.contributions[:LARGEST])
            except PenstockError as error:  # its file is away, or the version left duty in this moment
                whys.append(str(error))
            except Exception as error:  # whatever it is: the answer is recorded, and stands
                self._logger.error("explanation failed", model=self.model.name, version=version, exc_info=error)
                whys.append(f"the explainer of {version} failed; its log says why")
        return msgspec.structs.replace(
            told, explanation=next(iter(found.values()), None), also=list(found.values())[1:],
            weights={version: weights[version] for version in found} if len(weights) > 1 else {}, unexplained="; ".join(whys),
        )  # fmt: skip


def _rows(values: npt.NDArray[np.float64]) -> list[Values]:
    return list(map(tuple, values.tolist()))


class _Inputs:
    """Puts the inputs of a model together, from the columns of its event and from features."""

    def __init__(self, model: Model) -> None:
        own = {repr(column): name for name, column in model.scores.columns.items()}
        self._width = len(model.inputs)
        self._own = [(at, attrgetter(own[name])) for at, name in enumerate(model.inputs) if name in own]
        self._features = [(at, name) for at, name in enumerate(model.inputs) if name not in own]
        self._columns: tuple[str, ...] = ()
        self._places: Any = []
        self._at = [at for at, _ in self._features]

    def of(self, readings: Readings | None, events: Sequence[Any]) -> npt.NDArray[np.float64]:
        """(events, inputs), NaN where missing; without readings all features are."""
        found = np.full((len(events), self._width), np.nan)
        for at, value in self._own:
            found[:, at] = np.array(list(map(value, events)), np.float64)  # None becomes NaN
        if readings is not None and self._features:
            if readings.columns is not self._columns:
                self._columns = readings.columns
                self._places = [readings.columns.index(name) for _, name in self._features]
            found[:, self._at] = readings.values[:, self._places]
        return found
