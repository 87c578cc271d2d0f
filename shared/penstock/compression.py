"""Compression: a smaller ONNX model in place of the one that was fitted, unless its answers get worse by more than a bound.

    ps.Learner(batch=..., compress=ps.int8(within=0.002))

The trainer compresses after the fit, and compares both on rows of the window that calibration has not seen. The run record
has size, latency and the measures of both in their kind of label, and says which is offered and why. What is compressed are the
matrices of a network; trees and linear models keep their numbers in nodes that no method reaches, and stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

from .mistake import mistake

__all__ = ["Compression", "float16", "int8"]


@dataclass(frozen=True)
class Compression:
    """`within`: mean log loss (nats) by which the compressed model may be worse; where the label is a number, the share of the
    loss of the best constant answer, which is that much of R² (of a quantile: of the skill in pinball loss)."""

    method: str
    """int8, int8_dynamic or float16."""
    within: float

    def __post_init__(self) -> None:
        if not 0 <= self.within < 1:
            mistake(f"a compression within={self.within}", "say by how much the loss may grow, such as within=0.002")


def int8(within: float = 0.002, dynamic: bool = False) -> Compression:
    """Weights and activations as 8-bit integers: a quarter of the size.

    The ranges of activations are taken from training rows; with `dynamic` from each request instead. A dynamic model's rows
    would see each other in a batch, so they are answered one by one.
    """
    return Compression("int8_dynamic" if dynamic else "int8", within)


def float16(within: float = 0.0005) -> Compression:
    """Weights and activations as 16-bit floats: half the size. Most processors compute with them no faster."""
    return Compression("float16", within)
