"""Who answers tensors is whoever is on duty, and who left duty is let go."""

from __future__ import annotations

import asyncio
import gc
import weakref
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.services.air import PROJECT

from penstock.runtime.refusals import Failed
from penstock.scoring.answers import Serving
from penstock.scoring.scorers import Member
from penstock.services.inference.gateway.onduty import OnDuty


class Scorer:
    def score(self, X: Any) -> Any:  # noqa: N803
        return np.full(len(X), 0.5)


def member(version: str) -> Member:
    return Member(version, "0" * 64, Scorer())


def test_a_version_that_left_duty_is_let_go_also_where_it_was_asked_by_name() -> None:
    duty = SimpleNamespace(serving=Serving(member("v1")))
    follower: Any = SimpleNamespace(ready=True, duties=SimpleNamespace(of={"late": duty}))
    models = OnDuty(PROJECT, follower)

    async def asked() -> None:
        assert (await models.version("late", "v1")).name == (await models.version("late", None)).name == "v1"
        left = weakref.ref(duty.serving.champion.scorer)
        duty.serving = Serving(member("v2"))
        assert (await models.version("late", None)).name == "v2"
        with pytest.raises(Failed, match="no version 'v1' on duty"):
            await models.version("late", "v1")
        gc.collect()
        assert left() is None

        assert [version for _, version in models.tallies()] == ["v2"], "counts of who left duty go with it"

    asyncio.run(asked())
