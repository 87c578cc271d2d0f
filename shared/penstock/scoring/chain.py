"""A chain: functions and models one after the other, asked as one model.

What one step gives and a later one takes goes there by its name; what no step before gives is asked of whoever calls. A chain
gives what its last step gives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from ..errors import PenstockError
from .process import FunctionFailed
from .signature import Array, Signature, Tensor

__all__ = ["Chain", "Step"]


class Step(Protocol):
    """A graph, a function, or a model of a project."""

    @property
    def signature(self) -> Signature: ...

    def run(self, wanted: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]: ...


class Chain:
    """Steps by name, in order. `run` may be called from several threads where those of the steps may."""

    def __init__(self, steps: Sequence[tuple[str, Step]]) -> None:
        """PenstockError where what one step gives is not what a later one takes, or nobody takes it."""
        self._steps = [step for _, step in steps]
        asked, given = dict[str, Tensor](), dict[str, tuple[str, Tensor]]()
        for name, step in steps:
            for tensor in step.signature.inputs:
                before, earlier = given.get(tensor.name, ("the request", asked.get(tensor.name, tensor)))
                if not _meet(earlier, tensor):
                    said = f"{name} takes {tensor.spelled}, and {before} gives {earlier.spelled}"
                    raise PenstockError(said, "let one of them follow the other")
                if tensor.name not in given:
                    narrow = [max(a, b) for a, b in zip(earlier.shape, tensor.shape, strict=False)]
                    asked[tensor.name] = Tensor(tensor.name, tensor.datatype, narrow or earlier.shape or tensor.shape)
            given |= {tensor.name: (name, tensor) for tensor in step.signature.outputs}
        self._wanted = []
        for at, (name, step) in enumerate(steps[:-1]):
            later = {tensor.name for _, other in steps[at + 1 :] for tensor in other.signature.inputs}
            self._wanted.append(tuple(output for output in step.signature.names if output in later))
            if not self._wanted[-1]:
                gives = ", ".join(step.signature.names)
                raise PenstockError(f"no later step takes anything that {name} gives ({gives})", "name an input of it as that")
        last = steps[-1][1].signature
        self.signature = Signature(tuple(asked.values()), last.outputs, all(step.signature.batched for _, step in steps))

    def run(self, wanted: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        """The outputs wanted, in that order. Raises what its steps raise, and FunctionFailed where two do not fit."""
        there = dict(feeds)
        for step, passed in zip(self._steps, [*self._wanted, tuple(wanted)], strict=True):
            taken = {tensor.name: there[tensor.name] for tensor in step.signature.inputs}
            for tensor in step.signature.inputs:
                if not tensor.fits(taken[tensor.name].shape):
                    shape = list(taken[tensor.name].shape)
                    raise FunctionFailed(f"a step gave {tensor.name} of shape {shape}, and the next takes {tensor.spelled}")
            there |= zip(passed, step.run(passed, taken), strict=True)
        return [there[name] for name in wanted]


def _meet(given: Tensor, taken: Tensor) -> bool:
    """Whether what is given may be what is taken."""
    if given.datatype != taken.datatype:
        return False
    if not given.shape or not taken.shape:
        return True
    pairs = zip(given.shape, taken.shape, strict=False)
    return len(given.shape) == len(taken.shape) and all(a == b or -1 in (a, b) for a, b in pairs)
