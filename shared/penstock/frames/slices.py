"""Slices: where a model fails. An error model learns on one half of the answers which inputs go with loss, and is judged on the
other, so that what it names is no accident of the rows in which it was found.

    1  the answers are halved by a hash of their id: a later answer changes the half of no earlier one
    2  on the first half a tree of three levels at most (CART; Breiman et al. 1984) learns the loss; its nodes with more loss than
       the rest are tried, the surest first, as long as they have no row in common: five at most
    3  on the second half each is compared with the rest: the difference of the mean losses with the interval of Welch (1947), all
       at once at 95 % (Bonferroni). It is named if the interval lies above 0, and the difference is material
    4  what is named is ranked by its part of all loss: rows times difference

So where loss has nothing to do with the inputs, some slice is named in at most 2.5 % of runs. Rows count as independent of each
other: if few entities give most of them, intervals are narrower than they should be. Slices that need more conditions, or are
smaller than a hundredth of the rows or 30, are not looked for.

Loss alone does not tell ignorance from error: where the truth is a coin toss, it is high at best. `expected` is the loss that a
model's own scores made expect: near the loss, the model knew how little it knew; far below, it was wrong without knowing. With
`surprising` only the latter counts: the difference between the two is looked for and judged instead of the loss, and a model
whose probabilities are right has no slice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from math import inf, isfinite
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from ..comparison.columns import Values, values_of
from ..errors import PenstockError
from ..mistake import nearest
from ..segment import MISSING
from ..statistics.loss import CLIP, log_losses
from .condition import Condition

if TYPE_CHECKING:
    from datetime import datetime

    import pandas as pd

    from ..drift import Rows
    from ..label import Label
    from ..offline import Tables

__all__ = ["Slice", "Slices", "archived", "slices"]

Floats = npt.NDArray[np.float64]
Truths = npt.NDArray[np.bool_]
Loss = Literal["log_loss", "absolute_error", "pinball_loss", "zero_one_loss"]

RECORD: Final = (
    "id", "key", "time", "labelled", "label", "answered", "corrects", "score", "scores", "version", "variant", "source",
    "truth", "corrected", "answer", "probabilities", "segments", "topic_id", "partition", "offset",
)  # fmt: skip
"""Columns of outcomes that are no inputs."""
DEPTH: Final = 3
TRIED: Final = 5
LEAST_ROWS, LEAST_SHARE = 30, 0.01
"""Of a slice, in either half."""
ENOUGH: Final = 200
"""Fewer answers in all are no two halves."""
LEVELS: Final = 50
"""Levels of a column that are told apart, the most frequent; "city is not Rome" holds all others."""
MATERIAL: Final = 0.1
"""Loss beyond that of the rest below which a difference is no matter, as a part of it."""
NOBODY: Final = "none"
"""The version of answers that were given before there was a model (services/monitoring/counting/window.py)."""


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    """Answers that fulfil all conditions, as judged on the half in which they were not found."""

    where: str
    """The conditions in words."""
    conditions: tuple[Condition, ...]
    rows: int
    share: float
    loss: float
    """Mean, here."""
    rest: float
    """Mean, of all others."""
    excess: float
    """Their difference; with `Slices.surprising`, that of how much of each was not expected."""
    low: float
    """The interval that holds the excess, of all slices that were tried at once, at 95 %."""
    high: float
    expected: float | None
    """Mean loss that the model's own scores made expect here; null of numbers, whose answers say nothing of it."""


class Slices(msgspec.Struct, frozen=True, kw_only=True):
    """Where a model fails; `slices` is empty where no slice was found, and `why` says so in a sentence."""

    why: str
    loss_is: Loss
    surprising: bool
    """Whether loss counts only as far as the scores did not make it expect."""
    rows: int
    """Answers with a label, in both halves."""
    judged: int
    loss: float | None
    """Mean, of those judged."""
    tried: int
    slices: tuple[Slice, ...] = ()

    def __str__(self) -> str:
        lines = [
            f"  {each.where}: {each.rows:,} rows ({each.share:.1%}), loss {each.loss:.4f}, rest {each.rest:.4f}, "
            f"excess {each.excess:.4f} ({each.low:.4f} to {each.high:.4f})"
            for each in self.slices
        ]
        return "\n".join([self.why, *lines])


def slices(
    outcomes: Rows,
    *,
    inputs: Sequence[str] | None = None,
    label: str = "label",
    score: str = "score",
    id: str | None = "id",  # noqa: A002
    surprising: bool = False,
    material: float = MATERIAL,
    quantile: float | None = None,
    answer: str = "answer",
) -> Slices:
    """The slices of inputs in which answers were worst, most harmful first.

    `outcomes`: a frame, a pyarrow table, or the path of a .parquet or .csv file, one row an answer, with its `label` and `score`:
    where labels are true or false, the probability of true (loss: log loss in nats), else the number that was answered (absolute
    error). Where labels name classes, `answer` is the column of the class that was named, and the score its probability (zero-one
    loss, whose mean is the share of wrong answers). `inputs`: the columns that may tell a slice; default: all but those that are
    of outcomes themselves. `id`: the column by which rows are halved; None, or one that is not there: by their place.
    `surprising`: count loss only as far as the scores did not make it expect. `material`: the least excess that is named, as a
    part of the rest's loss. `quantile`: the one that was answered, as `ps.label(..., quantile=0.9)` has it (pinball loss).

    PenstockError: no such column, labels that are neither truths, numbers nor classes with their answers, a quantile not between
    0 and 1, or `surprising` without probabilities.

    >>> import pandas as pd
    >>> rng = np.random.default_rng(0)
    >>> rows = pd.DataFrame({"amount": 50.0 * rng.integers(0, 10, 4000), "city": rng.choice(["Rome", "Bari"], 4000)})
    >>> rows["score"] = 0.9
    >>> blind = (rows["amount"] > 400) & (rows["city"] == "Rome")
    >>> rows["label"] = rng.random(4000) < np.where(blind, 0.4, 0.9)
    >>> print(slices(rows).slices[0].where)
    amount > 400 and city is Rome
    """
    if quantile is not None and not 0 < quantile < 1:
        raise PenstockError(f"quantile={quantile} is none", "it lies between 0 and 1: slices(outcomes, quantile=0.9)")
    frame = _frame(outcomes)
    own = (*RECORD, label, score, id, answer)
    named = [name for name in frame.columns if name not in own] if inputs is None else list(inputs)
    for name in (label, score, *named):
        if name not in frame.columns:
            raise PenstockError(f"the outcomes have no column {name!r}", nearest(name, list(frame.columns)))
    known = (frame[label].notna() & frame[score].notna()).to_numpy(bool)
    frame = frame[known]
    losses, expected, loss_is = _losses(frame[label], frame[score], quantile, frame.get(answer))
    first = _halves(frame[id] if id is not None and id in frame.columns else range(len(frame)))
    learnt, judged = int(first.sum()), len(frame) - int(first.sum())
    if surprising and expected is None:
        raise PenstockError("only probabilities make a loss expect, and these scores are none", "slices(outcomes)")
    counted = losses - expected if surprising and expected is not None else losses
    said: dict[str, Any] = {"loss_is": loss_is, "surprising": surprising, "rows": len(frame), "judged": judged, "tried": 0}
    said["loss"] = float(losses[~first].mean()) if judged else None
    if len(frame) < ENOUGH or not named:
        few = f"{len(frame):,} answers have a label; {ENOUGH} are needed" if named else "there is no input"
        return Slices(why=f"no slice can be looked for: {few}", **said)
    tests = [test for name in named for test in _tests(name, values_of(frame[name]), first)]
    least = max(LEAST_ROWS, int(LEAST_SHARE * min(learnt, judged)))
    candidates = _candidates(tests, counted, first, least)
    found = _judged(candidates, counted, losses, expected, ~first, least, material)
    said["tried"] = len(candidates)
    told = f"{judged:,} answers that it was not looked for in"
    if not found:
        return Slices(why=f"no slice found: none of {len(candidates)} tried is surely and materially worse on {told}", **said)
    count = f"{len(found)} slice{'s' if len(found) > 1 else ''}"
    return Slices(why=f"{count} found, worse than the rest on {told}", slices=tuple(found), **said)


def archived(
    tables: Tables,
    topic: str,
    label: Label,
    inputs: Sequence[str],
    start: datetime | None = None,
    end: datetime | None = None,
    segments: Sequence[str] = (),
) -> pd.DataFrame:
    """The archived outcomes of a model for `slices`: of each answer the newest, without those that no model gave. `topic`: of its
    outcomes; `label`: as declared, for outcomes of before it was are of another kind; `start`, `end`: between which (the end
    exclusive) the scored events lie. `segments`: those declared, a column each of the levels that answers carry; but for those of
    an input, which says more. PenstockError where there are none."""
    import pyarrow.compute as pc

    table = tables.table(topic)
    inside = pc.scalar(True)
    if start is not None:
        inside = inside & (pc.field("time") >= start)
    if end is not None:
        inside = inside & (pc.field("time") < end)
    there = table.schema.names
    levels = [name for name in segments if name not in inputs] if "segments" in there else []
    truth = label.kept
    named = ["id", truth, "score", "version", *(name for name in ("answer", *inputs) if name in there)]
    named += ["segments"] if levels else []
    frame: pd.DataFrame = table.arrow([*named, "partition", "offset"], inside).to_pandas()
    frame = frame.sort_values(["partition", "offset"]).drop_duplicates("id", keep="last", ignore_index=True)
    frame = frame.loc[frame["version"] != NOBODY, named].reset_index(drop=True).rename(columns={truth: "label"})
    if levels:
        carried = [msgspec.json.decode(said) if said else {} for said in frame.pop("segments")]
        for name in levels:
            found = [each.get(name, MISSING) for each in carried]
            frame[name] = np.array([None if level == MISSING else level for level in found], object)
    return frame


def _frame(rows: Any) -> pd.DataFrame:
    from os import PathLike
    from pathlib import Path

    import pandas as pd

    if isinstance(rows, (str, PathLike)):
        from .tabular import frame_of

        rows = frame_of(Path(rows))
    elif not isinstance(rows, pd.DataFrame) and hasattr(rows, "to_pandas"):
        rows = rows.to_pandas()
    if not isinstance(rows, pd.DataFrame):
        fix = "a DataFrame, a pyarrow Table, or the path of a .parquet or .csv file"
        raise PenstockError(f"the outcomes are a {type(rows).__name__}, no table", fix)
    return rows


def _losses(
    label: pd.Series[Any], score: pd.Series[Any], quantile: float | None, answer: pd.Series[Any] | None
) -> tuple[Floats, Floats | None, Loss]:
    """The loss of each row, what its score made expect, and which loss it is. `answer`: the class that was named."""
    from pandas.api.types import infer_dtype

    try:
        said = score.to_numpy(np.float64)
        if answer is not None and infer_dtype(label) in ("string", "categorical"):
            wrong = np.asarray(label.astype(str) != answer.astype(str), np.float64)
            return wrong, np.asarray(1 - said) if ((said >= 0) & (said <= 1)).all() else None, "zero_one_loss"
        truths = label.to_numpy(np.float64)
    except (TypeError, ValueError):
        fix = "slices(outcomes, label=..., score=...), and of classes answer=..., the column of those that were named"
        raise PenstockError("labels and scores must be truths or numbers, or labels classes", fix) from None
    if quantile is not None:  # as statistics/errors.py: pinball
        return np.maximum(quantile * (truths - said), (quantile - 1) * (truths - said)), None, "pinball_loss"
    if np.isin(truths, (0.0, 1.0)).all() and ((said >= 0) & (said <= 1)).all():
        p = np.clip(said, CLIP, 1 - CLIP)
        return log_losses(truths == 1, said), -(p * np.log(p) + (1 - p) * np.log1p(-p)), "log_loss"
    return np.abs(truths - said), None, "absolute_error"


def _halves(ids: Any) -> Truths:
    """Whether each row is of the half that is learnt from."""
    return np.array([blake2b(f"slices:{each}".encode(), digest_size=1).digest()[0] & 1 for each in ids], bool)


@dataclass(frozen=True)
class _Test:
    """A column for the tree: numbers, with what is missing below all others, or whether a level is there (1) or not (0)."""

    input: str
    values: Floats
    level: str | None = None
    other: str | None = None
    """The only other level there is."""
    missing: bool = False
    """With numbers: some are missing, and lie below; without a level and numbers: whether the input is missing."""
    numbers: bool = False


def _tests(name: str, found: Values, first: Truths) -> list[_Test]:
    if found.kind == "numbers":
        gone = np.isnan(found.numbers)
        tests = [_Test(name, np.where(gone, -np.inf, found.numbers), missing=bool(gone.any()), numbers=True)]
    elif found.kind in ("bool", "levels"):
        gone = found.codes < 0
        counts = np.bincount(found.codes[first & ~gone], minlength=len(found.levels))
        usual = [at for at in np.argsort(-counts, kind="stable")[:LEVELS] if counts[at]]
        other = found.levels[usual.pop(0)] if len(usual) == 2 == len(found.levels) and not gone.any() else None
        tests = [_Test(name, (found.codes == at).astype(np.float64), found.levels[at], other) for at in usual]
    else:
        return []  # times move by themselves, and nothing is nothing
    return [*tests, _Test(name, gone.astype(np.float64), missing=True)] if gone.any() else tests


@dataclass(frozen=True)
class _Candidate:
    conditions: tuple[Condition, ...]
    inside: Truths
    """Of all rows."""


def _candidates(tests: Sequence[_Test], counted: Floats, first: Truths, least: int) -> list[_Candidate]:
    """The nodes of the tree that are worse than the rest where it was learnt, the surest first, no two with a row in common."""
    if not tests:
        return []
    from sklearn.tree import DecisionTreeRegressor

    ranks = [np.unique(test.values[first], return_inverse=True) for test in tests]  # no size or infinity is too much for them
    matrix = np.column_stack([places.astype(np.float32) for _, places in ranks])
    tree = DecisionTreeRegressor(max_depth=DEPTH, min_samples_leaf=least, random_state=0).fit(matrix, counted[first]).tree_
    ranked = []
    nodes: list[tuple[int, Truths, list[tuple[_Test, float, bool]]]] = [(0, np.ones(len(counted), bool), [])]
    while nodes:
        node, inside, path = nodes.pop()
        if path and (worse := _compared(counted[inside & first], counted[~inside & first])) is not None and worse[0] > 0:
            ranked.append((worse[0] / worse[1], _Candidate(_conditions(path), inside)))
        if tree.children_left[node] < 0:
            continue
        test, values = tests[tree.feature[node]], ranks[tree.feature[node]][0]
        there, middle = test.values[inside & first], values[int(tree.threshold[node])]
        cut = _readable(float(there[there <= middle].max()), float(there[there > middle].min()))
        below = test.values <= cut
        nodes.append((tree.children_left[node], inside & below, [*path, (test, cut, True)]))
        nodes.append((tree.children_right[node], inside & ~below, [*path, (test, cut, False)]))
    ranked.sort(key=lambda each: -each[0])
    kept: list[_Candidate] = []
    for _, candidate in ranked:
        if len(kept) < TRIED and not any((candidate.inside & other.inside).any() for other in kept):
            kept.append(candidate)
    return kept


def _readable(low: float, high: float) -> float:
    """The number of the fewest digits that is `low` or more and less than `high`.

    >>> _readable(3.0, 4.0), _readable(199.2, 200.7), _readable(-np.inf, 2.0)
    (3.0, 200.0, -inf)
    """
    middle = low / 2 + high / 2
    for digits in range(1, 17):
        for number in (middle, low):
            found = float(f"{number:.{digits}g}")
            if low <= found < high:
                return found
    return low


def _conditions(path: Sequence[tuple[_Test, float, bool]]) -> tuple[Condition, ...]:
    """The tests on the way to a node as one condition for each input, in order of their first test."""
    grouped: dict[str, list[tuple[_Test, float, bool]]] = {}
    for step in path:
        grouped.setdefault(step[0].input, []).append(step)
    found = []
    for name, steps in grouped.items():
        numbers = [(cut, below) for test, cut, below in steps if test.numbers and not (test.missing and cut == -inf)]
        above = max((cut for cut, below in numbers if not below), default=None)
        at_most = min((cut for cut, below in numbers if below), default=None)
        gone = [below == test.numbers for test, cut, below in steps if test.missing and (cut == -inf or not test.numbers)]
        levels = [(test.other, False) if below and test.other else (test.level, below) for test, _, below in steps if test.level]
        level = next((each for each, below in levels if not below), None)
        mixed = any(test.missing for test, _, _ in steps if test.numbers)
        if True in gone:
            found.append(Condition(input=name, missing=True))
            continue
        others = () if level is not None else tuple(str(each) for each, below in levels if below)
        others += ("missing",) if others and gone else ()
        may = mixed and at_most is not None and above is None and not gone
        found.append(Condition(input=name, above=above, at_most=at_most, missing=may, level=level, others=others))
    return tuple(found)


def _compared(here: Floats, rest: Floats) -> tuple[float, float, float] | None:
    """How far the mean here lies above that of the rest, its standard error, and the degrees of freedom (Welch 1947); None where
    nothing can be said."""
    if min(len(here), len(rest)) < 2:
        return None
    parts = [float(each.var(ddof=1)) / len(each) for each in (here, rest)]
    error = sum(parts)
    if not isfinite(error) or error <= 0:
        return None
    freedom = error**2 / sum(part**2 / (len(each) - 1) for part, each in zip(parts, (here, rest), strict=True))
    return float(here.mean() - rest.mean()), float(np.sqrt(error)), freedom


def _judged(
    candidates: Sequence[_Candidate],
    counted: Floats,
    losses: Floats,
    expected: Floats | None,
    second: Truths,
    least: int,
    material: float,
) -> list[Slice]:
    """Those that are worse on the second half, too, the most harmful first."""
    from scipy import stats

    judged, found = int(second.sum()), []
    for candidate in candidates:
        here, rest = candidate.inside & second, ~candidate.inside & second
        compared = _compared(counted[here], counted[rest])
        if compared is None or here.sum() < least:
            continue
        excess, error, freedom = compared
        half = float(stats.t.ppf(1 - 0.025 / len(candidates), freedom)) * error
        mean = float(losses[rest].mean())
        if excess - half <= 0 or excess < material * mean:
            continue
        found.append(
            Slice(
                where=" and ".join(map(str, candidate.conditions)),
                conditions=candidate.conditions,
                rows=int(here.sum()),
                share=int(here.sum()) / judged,
                loss=float(losses[here].mean()),
                rest=mean,
                excess=excess,
                low=excess - half,
                high=excess + half,
                expected=None if expected is None else float(expected[here].mean()),
            )
        )
    return sorted(found, key=lambda each: -each.rows * each.excess)
