"""Kinds of labels: how an answer is counted against its truth, what its loss is, and what the baselines would have said.

    kind = kind_of(model.label)
    kind.add(sums, said, truth)        # count one answer; its loss
    kind.prior(known)                  # what to answer everybody with, by labels that are known
    kind.measured(quality, last=...)   # measures with intervals

`said` is a probability, a number, or the probability of each class by name; `truth` a bool, a number, or the name of a class. All
that differs between yes/no labels, numbers and classes is here; windows, cohorts, gates and skill read sums and losses alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from ..label import Label, Truth
from ..records import Classed, Confusion, Errors, Measure, Paired, Quality
from ..value import Value
from .exact import add as add_exact
from .exact import add_square, valued, whole
from .loss import clipped
from .quality import GRAIN, Sums, added, apart, pair, place_of, prior_loss

if TYPE_CHECKING:
    from .groups import Grouped

__all__ = ["YES_NO", "Baseline", "Kind", "kind_of"]

Baseline = float | dict[str, float]
"""What is answered to everybody: a probability, a number, or the share of each class."""


class Kind(Protocol):
    """What one kind of label means."""

    @property
    def loss(self) -> str:
        """What the loss is called."""

    @property
    def shown(self) -> tuple[str, ...]:
        """The measures that say most, that of the loss first."""

    @property
    def many(self) -> bool:
        """Whether an answer is a probability per class."""

    @property
    def pairs(self) -> bool:
        """Whether `against` knows which losses fell together."""

    @property
    def add(self) -> Callable[..., float]:
        """(sums, said, truth, sign) -> loss, counted in place."""

    def spread(self, sums: Sums, said: Any, truth: Any, loss: float, sign: int) -> None:
        """Count the loss by what was answered, too: what estimates learn from (services/monitoring/quality/expecting.py)."""

    @property
    def pair(self) -> Callable[[Paired, float, int], Paired]:
        """With one more difference in loss on the same event."""

    def alike(self, n: int, positives: int, known: Quality) -> bool:
        """Whether labels were all the same, so that there was nothing to be better at than a prior."""

    def sums(self) -> Sums:
        """Empty ones."""

    def told(self, quality: Quality) -> Quality:
        """As it is published: with the loss that follows from its sums, without what only estimates learn from."""

    def paired(self, paired: Paired) -> Paired:
        """The same of differences in loss."""

    def labels(self, quality: Quality) -> Quality | None:
        """What is to be remembered of its labels for baselines; None where `n` and `positives` say it."""

    def prior(self, n: int, positives: int, known: Quality) -> Baseline:
        """What labels that are known make expect of the next."""

    def usual(self, n: int, positives: int, known: Quality) -> Truth:
        """The label that was usual."""

    def sure(self, truth: Truth) -> Baseline:
        """Answering with it and nothing else."""

    def answering(self, baseline: Baseline, quality: Quality) -> Quality:
        """The sums that a baseline would have had on the same outcomes."""

    def prior_loss(self, baseline: Baseline, quality: Quality) -> float:
        """The summed loss of it."""

    def against(self, baseline: Baseline, quality: Quality) -> Paired:
        """What was answered minus the baseline, in loss on the same outcomes: its spread follows from the sums."""

    def measured(self, quality: Quality, value: Value | None, last: Truth | None) -> dict[str, Measure]:
        """Measures with their 95 % intervals."""

    def answer(self, group: Grouped, said: Any, cut: int) -> None:
        """Count in a group what an answer was, as far as it needs no label; yes is said from the step `cut` of scores on."""

    def judge(self, group: Grouped, said: Any, truth: Any, sign: int) -> None:
        """Count an outcome in a group, or take it back (`sign` -1)."""


def kind_of(label: Label) -> Kind:
    """What a label means."""
    if label.task == "binary":
        return YES_NO
    return _Classes(label.classes) if label.task == "multiclass" else _Numbers(label.quantile)


class _YesNo:
    loss, many, pairs = "log loss", False, True
    shown = ("log_loss", "auc", "value", "accuracy")
    add, pair, sums = staticmethod(Sums.add), staticmethod(pair), staticmethod(Sums)

    def spread(self, sums: Sums, said: float, truth: bool, loss: float, sign: int) -> None:
        """The bins of scores say it."""

    def told(self, quality: Quality) -> Quality:
        return quality

    def paired(self, paired: Paired) -> Paired:
        return paired

    def labels(self, quality: Quality) -> None:
        return None

    def prior(self, n: int, positives: int, known: Quality) -> float:
        return positives / n

    def usual(self, n: int, positives: int, known: Quality) -> bool:
        return 2 * positives > n

    def alike(self, n: int, positives: int, known: Quality) -> bool:
        return positives in (0, n)

    def sure(self, truth: Truth) -> float:
        return float(truth)

    def answering(self, baseline: Baseline, quality: Quality) -> Quality:
        from .binary import answering

        assert isinstance(baseline, float | int)
        return answering(baseline, quality)

    def prior_loss(self, baseline: Baseline, quality: Quality) -> float:
        assert isinstance(baseline, float | int)
        return prior_loss(baseline, quality.n, quality.positives)

    def against(self, baseline: Baseline, quality: Quality) -> Paired:
        from .binary import against

        assert isinstance(baseline, float | int)
        return against(quality, baseline)

    def measured(self, quality: Quality, value: Value | None, last: Truth | None) -> dict[str, Measure]:
        from .binary import measured

        return measured(quality, value=value, last=None if last is None else bool(last))

    def answer(self, group: Grouped, said: float, cut: int) -> None:
        group.selected += place_of(said) >= cut

    def judge(self, group: Grouped, said: float, truth: bool, sign: int) -> None:
        if group.sums is None:
            group.sums = Sums()
        group.sums.add(said, truth, sign)
        group.scores += sign * (round(clipped(said) * GRAIN) / GRAIN)


YES_NO: Kind = _YesNo()


class _Numbers:
    many, pairs = False, False

    def __init__(self, quantile: float | None) -> None:
        from . import errors

        self._errors, self._quantile = errors, quantile
        self.loss = "squared error" if quantile is None else "pinball loss"
        self.shown = ("rmse", "mae", "r2") if quantile is None else ("pinball", "coverage", "mae")

    def sums(self) -> Sums:
        return Sums(bins_true=[], bins_false=[], errors=Errors())

    def add(self, sums: Sums, said: float, truth: float, sign: int = 1) -> float:
        sums.n += sign
        return self._errors.erred(_errors(sums), said, truth, self._quantile, sign)

    def spread(self, sums: Sums, said: float, truth: float, loss: float, sign: int) -> None:
        self._errors.spread(_errors(sums), said, truth, loss, sign)

    def pair(self, known: Paired, difference: float, sign: int = 1) -> Paired:
        sums, squares = dict(known.exact or {}), dict(known.exact_squares or {})
        add_exact(sums, difference, sign)
        add_exact(squares, difference * difference, sign)
        return Paired(n=known.n + sign, exact=sums, exact_squares=squares)

    def told(self, quality: Quality) -> Quality:
        errors = msgspec.structs.replace(_errors(quality), answers={}, missed={}, lost={})
        errors = added(errors, Errors())  # in order of places
        loss = valued(errors.squares if self._quantile is None else errors.pinball)
        return msgspec.structs.replace(quality, loss=loss, squares=valued(errors.squares), errors=errors)

    def paired(self, paired: Paired) -> Paired:
        sums, squares = (
            dict(sorted((found or {}).items())) for found in (paired.exact, paired.exact_squares)
        )  # in order of places
        return Paired(n=paired.n, sum=valued(sums), squares=valued(squares), exact=sums, exact_squares=squares)

    def labels(self, quality: Quality) -> Quality:
        errors = _errors(quality)
        kept = Errors(truths=errors.truths, truth_squares=errors.truth_squares, sizes=errors.sizes)
        return Quality(n=quality.n, errors=kept)

    def prior(self, n: int, positives: int, known: Quality) -> float:
        errors = _errors(known)
        return self._errors.mean_of(errors, n) if self._quantile is None else self._errors.quantile_of(errors, self._quantile)

    def usual(self, n: int, positives: int, known: Quality) -> float:
        return self.prior(n, positives, known)

    def alike(self, n: int, positives: int, known: Quality) -> bool:
        squares = n * whole(_errors(known).truth_squares)
        return squares - whole(_errors(known).truths) ** 2 <= squares / 10**15  # the rounding of each square

    def sure(self, truth: Truth) -> float:
        return float(truth)

    def answering(self, baseline: Baseline, quality: Quality) -> Quality:
        assert isinstance(baseline, float | int)
        errors = self._errors.alike(_errors(quality), quality.n, baseline, self._quantile)
        return self.told(Quality(n=quality.n, errors=errors))

    def prior_loss(self, baseline: Baseline, quality: Quality) -> float:
        return self.answering(baseline, quality).loss

    def against(self, baseline: Baseline, quality: Quality) -> Paired:
        """Which losses fell together is not counted, so the spread is that of two losses that vary apart."""
        ours, theirs = self.told(quality), self.answering(baseline, quality)
        n = quality.n
        return apart(n, ours.loss, self._squares(ours), theirs.loss, self._squares(theirs)) if n > 0 else Paired()

    def _squares(self, quality: Quality) -> float:
        errors = _errors(quality)
        return valued(errors.fourth if self._quantile is None else errors.pinball_squares)

    def measured(self, quality: Quality, value: Value | None, last: Truth | None) -> dict[str, Measure]:
        return self._errors.measured_errors(_errors(quality), quality.n, self._quantile)

    def answer(self, group: Grouped, said: float, cut: int) -> None:
        add_exact(group.given, said)
        add_square(group.given_squares, said)

    def judge(self, group: Grouped, said: float, truth: float, sign: int) -> None:
        if group.sums is None:
            group.sums = self.sums()
        group.sums.n += sign
        self._errors.missed(_errors(group.sums), said, truth, self._quantile, sign)


def _errors(of: Quality | Sums) -> Errors:
    return of.errors if isinstance(of.errors, Errors) else Errors()


_NEVER = Classed()


class _Classes:
    loss, many, pairs = "log loss", True, True
    shown = ("log_loss", "accuracy", "macro_f1")
    pair = staticmethod(pair)

    def __init__(self, classes: tuple[str, ...]) -> None:
        from . import classes as counting

        self._counting, self._classes = counting, classes
        self._at = {name: at for at, name in enumerate(classes)}

    def sums(self) -> Sums:
        return self._counting.empty(len(self._classes))

    def add(self, sums: Sums, said: Mapping[str, float], truth: str, sign: int = 1) -> float:
        return self._counting.counted(sums, self._listed(said), self._at[truth], sign)

    def spread(self, sums: Sums, said: Mapping[str, float], truth: str, loss: float, sign: int) -> None:
        self._counting.spread(sums, self._listed(said), loss, sign)

    def told(self, quality: Quality) -> Quality:
        if not isinstance(quality.confusion, Confusion):
            return quality
        return msgspec.structs.replace(quality, confusion=msgspec.structs.replace(quality.confusion, losses=[]))

    def paired(self, paired: Paired) -> Paired:
        return paired

    def labels(self, quality: Quality) -> Quality:
        return Quality(n=quality.n, confusion=Confusion(cells=self._counting.cells(quality)))

    def prior(self, n: int, positives: int, known: Quality) -> dict[str, float]:
        return {name: count / n for name, count in zip(self._classes, self._truths(known), strict=True)}

    def alike(self, n: int, positives: int, known: Quality) -> bool:
        return sum(count > 0 for count in self._truths(known)) < 2

    def usual(self, n: int, positives: int, known: Quality) -> str:
        found = self._truths(known)
        return self._classes[found.index(max(found))]

    def sure(self, truth: Truth) -> dict[str, float]:
        return {name: float(name == truth) for name in self._classes}

    def answering(self, baseline: Baseline, quality: Quality) -> Quality:
        assert isinstance(baseline, dict)
        return self._counting.alike(quality, self._listed(baseline))

    def prior_loss(self, baseline: Baseline, quality: Quality) -> float:
        return self.answering(baseline, quality).loss

    def against(self, baseline: Baseline, quality: Quality) -> Paired:
        assert isinstance(baseline, dict)
        return self._counting.against(quality, self._listed(baseline))

    def measured(self, quality: Quality, value: Value | None, last: Truth | None) -> dict[str, Measure]:
        at: Any = None if last is None else self._at.get(str(last))
        return self._counting.measured_quality(quality, len(self._classes), at)

    def answer(self, group: Grouped, said: Mapping[str, float], cut: int) -> None:
        listed = self._listed(said)
        self._count(group, self._classes[listed.index(max(listed))], chosen=1)

    def judge(self, group: Grouped, said: Mapping[str, float], truth: str, sign: int) -> None:
        if group.sums is None:
            group.sums = Sums()
        listed = self._listed(said)
        at, _ = self._counting.rated(group.sums, listed, self._at[truth], sign)
        group.scores += sign * (round(clipped(listed[at]) * GRAIN) / GRAIN)
        self._count(group, truth, true=sign)
        self._count(group, self._classes[at], said=sign, right=sign * (self._classes[at] == truth))

    def _count(self, group: Grouped, name: str, chosen: int = 0, true: int = 0, said: int = 0, right: int = 0) -> None:
        known = group.classes.get(name, _NEVER)
        group.classes[name] = Classed(known.chosen + chosen, known.true + true, known.said + said, known.right + right)

    def _truths(self, known: Quality) -> list[int]:
        return self._counting.truths(known, len(self._classes))

    def _listed(self, said: Mapping[str, float]) -> list[float]:
        return [said.get(name, 0.0) for name in self._classes]
