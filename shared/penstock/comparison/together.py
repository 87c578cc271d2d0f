"""All columns together: can a classifier tell the tables apart? It sees what no single column shows, such as a correlation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from ..statistics.drift import ALPHA, Verdict
from .columns import Values

__all__ = ["FLOOR", "Together", "told_apart"]

MOST_ROWS: Final = 10_000
"""Of each side, evenly from all: enough to see an AUC of 0.52, and a second's work."""
LEAST_ROWS: Final = 50
FLOOR: Final = 0.55
"""An AUC up to here is no matter: one column with a Kolmogorov-Smirnov distance of 0.05 gives about 0.535."""
LEVELS: Final = 200
"""Levels of a column that the classifier is told apart, the most frequent; it takes 255 at most."""


class Together(msgspec.Struct, frozen=True, kw_only=True):
    """`auc`: the chance that a current row looks more current to the classifier than a row of the reference; 0.5: no
    difference."""

    verdict: Verdict
    why: str
    auc: float | None = None
    p: float | None = None
    rows: int = 0
    """On which it was judged: none of those that it learnt from."""


def told_apart(columns: Sequence[tuple[Values, Values]], alpha: float = ALPHA) -> Together:
    """A domain classifier (Ben-David et al. 2007; Lopez-Paz, Oquab 2017), boosted trees: learns on the even rows, is judged on
    the odd ones by the test of Mann and Whitney (1947), which is valid as it has seen none of them."""
    from scipy import stats
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    sides = [_matrix(columns, side) for side in (0, 1)]
    rows = [len(side) for side in sides]
    if not columns or min(rows) < LEAST_ROWS:
        return Together(verdict="unknown", why=f"{rows[1]:,} and {rows[0]:,} rows are too few to learn from")
    x, y = np.concatenate(sides), np.repeat([0, 1], rows)
    learns = np.concatenate([np.arange(n) % 2 == 0 for n in rows])
    texts = [at for at, (then, _) in enumerate(columns) if then.kind == "levels"]
    model = HistGradientBoostingClassifier(
        max_iter=60,
        max_leaf_nodes=8,
        min_samples_leaf=50,
        learning_rate=0.05,
        categorical_features=texts or None,
        class_weight="balanced",
        random_state=0,
    )
    with threadpool_limits(1):  # so small a fit is slower on several threads, by far when other work shares the cores
        score = model.fit(x[learns], y[learns]).predict_proba(x[~learns])[:, 1]
    now, then = score[y[~learns] == 1], score[y[~learns] == 0]
    tested = stats.mannwhitneyu(now, then, alternative="greater")
    auc, p = float(tested.statistic) / (len(now) * len(then)), float(tested.pvalue)
    verdict: Verdict = "drift" if p < alpha and auc > FLOOR else "steady"
    why = f"a classifier tells them apart with an AUC of {auc:.3f}, {'above' if auc > FLOOR else 'not above'} {FLOOR}"
    return Together(verdict=verdict, why=why, auc=auc, p=p, rows=len(score))


def _matrix(columns: Sequence[tuple[Values, Values]], side: int) -> npt.NDArray[np.float64]:
    """(rows, columns), NaN where missing or infinite; levels by their rank in the reference."""
    made = []
    for pair in columns:
        then, values = pair[0], pair[side]
        if then.kind == "numbers":
            found = np.where(np.isfinite(values.numbers), values.numbers, np.nan)
        else:
            often = np.bincount(then.codes[then.codes >= 0], minlength=len(then.levels))
            ranked = [then.levels[at] for at in np.argsort(-often, kind="stable")[:LEVELS].tolist()]
            rank = {level: float(at) for at, level in enumerate(ranked)}
            found = np.array([*(rank.get(level, float(LEVELS)) for level in values.levels), np.nan])[values.codes]
        chosen = np.linspace(0, max(len(found) - 1, 0), min(len(found), MOST_ROWS)).astype(np.int64)
        made.append(found[chosen])
    return np.column_stack(made) if made else np.zeros((0, 0))
