"""POST /flags/{model} and /reviews/{model}: what people say of answers, as a bare ASGI application.

Who has a key speaks in its name (`key:<id>`), so each reviewer needs one; where no key is asked for, `by` says who it is. Whether
the answer exists, or waits for reviewers, is not known here: what does not count is told on the topic of reviewed answers.
"""

from __future__ import annotations

from typing import Final, cast

import msgspec

from penstock.event import from_micros
from penstock.log import partition_of
from penstock.reviewing.feedback import LONGEST, Kind, feedback, said_of
from penstock.runtime.asgi import Receive, Scope, Send
from penstock.runtime.lane import now
from penstock.topics import Topics

from .recorder import Recorder
from .replies import replied
from .requests import plain_body

__all__ = ["Hearing"]

_encode: Final = msgspec.json.Encoder().encode


class Hearing:
    """The application, of paths below /`kind`; what it hears goes through `recorder`, which has no spill."""

    def __init__(self, kind: Kind, topics: Topics, recorder: Recorder) -> None:
        self._kind, self._topics, self._recorder = kind, topics, recorder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def work() -> tuple[int, bytes]:
            body = await plain_body(scope, receive, LONGEST)
            principal = scope.get("principal")
            said = said_of(body, "" if principal is None else principal.name)
            model = cast("str", scope["path"]).removeprefix(f"/{self._kind}").strip("/")
            record = feedback(self._topics, self._kind, model, said, from_micros(round(now() * 1e6)))
            place = partition_of(record.key or b"", self._topics.partitions)
            await self._recorder.record([record._replace(partition=place)])
            return 202, _encode({"prediction": said.prediction, "model": model, "by": said.by})

        await replied(scope, send, f"/{self._kind}/{{model}}", work)
