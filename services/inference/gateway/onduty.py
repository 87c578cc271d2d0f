"""The models of a project as the Open Inference Protocol asks them: whoever is on duty answers.

One input `X`, FP32 [rows, inputs] in the order of the model, NaN (in JSON null) for missing. One output `score`, FP64 [rows]:
the probability of True. Tensors have no event id: no label answers them, and no canary is drawn for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from penstock.errors import Refused
from penstock.model import Model
from penstock.runtime.refusals import SOON, Failed
from penstock.scoring.answers import NOBODY, Serving, score

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

    def __init__(self, models: Sequence[Model], follower: Follower) -> None:
        self._models, self._follower = {model.name: model for model in models}, follower
        self._bound: dict[str, tuple[Serving, dict[str | None, Version]]] = {}
        """What was asked for, by model, of those on duty now: others are let go."""
        self._tallies: dict[tuple[str, str], Tally] = {}

    def waiting(self) -> str:
        return "" if self._follower.ready else WAITING

    def versions(self, model: str) -> Sequence[str]:
        return list(self._serving(model).members)

    async def version(self, model: str, version: str | None) -> Version:
        serving, bound = self._serving(model), self._bound.get(model)
        if bound is None or bound[0] is not serving:
            bound = self._bound[model] = serving, {}
        found = bound[1].get(version)
        if found is None:
            found = bound[1][version] = self._bind(self._models[model], version, serving)
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
        return self._follower.duties.of[model].serving

    def _bind(self, model: Model, version: str | None, serving: Serving) -> Version:
        """The version as of now; when duties change, another takes its place."""
        members = serving.members
        if version is not None:
            if version not in members:
                served = ", ".join(members) or "none"
                raise Failed(404, f"model {model.name} has no version {version[:80]!r} on duty; it has: {served}")
            asked = Serving(champion=members[version])
        else:
            if not members:
                raise Failed(503, nobody(model.name), LATER)
            asked = replace(serving, share=0.0)
        signature = Signature(
            (Tensor(INPUT, "FP32", [-1, len(model.inputs)]),),
            (Tensor(OUTPUT, "FP64", [-1]),),
        )

        def run(wanted: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
            rows = feeds[INPUT]
            scored = score(model.name, rows, [""] * len(rows), asked)
            if NOBODY in scored.answers:
                raise Refused("schema", "the model gives no probability for some of these rows")
            return [np.array(scored.score, np.float64)] * len(wanted)

        served = version or next(iter(members))
        tally = self._tallies.setdefault((model.name, served), Tally())
        batcher = Batcher(run, signature, tally)
        return Version(model.name, served, "penstock", signature, batcher, tally, {"sha256": members[served].digest})
