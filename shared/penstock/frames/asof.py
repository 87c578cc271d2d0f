"""The as-of join on two clocks: for each row of a spine, the newest values that were both true and known then.

A value has an *event time* (since when it holds) and a time at which it became *known*. A row asks at its event time t with
the knowledge of time k. It gets the value with the greatest event time that is at most t, of those known at k or before. Of
equal event times the one known last counts, of these the last in its frame. (A value holds from its event time on, so equal
times meet; windows are another matter: they end strictly before, see `compute`.)
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from .. import duration
from ..errors import PenstockError
from . import columns as frames
from .columns import MISSING

__all__ = ["as_of"]

Ints = npt.NDArray[np.int64]

ALWAYS = int(np.iinfo(np.int64).max)


def as_of(
    spine: pd.DataFrame,
    values: Mapping[str, pd.DataFrame],
    *,
    by: str | Sequence[str],
    time: str = "event_time",
    known_at: str = "known_at",
    within: str | None = None,
    as_known_now: bool = False,
) -> pd.DataFrame:
    """The spine with the columns of each frame of `values` as "name.column": one row per row of the spine, in its order and
    with its index, whatever is missing or repeated.

    `by` names the key columns and `time` the event time, in the spine and in every frame. `known_at` is a time or a position
    (an integer that grows, such as an offset); a frame without it was known from its event time on, a spine without it asks
    with the knowledge of its event time. `as_known_now` asks with all that ever became known. Values older than `within`
    ("7d") are missing. Integers come as Int64 and truths as boolean, so that a missing one stays exact.

    PenstockError says which column is not there or does not fit.

    >>> import pandas as pd, penstock as ps
    >>> day = lambda *d: pd.to_datetime([f"2026-01-{n:02}" for n in d], utc=True)
    >>> asked = pd.DataFrame({"card": ["a", "a", "b"], "event_time": day(2, 9, 9)})
    >>> limits = pd.DataFrame({"card": ["a", "a"], "event_time": day(1, 2), "known_at": day(1, 4), "limit": [10.0, 20.0]})
    >>> ps.as_of(asked, {"Limit": limits}, by="card")["Limit.limit"].tolist()  # on the 2nd nobody knew of the 20
    [10.0, 20.0, nan]
    """
    keys = [by] if isinstance(by, str) else list(by)
    length = ALWAYS if within is None else duration.micros(within)
    if not keys:
        raise PenstockError("`by` names no key column", 'by="card_id"')
    everyone = {"the spine": spine, **{f"the frame {name}": frame for name, frame in values.items()}}
    whose = dict(zip(everyone, _entities(everyone, keys), strict=True))
    asked = frames.micros(frames.place(spine, time, "the spine"), f"the spine, column {time},")
    knows = np.full(len(spine), ALWAYS) if as_known_now else _known(spine, known_at, "the spine")
    asking = _Asked.of(whose["the spine"], asked, asked if knows is None else knows)
    found: dict[str, Any] = {}
    for (name, frame), said in zip(values.items(), list(everyone)[1:], strict=True):
        moments = frames.micros(frames.place(frame, time, said), f"{said}, column {time},")
        known = _known(frame, known_at, said)
        if known is not None and knows is None and not _timed(frame[known_at]):
            raise PenstockError(
                f"{said} is known at positions, and the spine says of no row what it knows", f"give it {known_at}"
            )
        rows = _newest(len(spine), asking, whose[said], moments, known)
        rows[rows >= 0] = np.where(asked[rows >= 0] - moments[rows[rows >= 0]] <= length, rows[rows >= 0], -1)
        for column in frame.columns:
            if column not in (*keys, time, known_at):
                found[f"{name}.{column}"] = _taken(frames.place(frame, column, said), rows)
    twice = sorted(set(found) & set(map(str, spine.columns)))
    if twice:
        raise PenstockError(f"the spine has a column {twice[0]} already", "rename it, or the frame in `values`")
    joined = pd.DataFrame(found, index=spine.index, copy=False)
    return pd.concat([spine, joined], axis=1)


class _Asked(NamedTuple):
    """The rows of the spine that can be answered, sorted by (entity, time); `order` says where each one was."""

    order: Ints
    whose: Ints
    times: Ints
    knows: Ints

    @classmethod
    def of(cls, whose: Ints, times: Ints, knows: Ints) -> "_Asked":
        there = np.flatnonzero((whose >= 0) & (times != MISSING) & (knows != MISSING))
        order = there[np.argsort(_lines((whose[there], times[there]))[0])] if len(there) else there
        return cls(order, whose[order], times[order], knows[order])


def _entities(everyone: Mapping[str, pd.DataFrame], keys: Sequence[str]) -> list[Ints]:
    """The entity of each row of each frame, numbered over all; -1 where a part of its key is missing."""
    codes = []
    for key in keys:
        named = {said: frames.place(frame, key, said) for said, frame in everyone.items()}
        kinds = {said: _kind(series) for said, series in named.items()}
        if len({kind for kind in kinds.values() if kind}) > 1:
            told = ", ".join(f"{kind} in {said}" for said, kind in kinds.items() if kind)
            raise PenstockError(
                f'the key {key} is {told}: "1" and 1 are two names', f'frame["{key}"] = frame["{key}"].astype(...)'
            )
        plain = [s.astype(object) if len({str(other.dtype) for other in named.values()}) > 1 else s for s in named.values()]
        codes.append(pd.factorize(pd.concat(plain, ignore_index=True))[0].astype(np.int64))
    return np.split(frames.combined(codes), np.cumsum([len(frame) for frame in everyone.values()])[:-1])


def _kind(series: Any) -> str:
    """What a key column holds; empty where it is."""
    inferred = pd.api.types.infer_dtype(series, skipna=True)
    same = {"string": "text", "categorical": "text", "floating": "number", "integer": "number", "mixed-integer-float": "number"}
    return "" if inferred == "empty" or not len(series) else same.get(inferred, inferred)


def _timed(series: Any) -> bool:
    return not pd.api.types.is_integer_dtype(series.dtype)


def _known(frame: pd.DataFrame, name: str, said: str) -> Ints | None:
    """When each row became known (or what it knows), `MISSING` never; None without such a column."""
    if name not in frame.columns:
        return None
    series = frames.place(frame, name, said)
    if _timed(series):
        return frames.micros(series, f"{said}, column {name},")
    positions: Ints = series.to_numpy(np.int64, na_value=MISSING)
    return positions


def _newest(n: int, spine: _Asked, theirs: Ints, moments: Ints, known: Ints | None) -> Ints:
    """For each of the n rows of the spine the row of the frame that answers it, -1 where none does."""
    rows = np.full(n, -1, np.int64)
    there = np.flatnonzero((theirs >= 0) & (moments != MISSING) & ((known != MISSING) if known is not None else True))
    if not len(there) or not len(spine.order):
        return rows
    if known is not None:
        there = there[np.argsort(known[there], kind="stable")]
    lines, asked = _lines((theirs[there], moments[there]), (spine.whose, spine.times))
    order = np.argsort(lines, kind="stable")
    lines, there = lines[order], there[order]
    at = np.searchsorted(lines, asked, "right") - 1
    if known is not None:
        clock = known[there]
        early = np.flatnonzero((at >= 0) & (clock[np.maximum(at, 0)] > spine.knows))
        at[early] = _last_at_most(clock, at[early], spine.knows[early])
    answered = np.flatnonzero(at >= 0)
    answered = answered[theirs[there[at[answered]]] == spine.whose[answered]]
    rows[spine.order[answered]] = there[at[answered]]
    return rows


def _lines(*sides: tuple[Ints, Ints]) -> list[Ints]:
    """(entity, time) as one number that sorts alike."""
    times = [t for _, t in sides]
    low, high = min(int(t.min()) for t in times), max(int(t.max()) for t in times)
    if (max(int(whose.max()) for whose, _ in sides) + 2) * (high - low + 1) >= 1 << 63:  # then a time is replaced by its rank
        steps = np.unique(np.concatenate(times), sorted=True)
        times, low, high = [np.searchsorted(steps, t) for t in times], 0, len(steps)
    return [whose * (high - low + 1) + (t - low) for (whose, _), t in zip(sides, times, strict=True)]


def _last_at_most(values: Ints, upto: Ints, bounds: Ints) -> Ints:
    """For each query the greatest index <= `upto` whose value is <= its bound, -1 where there is none.

    Over a pyramid of minima of 2, 4, 8, ... neighbours: up until a block has such a value, down to the last one in it;
    2 log2(n) steps over all queries at once, however far back the answers lie.
    """
    pyramid = [values]
    while len(pyramid[-1]) > 1:
        below = pyramid[-1]
        even = below[: len(below) // 2 * 2].reshape(-1, 2).min(axis=1)
        pyramid.append(np.concatenate([even, below[len(even) * 2 :]]))
    block, level = upto + 1, np.full(len(upto), -1)
    for height, least in enumerate(pyramid):  # `block` is how many blocks of this height are still to be searched
        odd = np.flatnonzero((level < 0) & (block & 1 == 1))
        block[odd] -= 1
        fits = odd[least[block[odd]] <= bounds[odd]]
        level[fits] = height
        block[level < 0] >>= 1
    for height in range(len(pyramid) - 1, 0, -1):
        down = np.flatnonzero(level == height)
        least, right = pyramid[height - 1], 2 * block[down] + 1
        inside = right < len(least)
        inside[inside] = least[right[inside]] <= bounds[down[inside]]
        block[down], level[down] = np.where(inside, right, right - 1), height - 1
    return np.where(level < 0, -1, block)


def _taken(series: Any, rows: Ints) -> Any:
    """The values of these rows; missing for -1. Whole numbers and truths become those of pandas that can be missing."""
    if pd.api.types.is_integer_dtype(series.dtype) and isinstance(series.dtype, np.dtype):
        series = series.astype(f"{'U' if series.dtype.kind == 'u' else ''}Int64")
    elif series.dtype == bool:
        series = series.astype("boolean")
    return pd.api.extensions.take(series.array, rows, allow_fill=True)
