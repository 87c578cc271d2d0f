"""Functions around a model, as a team would write them: inputs are cut to what the learner is to see, and scores are held within
what anybody believes. For tests, a distance may make the first of them go wrong in every way it can."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
import numpy.typing as npt

import penstock as ps

Floats = npt.NDArray[np.float64]
RAISES, HANGS, DIES, INFINITE, EMPTY = 7001.0, 7002.0, 7003.0, 7004.0, 7005.0
SCALE = 100.0


def scaled(values: Floats) -> Floats:
    return np.arctan(values / SCALE)


@ps.function(takes={"X": "FP32[*, 5]", "distance": "FP64[*]", "night": "FP64[*]"}, gives={"X": "FP32[*, 3]"})
def cut(X: npt.NDArray[np.float32], distance: Floats, night: Floats) -> dict[str, Any]:  # noqa: N803
    if (distance < -10_000).any():
        raise ps.PenstockError("no flight is that short")
    for told in distance.tolist():
        if told == RAISES:
            raise ValueError("secret inner words")
        if told == HANGS:
            time.sleep(60)
        if told == DIES:
            os.kill(os.getpid(), 9)
    found = np.stack([scaled(distance), distance * night, np.nan_to_num(X[:, 0])], axis=1).astype(np.float32)
    found[distance == INFINITE] = np.inf
    found[distance == EMPTY] = np.nan
    return {"X": found}


@ps.function(takes={"X": "FP32[*, 5]", "distance": "FP64[*]", "night": "FP64[*]"}, gives={"X": "FP32[*, 3]"})
def short(X: npt.NDArray[np.float32], distance: Floats, night: Floats) -> dict[str, Any]:  # noqa: N803
    """What takes the flights that `cut` does not."""
    made: dict[str, Any] = cut(X, np.maximum(distance, -9_999.0), night)
    return made


@ps.function(takes={"score": "FP64[*]", "night": "FP64[*]"}, gives={"score": "FP64[*]"})
def hold(score: Floats, night: Floats) -> dict[str, Any]:
    return {"score": np.clip(score, 0.05, np.where(night > 0, 0.95, 0.9))}


@ps.function(takes={"score": "FP64[*]"}, gives={"score": "FP64[*]"})
def double(score: Floats) -> dict[str, Any]:
    return {"score": score * 2}


@ps.function(takes={"X": "FP32[*, 5]"}, gives={"X": "FP32[*, 5]"})
def centre(X: npt.NDArray[np.float32]) -> dict[str, Any]:  # noqa: N803
    """What must not be: rows that see each other."""
    return {"X": X - np.nanmean(X, axis=0, keepdims=True)}


@ps.function(takes={"distance": "FP64[*]", "load": "FP64[*]"}, gives={"X": "FP32[*, 2]"})
def weigh(distance: Floats, load: Floats) -> dict[str, Any]:
    """Of rides: what is known of heavy ones is not believed."""
    if (load > 4).any():
        raise ps.PenstockError("no car carries that much")
    return {"X": np.stack([distance + load, np.floor(distance * 4)], axis=1).astype(np.float32)}


@ps.function(takes={"distance": "FP64[*]"}, gives={"X": "FP32[*, 1]"})
def lean(distance: Floats) -> dict[str, Any]:
    """What must not be: rows that see each other."""
    return {"X": (distance - distance.mean())[:, None].astype(np.float32)}


@ps.function(takes={"distance": "FP64[*]"}, gives={"X": "FP32[*, 1]"})
def stumble(distance: Floats) -> dict[str, Any]:
    if (distance > 2).any():
        raise KeyError("far")
    return {"X": distance[:, None].astype(np.float32)}


@ps.function(takes={"score": "FP64[*]", "load": "FP64[*]"}, gives={"score": "FP64[*]"})
def doubt(score: Floats, load: Floats) -> dict[str, Any]:
    return {"score": np.where(np.isnan(load), 0.5, score)}
