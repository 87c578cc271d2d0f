"""Explainers: an answer split into the contributions of its inputs (Shapley values), and the file that holds one.

    explainer = opened(data, score)              # the file that the trainer keeps beside a version
    explainer.contributions(X)                   # float32 (rows, inputs) -> float64 (rows, inputs)
    explainer.base + contributions.sum(axis=1)   # the answer, on the explainer's scale

What all kinds mean by a contribution is the same: v(S) is the mean answer over the background rows (a sample of those that the
version was fitted on) when the inputs in S have the row's values and the others the background row's; contributions are the
Shapley values of v (interventional: Lundberg et al., From local explanations to global understanding, 2020; why this and not a
conditional expectation: Janzing, Minorics, Blöbaum, 2020). So they add up to the answer less the mean answer of the background.

    linear         exact, log-odds: weight x (value - mean)
    trees          exact: log-odds for boosted trees, probability for forests, whose probabilities are what adds up
    permutation    any other model, probability: estimated, each with a standard error

Of a model that answers with a number, all of them explain that number. Of one that names a class, what is explained is the class
that it names (see `classes`), and log-ratio takes the place of log-odds.

What adds up exactly differs by kind, so an explainer says its `scale`. Nothing here runs code from a file: it holds arrays only.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from typing import Any, Final, Protocol

import numpy as np

from ..errors import PenstockError
from ..inputs import Floats, Matrix
from .classes import Classes
from .linear import Linear
from .permutation import Permutation
from .trees import Trees

__all__ = ["BACKGROUND", "LOG_ODDS", "LOG_RATIO", "NUMBER", "PROBABILITY", "Explainer", "Score", "dumped", "opened"]

LOG_ODDS: Final = "log-odds"
LOG_RATIO: Final = "log-ratio"
"""Of models that name a class: see `classes`."""
PROBABILITY: Final = "probability"
NUMBER: Final = "number"
"""Of models that answer with one: contributions are in its unit."""
BACKGROUND: Final = 100
"""Rows: the base is then known to a tenth of the spread of answers, and a row of 32 inputs is explained in milliseconds."""
LARGEST: Final = 64 << 20
"""Bytes of a file, unpacked; 1,000 trees of 255 leaves take 12 MiB."""

Score = Callable[[Matrix], Floats]
"""float32 (rows, inputs), NaN for missing -> float64 (rows,): the probability of True, or the number; of classes (rows,
classes)."""


class Explainer(Protocol):
    """`explained` gives contributions and their standard errors, both float64 (rows, inputs); 0 where they are exact."""

    @property
    def kind(self) -> str: ...

    @property
    def scale(self) -> str: ...

    @property
    def base(self) -> float: ...

    def contributions(self, X: Matrix) -> Floats: ...  # noqa: N803

    def explained(self, X: Matrix) -> tuple[Floats, Floats]: ...  # noqa: N803


_CLASSES: Final = b"classes"
_KINDS: Final[dict[str, Any]] = {"linear": Linear, "trees": Trees, "permutation": Permutation}


def dumped(explainer: Linear | Trees | Permutation | Classes) -> bytes:
    """The file (npz: arrays by name, nothing else). The same explainer gives the same bytes."""
    held = io.BytesIO()
    kind = np.frombuffer(_CLASSES if isinstance(explainer, Classes) else explainer.kind.encode(), np.uint8)
    np.savez(held, kind=kind, **explainer.arrays())
    return held.getvalue()


def opened(data: bytes, score: Score) -> Explainer | Classes:
    """The explainer in a file; `score` is the version's own, for those that have to ask it. PenstockError when it is none."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as parts:
            size = sum(part.file_size for part in parts.infolist())
        if size > LARGEST:
            raise _refused(f"has {size} bytes, more than {LARGEST}")
        with np.load(io.BytesIO(data), allow_pickle=False) as held:
            arrays = {name: held[name] for name in held.files}
        said = arrays.pop("kind").tobytes()
        kind = _KINDS.get((arrays.pop("of").tobytes() if said == _CLASSES else said).decode())
        if kind is None:
            raise _refused("is of a kind that is not known here")
        found: Explainer | Classes = Classes.of_arrays(arrays, kind, score) if said == _CLASSES else kind.of_arrays(arrays, score)
    except PenstockError:
        raise
    except Exception as error:  # truncated, another shape, a missing array: whatever it is, it explains nothing
        raise _refused(f"is damaged ({type(error).__name__}: {error})") from None
    return found


def _refused(what: str) -> PenstockError:
    return PenstockError(f"the explainer {what}: not opened", "restore the file, or fit a new version")
