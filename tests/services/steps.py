"""Functions before and after a model of a project, as a team would write them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

import penstock as ps

Floats = npt.NDArray[np.float64]


@ps.function(takes={"distance": "FP64[*]", "night": "BOOL[*]"}, gives={"X": "FP32[*, 5]"})
def prepare(distance: Floats, night: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """The inputs of `air.late`: what is not asked for is missing."""
    if (distance < 0).any():
        raise ps.PenstockError("no flight is that short")
    missing = np.full(len(distance), np.nan)
    return {"X": np.stack([missing, missing, distance, night, missing], axis=1).astype(np.float32)}


@ps.function(takes={"score": "FP64[*]"}, gives={"verdict": "BYTES[*]", "score": "FP64[*]"})
def verdict(score: Floats) -> dict[str, Any]:
    return {"verdict": np.where(score > 0.5, "late", "in time"), "score": score}


@ps.function(takes={"nobody": "FP64[*]"}, gives={"verdict": "BYTES[*]"})
def astray(nobody: Floats) -> dict[str, Any]:
    return {"verdict": nobody.astype(str)}
