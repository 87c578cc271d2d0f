"""What of a training set is learned: all but what is in quarantine."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..quarantine import covered, known, standing
from ..records import Quarantine

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["learned"]


def learned(frame: pd.DataFrame, said: Iterable[Quarantine], known_before: int | None = None) -> pd.DataFrame:
    """The rows of a training set (`ps.training_set`) without those that quarantines hold at `known_before`, microseconds; without
    one, those that no quarantine holds now."""
    import numpy as np

    newest = known(said)
    held = [one for one in newest if one.lifted is None] if known_before is None else standing(newest, known_before)
    if not held:
        return frame
    times = frame["time"].dt.tz_convert("UTC").dt.tz_localize(None).to_numpy("datetime64[us]").view(np.int64)
    sources = frame["source"].to_numpy(object) if "source" in frame else np.full(len(frame), "", object)
    free = covered(held, times, frame["key"].to_numpy(object), sources) < 0
    return frame[free].reset_index(drop=True)
