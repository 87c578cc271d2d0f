"""Two functions around a model that only pass on: what is measured with them is the way to other processes and back."""

from __future__ import annotations

from typing import Any

import penstock as ps


@ps.function(takes={"X": "FP32[*, 20]"}, gives={"X": "FP32[*, 20]"})
def before(X: Any) -> dict[str, Any]:  # noqa: N803
    return {"X": X}


@ps.function(takes={"score": "FP64[*]"}, gives={"score": "FP64[*]"})
def after(score: Any) -> dict[str, Any]:
    return {"score": score}
