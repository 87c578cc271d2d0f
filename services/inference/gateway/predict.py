"""POST /predict/{model}: an event, or a list of events, as a bare ASGI application (routing takes longer than a model does).

An event is its JSON as on its topic. A list is answered by a list, in order: each event has its answer, or what is wrong with it
as `{"error": "...", "status": 400}`, and leaves the others alone. What concerns all of them (503, 413) refuses the whole.

    ?explain=true        also what contributed most to the answer of each version that counted; 501 where one cannot say
    ?variant=challenger  what that version would answer alone (champion, challenger, probation): for administrators. It decides
                         nothing, so it is not recorded
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec

from penstock.codec import MAX_BYTES, EventDecoder
from penstock.doors.breadth import ASKING
from penstock.errors import Refused
from penstock.event import Event
from penstock.runtime.asgi import Receive, Scope, Send
from penstock.runtime.lane import now
from penstock.runtime.refusals import SOON, Failed, refusal

from .onduty import WAITING
from .predictor import VARIANTS, Predictor, Question, Told
from .replies import replied
from .requests import listed, plain_body, traceparent_of

__all__ = ["PREFIX", "Predict"]

PREFIX: Final = "/predict/"

_encode = msgspec.json.Encoder().encode


class Predict:
    """The application. `ready`: whether it is known who is on duty. `trace` gives the traceparent to pass on, from the one that
    came (or empty), the name of the event and its model."""

    def __init__(
        self, predictors: Mapping[str, Predictor], ready: Callable[[], bool], trace: Callable[[str, str, str], str]
    ) -> None:
        self._predictors, self._ready, self._trace = predictors, ready, trace
        events = {predictor.model.scores for predictor in predictors.values()}
        self._decoders = {event: EventDecoder(event) for event in events}
        self._contents = {event: _content(event) for event in events}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def work() -> tuple[int, bytes]:
            predictor = self._predictor(scope["path"][len(PREFIX) :])
            body = await plain_body(scope, receive, MAX_BYTES)
            explain, variant = _options(scope)
            return 200, await self._answer(predictor, body, traceparent_of(scope), explain, variant)

        await replied(scope, send, f"{PREFIX}{{model}}", work)

    def _predictor(self, name: str) -> Predictor:
        found = self._predictors.get(name)
        if found is None:
            raise Failed(404, f"no model {name[:80]!r}; there is: {', '.join(self._predictors) or 'none'}")
        if not self._ready():
            raise Failed(503, WAITING, SOON)
        return found

    async def _answer(self, predictor: Predictor, body: bytes, given: str, explain: bool, variant: str) -> bytes:
        if body.lstrip(b" \t\r\n")[:1] != b"[":
            question = self._question(predictor, body, given, explain)
            return _encode(await (predictor.probe(question, variant) if variant else predictor.ask(question)))
        found: list[Any] = []
        for event in listed(body):
            try:
                question = self._question(predictor, event, given, explain)
                found.append(asyncio.ensure_future(predictor.probe(question, variant)) if variant else predictor.ask(question))
            except Refused as error:
                found.append(error)
            except Failed as error:
                if error.status != 409:
                    raise
                found.append(error)
        waiting = [one for one in found if isinstance(one, asyncio.Future)]
        told = iter(await asyncio.gather(*waiting, return_exceptions=True))
        return _encode(_each([next(told) if isinstance(one, asyncio.Future) else one for one in found]))

    def _question(self, predictor: Predictor, body: bytes, given: str, explain: bool) -> Question:
        scores = predictor.model.scores
        event = self._decoders[scores].decode(body, now())
        if (asking := ASKING.get()) is not None:
            asking.about([_encode(self._contents[scores](event))])
        entity, id_ = str(getattr(event, scores.key.name)), str(getattr(event, (scores.id or scores.key).name))
        trace = self._trace(given, f"{scores.topic}#{id_}", predictor.model.name)
        return Question(event, id_, entity, getattr(event, scores.time.name), trace, explain)


def _content(event: Event) -> Callable[[Any], Any]:
    """What an event asks about: all of it but which it is, and when."""
    named = [name for name, column in event.columns.items() if column not in (event.id, event.time)]
    return attrgetter(*named) if named else lambda _: ()


def _each(found: Sequence[Told | BaseException]) -> list[Any]:
    """The answers and refusals of a list; raises when none was answered for want of something that passes."""
    said = [refusal(one) if isinstance(one, BaseException) else one for one in found]
    failures = [one for one in said if isinstance(one, Failed)]
    if failures and len(failures) == len(said) and all(failed.status >= 500 for failed in failures):
        raise failures[0]
    return [{"error": str(one), "status": one.status} if isinstance(one, Failed) else one for one in said]


def _options(scope: Scope) -> tuple[bool, str]:
    """What the query asks for: whether to explain, and a variant."""
    if not scope["query_string"]:
        return False, ""
    explain, variant = False, ""
    for name, value in parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True):
        if name == "explain" and value in ("true", "false"):
            explain = value == "true"
        elif name == "variant" and value in VARIANTS:
            variant = value
        else:
            known = f"explain (true, false) and variant ({', '.join(VARIANTS)})"
            raise Refused("schema", f"{name[:80]}={value[:80]} is not known; there are {known}")
    if variant and explain:
        raise Refused("schema", "explain and variant exclude each other: what is explained is an answer that was given")
    if variant and not administers(scope):
        raise Failed(403, "a variant is for administrators: ask with a key of scope admin")
    return explain, variant


def administers(scope: Scope) -> bool:
    """Whether who asks may do so as an administrator. Whoever guards the doors leaves a `principal` with `scopes` in the scope;
    where nobody does (on loopback), everyone may."""
    principal = scope.get("principal")
    return principal is None or "admin" in principal.scopes
