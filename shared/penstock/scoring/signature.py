"""What a model takes and gives, in the datatypes of the Open Inference Protocol v2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

__all__ = ["DATATYPES", "ONNX", "Array", "Signature", "Tensor"]

Array = npt.NDArray[Any]

DATATYPES: Final[dict[str, np.dtype[Any]]] = {
    "BOOL": np.dtype("?"),
    **{f"UINT{8 * n}": np.dtype(f"<u{n}") for n in (1, 2, 4, 8)},
    **{f"INT{8 * n}": np.dtype(f"<i{n}") for n in (1, 2, 4, 8)},
    **{f"FP{8 * n}": np.dtype(f"<f{n}") for n in (2, 4, 8)},
    "BYTES": np.dtype("O"),
}
"""Datatype -> what holds it; BYTES are `str` objects. BF16 is not among them: numpy has none."""

ONNX: Final[dict[str, str]] = {
    "tensor(bool)": "BOOL",
    **{f"tensor(uint{n})": f"UINT{n}" for n in (8, 16, 32, 64)},
    **{f"tensor(int{n})": f"INT{n}" for n in (8, 16, 32, 64)},
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}
"""ONNX's name of a type -> the protocol's."""


class Tensor(msgspec.Struct, frozen=True):
    """An input or output of a model; -1 is a dimension of any size, no shape at all any shape."""

    name: str
    datatype: str
    shape: list[int]

    @property
    def spelled(self) -> str:
        """As people write it.

        >>> Tensor("X", "FP32", [-1, 3]).spelled
        'X FP32[*, 3]'
        """
        return f"{self.name} {self.datatype}{self.shape}".replace("-1", "*")

    def fits(self, shape: Sequence[int]) -> bool:
        own = self.shape or [-1] * len(shape)
        if len(own) != len(shape):
            return False
        for wanted, size in zip(own, shape, strict=True):  # noqa: SIM110  (`all` of a generator takes twice as long)
            if size < 0 or wanted not in (size, -1):
                return False
        return True


@dataclass(frozen=True)
class Signature:
    """What a model takes and gives. `batched`: the first dimension of every tensor is rows that do not see each other."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    batched: bool = True

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Of the outputs."""
        return tuple(tensor.name for tensor in self.outputs)

    @cached_property
    def takes(self) -> dict[str, str]:
        """Datatypes of the inputs, by name."""
        return {tensor.name: tensor.datatype for tensor in self.inputs}

    @cached_property
    def datatypes(self) -> dict[str, str]:
        """Of the outputs, by name."""
        return {tensor.name: tensor.datatype for tensor in self.outputs}
