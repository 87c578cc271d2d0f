"""What a model sees of an input after the steps before it (imputer, scaler): each input by itself, in float32 as ONNX does it.

Such steps do not mix inputs, so the contribution of what is seen is the contribution of the input.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..inputs import Floats, Matrix, squashed

__all__ = ["Seen"]


@dataclass(frozen=True)
class Seen:
    """(value or `fill` where it is missing - `shift`) x `factor`, each float32 (inputs,); a NaN in `fill` leaves it missing. With
    `squash`, as online learners see values (`penstock.inputs`), and nothing else."""

    fill: Matrix
    shift: Matrix
    factor: Matrix
    squash: bool = False

    @classmethod
    def plain(cls, width: int) -> Seen:
        """Values as they are."""
        zeros = np.zeros(width, np.float32)
        return cls(np.full(width, np.nan, np.float32), zeros, zeros + 1)

    @classmethod
    def squashed(cls, width: int) -> Seen:
        """As online learners see values."""
        return replace(cls.plain(width), squash=True)

    def filled(self, fill: Matrix) -> Seen:
        """With an imputer after what is done already."""
        fill = np.broadcast_to(fill, self.fill.shape)
        if not (self.shift == 0).all() or not (self.factor == 1).all():
            raise ValueError("an imputer after a scaler")
        return replace(self, fill=np.where(np.isnan(self.fill), fill, self.fill).astype(np.float32))

    def scaled(self, shift: Matrix, factor: Matrix) -> Seen:
        """With a scaler after what is done already."""
        if not (self.shift == 0).all() or not (self.factor == 1).all():
            raise ValueError("a scaler after a scaler")
        return replace(self, shift=np.broadcast_to(shift, self.shift.shape), factor=np.broadcast_to(factor, self.shift.shape))

    def __call__(self, X: Matrix) -> Floats:  # noqa: N803
        if self.squash:
            return squashed(X)
        found = (np.where(np.isnan(X), self.fill, X) - self.shift) * self.factor
        return found.astype(np.float64)

    def arrays(self) -> dict[str, Any]:
        squash = {"squash": np.bool_(True)} if self.squash else {}
        return {"fill": self.fill, "shift": self.shift, "factor": self.factor, **squash}

    @classmethod
    def of_arrays(cls, arrays: dict[str, Any], width: int) -> Seen:
        found = [np.asarray(arrays[name], np.float32) for name in ("fill", "shift", "factor")]
        if any(each.shape != (width,) for each in found):
            raise ValueError("fill, shift and factor do not fit")
        fill, shift, factor = found
        return cls(fill, shift, factor, bool(arrays.get("squash", False)))
