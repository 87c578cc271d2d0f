"""Hours: the reference by hour of the week, so that like is compared with like.

Monday at 8 is compared with Mondays at 8, where the reference has enough of them; else with that hour of weekdays, else with that
hour, else with all of it. The times are UTC. Each answer expects the distribution of its own hours, and what the answers of a
window expect adds up, in whole numbers (shares in units of 1 / SHARE), over partitions and windows.

Who lives by local clocks is an hour early or late from the day on which these change: an input with a strong custom of single
hours may drift then, until a version is fitted on rows of that half of the year. (A zone would be part of the reference.)

An hour is thin with fewer than LEAST_DAYS days of it: rows of one day are too much alike to stand for all days of their kind.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from ..duration import DAY, HOUR
from ..errors import PenstockError
from .shift import LEAST_VALUES, LEAST_WINDOWS, MOST_REPLAYED, USUAL, beyond, distances, raised_by, spread_of, usual_of

__all__ = ["SHARE", "WEEK", "Hours", "customs_of", "hour_of_week", "hours_of", "spreads_of"]

Ints = npt.NDArray[np.int64]

WEEK: Final = 168
SHARE: Final = 1 << 20
LEAST_DAYS = 4
LARGEST = 1 << 28
"""Bytes of a file, unpacked: 168 hours of 10,000 inputs."""

_HOUR = np.arange(WEEK)
LEVELS: Final = (_HOUR, 24 * (_HOUR >= 120) + _HOUR % 24, _HOUR % 24, 0 * _HOUR)
"""The part of the week that an hour belongs to, from the finest: hour of week, hour of weekdays or of weekends, hour of day,
all."""


def hour_of_week(times: Ints) -> Ints:
    """Hours since Monday 0:00 UTC of microseconds since 1970, which began on a Thursday.

    >>> hour_of_week(np.array([0, 4 * 24 * 3_600_000_000])).tolist()
    [72, 0]
    """
    return (times // HOUR + 72) % WEEK


@dataclass(frozen=True, eq=False)
class Hours:
    """`group` (168,) says which part of the week an hour is compared with; `rows` (groups,) how many rows of the reference that
    part has, `counts` (groups, bins) how they fall, by input."""

    group: Ints
    rows: Ints
    counts: dict[str, Ints]

    def shares(self, name: str) -> Ints:
        """(groups, bins): the distribution of each part, in units of 1 / SHARE."""
        return np.rint(self.counts[name] * (SHARE / np.maximum(self.rows, 1))[:, None]).astype(np.int64)

    def dumped(self) -> bytes:
        """The file (npz). The same reference gives the same bytes."""
        held, names = io.BytesIO(), list(self.counts)
        widths = [self.counts[name].shape[1] for name in names]
        np.savez_compressed(
            held,
            group=self.group.astype(np.uint8),
            rows=self.rows,
            names=np.frombuffer(msgspec.json.encode(names), np.uint8),
            widths=np.array(widths, np.int64),
            counts=np.concatenate([self.counts[name] for name in names], axis=1).astype(np.uint32),
        )
        return held.getvalue()

    @classmethod
    def opened(cls, data: bytes) -> Hours:
        """What was dumped; PenstockError where it is something else."""
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as parts:
                if sum(part.file_size for part in parts.infolist()) > LARGEST:
                    raise ValueError("too large")
            with np.load(io.BytesIO(data), allow_pickle=False) as held:
                names = msgspec.json.decode(held["names"].tobytes(), type=list[str])
                parts_ = np.split(held["counts"].astype(np.int64), np.cumsum(held["widths"])[:-1], axis=1)
                found = cls(held["group"].astype(np.int64), held["rows"], dict(zip(names, parts_, strict=True)))
                if found.group.shape != (WEEK,) or not 0 <= found.group.max() < len(found.rows) == len(held["counts"]):
                    raise ValueError("its parts do not fit together")
        except Exception as error:  # truncated, another shape, a missing array: whatever it is, it is no reference
            cause = f"the reference by hours is damaged ({type(error).__name__}: {error}): not opened"
            raise PenstockError(cause, "restore the file, or fit a new version") from None
        return found


def hours_of(times: Ints, places: Mapping[str, Ints], widths: Mapping[str, int]) -> Hours:
    """The reference by hours, of rows at `times` (microseconds) whose values fall to bins `places`, of `widths` bins, by
    input."""
    parts = _parts(times)
    group = np.zeros(WEEK, np.int64)
    for number, (_, hours) in enumerate(parts):
        group[hours] = number
    rows = [member for member, _ in parts]
    counts = {
        name: np.array([np.bincount(places[name][member], minlength=widths[name]) for member in rows], np.int64)
        for name in places
    }
    return Hours(group, np.array([len(member) for member in rows], np.int64), counts)


def customs_of(
    times: Ints, places: Mapping[str, Ints], widths: Mapping[str, int], lengths: Sequence[int]
) -> dict[int, dict[str, float]]:
    """The spreads of inputs by length of time (microseconds); lengths of which the reference has too few windows, or windows of
    too few values, are left out: of these nothing is known."""
    found = {length: spreads_of(times, places, widths, length) for length in sorted(set(lengths))}
    return {length: spreads for length, spreads in found.items() if spreads is not None}


def spreads_of(times: Ints, places: Mapping[str, Ints], widths: Mapping[str, int], every: int) -> dict[str, float] | None:
    """How much each input moves by its own custom (see shift.py), as a rule or in the tail, whichever is more: each of the newest
    MOST_REPLAYED windows of `every` against the reference without it, compared as monitoring will. Inputs without any spread
    are left out; None where too few windows tell."""
    parts, names = _parts(times), list(places)
    numbers, window = np.unique(times // every, return_inverse=True)
    windows = min(len(numbers), MOST_REPLAYED)
    window = window - (len(numbers) - windows)  # negative: before those that are replayed
    inside = window >= 0
    n = np.bincount(window[inside], minlength=windows)
    part = np.zeros(WEEK, np.int64)
    for number, (_, hours) in enumerate(parts):
        part[hours] = number
    own = np.bincount(part[hour_of_week(times)][inside] * windows + window[inside], minlength=len(parts) * windows)
    own = own.reshape(len(parts), windows)
    told = n >= LEAST_VALUES
    noise = 1.0 / np.maximum(n, 1)
    expected = {name: np.zeros((windows, widths[name])) for name in names}
    for (member, _), uses in zip(parts, own, strict=True):
        seen = member[inside[member]]
        rest = len(member) - np.bincount(window[seen], minlength=windows)
        told &= (rest > 0) | (uses == 0)
        noise += (uses / np.maximum(n, 1)) ** 2 / np.maximum(rest, 1)
        for name in names:
            width = widths[name]
            mine = np.bincount(window[seen] * width + places[name][seen], minlength=windows * width).reshape(windows, width)
            others = np.bincount(places[name][member], minlength=width) - mine
            expected[name] += (uses / np.maximum(rest, 1))[:, None] * others
    if told.sum() < LEAST_WINDOWS:
        return None
    found, usual = {}, usual_of(every)
    for name in names:
        width = widths[name]
        now = np.bincount(window[inside] * width + places[name][inside], minlength=windows * width).reshape(windows, width)
        apart, raised = distances(now, expected[name]), raised_by(expected[name])
        if spread := max(spread_of(beyond(apart, noise, raised, at)[told].tolist(), at) for at in {USUAL, usual}):
            found[name] = round(spread, 4)
    return found


def _parts(times: Ints) -> list[tuple[Ints, Ints]]:
    """The parts of the week in use: the rows in each, and the hours that are compared with it (the finest that is not thin)."""
    hour, day = hour_of_week(times), times // DAY
    days, hours = np.unique(np.stack([day, hour]), axis=1)
    found: list[tuple[Ints, Ints]] = []
    left = np.ones(WEEK, np.bool_)
    for level in LEVELS:
        coarse = level is LEVELS[-1]
        for number in np.unique(level[left]):
            member = np.flatnonzero(level[hour] == number)
            lasted = len(np.unique(days[level[hours] == number]))
            if coarse or lasted >= LEAST_DAYS:
                mine = left & (level == number)
                left &= ~mine
                found.append((member, np.flatnonzero(mine)))
    return found
