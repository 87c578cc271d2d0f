"""Registry: decides which version answers.

reads    <p>.statistics.<model>   closed windows: the clock, and the evidence
         <p>.candidates           what the trainer offers
         <p>.commands             what people ask
follows  <p>.models               its own decisions: the whole state
writes   <p>.models (compacted)   by <model>/champion, challenger, probation, online; <model>/<version>;
                                  <model>/command-<digest>
"""

from __future__ import annotations

import msgspec

from penstock.errors import Refused
from penstock.log import Send
from penstock.records import Candidate, Command, Decision, Statistic
from penstock.topics import Topics

from .lifecycle import decide

__all__ = ["Registry"]


class Registry:
    """The control of this service (see penstock.runtime.control). `state` is model -> key -> decision, as the topic holds it."""

    def __init__(self, topics: Topics) -> None:
        self._models = {model.name: model for model in topics.project.models}
        self._records: dict[str, type[Statistic | Candidate | Command]] = {topics.statistics(m): Statistic for m in self._models}
        self._records |= {topics.candidates: Candidate, topics.commands: Command}
        self.reads: tuple[str, ...] = tuple(self._records)
        self.follows: tuple[str, ...] = (topics.models,)
        self.state: dict[str, dict[str, Decision]] = {name: {} for name in self._models}

    def recall(self, topic: str, key: bytes | None, value: bytes | None) -> None:
        model, _, rest = (key or b"").decode().partition("/")
        self._keep(model, rest, None if value is None else msgspec.json.decode(value, type=Decision))

    def apply(self, topic: str, key: bytes | None, value: bytes | None) -> list[Send]:
        record = msgspec.json.decode(value or b"", type=self._records[topic])
        if isinstance(record, Command) and record.action == "retrain":
            return []  # the trainer's
        model = self._models.get(record.model)
        if model is None:
            raise Refused("unknown", f"no model {record.model!r}; the project has {', '.join(self._models)}")
        sends = []
        for rest, decision in decide(self.state[model.name], model, record):
            self._keep(model.name, rest, decision)
            said = None if decision is None else msgspec.json.encode(decision)
            sends.append(Send(self.follows[0], f"{model.name}/{rest}".encode(), said))
        return sends

    def _keep(self, model: str, key: str, decision: Decision | None) -> None:
        kept = self.state.setdefault(model, {})
        if decision is None:
            kept.pop(key, None)
        else:
            kept[key] = decision
