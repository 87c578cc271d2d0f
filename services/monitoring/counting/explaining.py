"""What moves the answers of one version: contributions of inputs, summed over a sample of answers.

Of a model that names one of several classes they are to the class that each answer names.

A sample is drawn by id, so whoever reads the topic draws the same. A contribution is rounded to the grain of `quality` before it
is added, so sums are the same bits over one partition or sixteen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import structlog

from penstock.artefact import Artefacts
from penstock.contributions.classes import Classes
from penstock.contributions.explainer import Explainer
from penstock.contributions.version import explainer_of
from penstock.errors import PenstockError, Unreachable
from penstock.inputs import InputsDecoder
from penstock.records import Candidate, Contributed
from penstock.scoring.around import NOTHING, Plan
from penstock.statistics.quality import GRAIN

__all__ = ["Explaining", "drawn"]


def drawn(model: str, id_: str, share: float) -> bool:
    """Whether an answer is in the sample: blake2b of "explain:model:id", 8 bytes big-endian, below the share of 2**64.

    >>> [drawn("late", name, 0.5) for name in ("a", "b", "c", "d")], drawn("late", "a", 1.0)
    ([False, True, False, True], True)
    """
    digest = hashlib.blake2b(f"explain:{model}:{id_}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) < share * 2.0**64


class Explaining:
    """One version. Its explainer is opened when a first answer is to be explained; where that fails it is said once. A file that
    is away is asked for again with the next answers: what is explained does not hang on when monitoring was started."""

    def __init__(self, artefacts: Artefacts, candidate: Candidate, plan: Plan = NOTHING) -> None:
        self._plan, self._artefacts, self._candidate = plan, artefacts, msgspec.structs.replace(candidate, edges={}, reference={})
        self._decoder = InputsDecoder(candidate.inputs)
        self._explainer: Explainer | Classes | None = None
        self._failed, self._said = False, ""

    def sums(self, rows: Sequence[Any]) -> Contributed | None:
        """Of answers, by their inputs still as JSON; without those that have no finite contributions (a linear model of a missing
        value, or functions that do not take a mix of rows). None where none can be explained."""
        if self._failed:
            return None
        try:
            if self._explainer is None:
                self._explainer = explainer_of(self._artefacts, self._candidate, plan=self._plan)
            matrix, readable = self._decoder.readable(rows)
            if not readable:
                return None
            found = self._explainer.contributions(matrix)
        except (PenstockError, ImportError) as error:
            self._failed = not isinstance(error, Unreachable)
            if self._said != str(error):
                self._said = str(error)
                about = {"model": self._candidate.model, "version": self._candidate.version}
                structlog.get_logger(service="monitoring").warning("answers not explained", **about, cause=self._said)
            return None
        grains = np.rint(found[np.isfinite(found).all(axis=1)] * GRAIN)
        absolute, signed = np.abs(grains).sum(axis=0) / GRAIN, grains.sum(axis=0) / GRAIN
        names = self._candidate.inputs
        return Contributed(
            n=len(grains),
            absolute=dict(zip(names, absolute.tolist(), strict=True)),
            signed=dict(zip(names, signed.tolist(), strict=True)),
        )
