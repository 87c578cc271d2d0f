"""The models and chains of a project as the Open Inference Protocol asks them: whoever is on duty answers.

A model has one input `X`, FP32 [rows, inputs] in its order, NaN (in JSON null) for missing, and one output `score`, FP64 [rows]:
the probability of True. A chain is a model with functions before and after it, which are open before the gateway is ready; its
versions are those of the model. Tensors have no event id: no label answers them, and no canary is drawn for them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import structlog

from penstock.errors import PenstockError, Refused
from penstock.model import Model
from penstock.project import Project
from penstock.runtime.refusals import SOON, Failed
from penstock.scoring.answers import NOBODY, Serving, answers, score
from penstock.scoring.chain import Chain, Step
from penstock.scoring.process import Function

from ..duty import Follower
from ..open_inference.batching import Batcher
from ..open_inference.datatypes import Array
from ..open_inference.protocol import Version
from ..open_inference.tally import Tally
from ..open_inference.tensors import Signature, Tensor

__all__ = ["LATER", "WAITING", "OnDuty", "nobody"]

INPUT, OUTPUT = "X", "score"
LATER: Final = 60
"""Seconds. A first version is fitted when enough labels have come: minutes at best."""
WAITING: Final = "still reading which versions are in charge"


def nobody(model: str) -> str:
    return f"model {model} has no version in charge yet: the first comes when enough labels have"


class OnDuty:
    """What `protocol.Models` asks for, of the models that the follower follows."""

    def __init__(self, project: Project, follower: Follower) -> None:
        self._follower = follower
        self._models = {model.name: model for model in project.models}
        self._chains = project.chains
        for chain, links in project.chains.items():
            self._models[chain] = next(link for link in links if isinstance(link, Model))
        self._functions: dict[Callable[..., Any], Function] = {}
        self._ending = False
        self._closed = "its functions are not open yet" if project.chains else ""
        self._bound: dict[str, tuple[Serving, dict[str | None, Version]]] = {}
        """What was asked for, by model, of those on duty now: others are let go."""
        self._tallies: dict[tuple[str, str], Tally] = {}

    def open(self) -> None:
        """Open the functions of all chains, a process each. What cannot be opened keeps the gateway from being ready."""
        for link in [link for links in self._chains.values() for link in links if not isinstance(link, Model)]:
            try:
                if link not in self._functions:
                    file = Path(inspect.getfile(link))
                    self._functions[link] = Function(file, link.__name__, module=link.__module__, ending=lambda: self._ending)
                if self._ending:
                    self._functions[link].close()
                    return
            except PenstockError as error:
                if self._ending:
                    return
                self._closed = f"function {link.__name__} cannot be served: {error}"
                structlog.get_logger(service="inference").error("function not served", function=link.__name__, cause=str(error))
                return
        self._closed = ""

    def close(self) -> None:
        """End the processes of functions, and open no more; `open` may be under way in another thread."""
        self._ending = True
        for function in list(self._functions.values()):
            function.close()

    def waiting(self) -> str:
        return self._closed or ("" if self._follower.ready else WAITING)

    def versions(self, model: str) -> Sequence[str]:
        return list(self._serving(model).members)

    async def version(self, model: str, version: str | None) -> Version:
        serving, bound = self._serving(model), self._bound.get(model)
        if bound is None or bound[0] is not serving:
            bound = self._bound[model] = serving, {}
        found = bound[1].get(version)
        if found is None:
            found = bound[1][version] = self._bind(model, version, serving)
        return found

    def tallies(self) -> Mapping[tuple[str, str], Tally]:
        return self._tallies

    def index(self) -> Sequence[Mapping[str, str]]:
        return [
            {"name": name, "version": version, "state": "READY", "reason": ""}
            for name in self._models
            for version in self.versions(name)
        ]

    async def load(self, model: str) -> None:
        raise Failed(403, f"who is on duty for {model[:80]} is the registry's to say: penstock models promote")

    unload = load

    def _serving(self, model: str) -> Serving:
        if model not in self._models:
            raise Failed(404, f"no model {model[:80]!r}; there is: {', '.join(self._models) or 'none'}")
        if not self._follower.ready:
            raise Failed(503, WAITING, SOON)
        return self._follower.duties.of[self._models[model].name].serving

    def _bind(self, name: str, version: str | None, serving: Serving) -> Version:
        """The version as of now; when duties change, another takes its place."""
        members, model = serving.members, self._models[name]
        if version is not None:
            if version not in members:
                served = ", ".join(members) or "none"
                raise Failed(404, f"model {name} has no version {version[:80]!r} on duty; it has: {served}")
            asked = Serving(champion=members[version])
        else:
            if not members:
                raise Failed(503, nobody(name), LATER)
            asked = replace(serving, share=0.0)
        step: Step = _Served(model, asked)
        if chain := self._chains.get(name):
            if self._closed:
                raise Failed(503, self._closed, SOON)
            step = self._chain(chain, step)
        served = version or next(iter(members))
        for gone in [key for key in self._tallies if key[0] == name and key[1] not in members]:
            del self._tallies[gone]  # snapshots come all day
        tally = self._tallies.setdefault((name, served), Tally())
        batcher = Batcher(step.run, step.signature, tally, apart=bool(chain) or asked.apart)
        platform = "ensemble" if chain else "penstock"
        return Version(name, served, platform, step.signature, batcher, tally, {"sha256": members[served].digest})

    def _chain(self, links: Sequence[Any], served: Step) -> Chain:
        try:
            return Chain(
                [(link.name, served) if isinstance(link, Model) else (link.__name__, self._functions[link]) for link in links]
            )
        except PenstockError as error:
            raise Failed(503, f"its steps do not fit together: {error}", LATER) from None


@dataclass(frozen=True)
class _Served:
    """A model as a step: by whom it was asked when it was bound."""

    model: Model
    serving: Serving

    @property
    def signature(self) -> Signature:
        shape = [-1, len(self.model.label.classes)] if self.model.label.classes else [-1]
        return Signature((Tensor(INPUT, "FP32", [-1, len(self.model.inputs)]),), (Tensor(OUTPUT, "FP64", shape),))

    def run(self, wanted: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        rows = feeds[INPUT]
        scored = score(self.model.name, rows, [""] * len(rows), self.serving)
        if scored.unanswered:
            raise next(iter(scored.unanswered.values()))
        if NOBODY in scored.answers:
            raise Refused("schema", "the model gives no probability for some of these rows")
        return [answers(self.model.label, scored)] * len(wanted)
