"""The layout that a set of views by one key needs: where tracks, rings and windows lie in an entity's row of words.

Made once per hop from the declarations; the kernel gets it as tables of integers. Two aggregates share what they can: a track
per (column, condition, lateness), a ring per (track, hop) as long as its longest window, words of a tile per ring.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from ..aggregate import Aggregate, Condition, code, hop_of
from ..event import Column, Event
from ..feature import View
from . import sketch
from .kernel import HEAD, KINDS, NEVER

__all__ = ["Shape", "Track", "numbers"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

LAYOUT = 3
"""Raised when words get another meaning: state of another layout is recognised and never misread."""
_FIELDS: dict[str, tuple[str, ...]] = {
    "total": ("sum", "mean"), "least": ("min",), "most": ("max",), "spread": ("var", "std"), "earliest": ("first",),
    "set": ("distinct",), "ranks": ("quantile",), "common": ("top",),
}  # fmt: skip
"""The words that a tile keeps, and for which aggregates; in the order of the kernel's columns."""
_IN_TILES = {"count", *(kind for kinds in _FIELDS.values() for kind in kinds)}


@dataclass(frozen=True)
class Track:
    """The values of one column (None: of the event, 1.0 each) of those events that meet a condition."""

    event: Event
    column: Column | None
    condition: Condition
    late: int

    @property
    def key(self) -> tuple[object, ...]:
        return self.event, self.column, self.condition.key, self.late

    @property
    def group(self) -> tuple[object, ...]:
        """Tracks of one group have a value for the same events: their columns are never missing, their condition is the same."""
        optional = self.column is not None and self.column.optional
        return self.event, self.column if optional else None, self.condition.key, self.late

    def values(self, decoded: Sequence[Any]) -> Floats:
        """Of events of its kind, float64; NaN where missing, infinite, or where the condition does not hold."""
        found = np.ones(len(decoded)) if self.column is None else numbers(self.column, decoded)
        if self.condition.key != Condition().key:
            found[~np.fromiter(map(self.condition.holds, decoded), bool, len(decoded))] = np.nan
        return found


def numbers(column: Column, decoded: Sequence[Any]) -> Floats:
    """A column of events as float64, NaN where missing or infinite; text as codes."""
    values: Any = map(attrgetter(column.name), decoded)
    if column.kind == "text":
        values = (np.nan if v is None else code(v) for v in values)
    elif column.optional:
        values = (np.nan if v is None else v for v in values)
    found = np.fromiter(values, np.float64, len(decoded))
    found[np.isinf(found)] = np.nan
    return found


class Shape:
    """`columns` are the values that the kernel writes, in order; `words` the length of an entity's row."""

    def __init__(self, views: Sequence[View]) -> None:
        self.views = tuple(views)
        shown = [(view, part) for view in views for feature in view.features for part in feature.parts]
        hidden = [(view, part) for view, ratio in shown for part in ratio.of]
        parts = shown + hidden
        self.columns = [name for view in views for feature in view.features for name in feature.columns]
        self.events: list[Event] = list(dict.fromkeys(part.event for _, part in parts))
        self.tracks: list[Track] = []
        of = [-1 if part.of else self._track(view, part, parts) for view, part in parts]
        tiled = [(t, part) for t, (_, part) in zip(of, parts, strict=True) if part.kind in _IN_TILES]
        keys = sorted({(t, hop_of(part.over)) for t, part in tiled})
        windows = sorted({(t, hop_of(part.over), part.over) for t, part in tiled})
        self._lay_tracks(of, [part for _, part in parts], [t for t, _ in keys])
        self._lay_rings(keys, [(t, hop_of(part.over), part) for t, part in tiled])
        self.windows = _table(3, len(windows))
        at = 0
        for w, (t, hop, over) in enumerate(windows):
            ring = keys.index((t, hop))
            self.windows[w] = ring, over, at
            at += int(self.rings[ring, 3])
        self.merged_words = max(at, 1)
        self.features, self.arguments = _table(9, len(parts)), np.zeros(len(parts))
        below = 0
        for f, (t, (view, part)) in enumerate(zip(of, parts, strict=True)):
            self.arguments[f] = part.argument
            where, base, place, room = t, 0, 0, 0
            if part.of:
                where, self.arguments[f] = len(shown) + below, len(shown) + below + 1
                below += 2
            elif part.kind in _IN_TILES:
                where = windows.index((t, hop_of(part.over), part.over))
                ring, _, base = self.windows[where]
                place, room = base + self._word(part.kind, ring), self.rings[ring, 4]
            elif part.kind.startswith("decayed"):
                self.arguments[f] = self._decays.index((t, int(part.argument)))
            self.features[f] = KINDS.index(part.kind), where, part.over, hop_of(part.over), base, place, room, 0, NEVER
            if not part.of:
                self.features[f, 7:] = t, NEVER if view.ttl is None else view.ttl
        said = [LAYOUT, *(view.fingerprint for view in views)]
        self.tag = float(int(hashlib.sha256(repr(said).encode()).hexdigest()[:13], 16))

    def _track(self, view: View, part: Aggregate, parts: Sequence[tuple[View, Aggregate]]) -> int:
        """The track of an aggregate, made if it is a new one. Counts share that of a column that is never missing, so they cost
        nothing beside it."""
        late = NEVER if view.lateness is None else view.lateness
        column = part.column
        if column is None:
            beside = (p.column for v, p in parts if p.event is part.event and p.condition.key == part.condition.key)
            column = next((c for c in beside if c is not None and not c.optional), None)
        made = Track(part.event, column, part.condition, late)
        found = next((i for i, track in enumerate(self.tracks) if track.key == made.key), None)
        if found is None:
            found = len(self.tracks)
            self.tracks.append(made)
        return found

    def _lay_tracks(self, of: Sequence[int], parts: Sequence[Aggregate], ringed: Sequence[int]) -> None:
        self.track_table = _table(11, len(self.tracks))
        self._decays = sorted({(t, int(p.argument)) for t, p in zip(of, parts, strict=True) if p.kind.startswith("decayed")})
        self.decays = _table(2, len(self._decays))
        groups = list(dict.fromkeys(track.group for track in self.tracks))
        owners = {track.group: t for t, track in enumerate(self.tracks)}
        at = HEAD + 2 * len(groups)
        for t, track in enumerate(self.tracks):
            place = HEAD + 2 * groups.index(track.group)
            newest = max((p.length for o, p in zip(of, parts, strict=True) if o == t and p.kind == "last_k"), default=0)
            mine = [i for i, (owner, _) in enumerate(self._decays) if owner == t]
            first, end = (mine[0], mine[-1] + 1) if mine else (0, 0)
            rings = [i for i, owner in enumerate(ringed) if owner == t]
            begin, over = (rings[0], rings[-1] + 1) if rings else (0, 0)
            kept = at + 1 + 2 * newest
            for i in mine:
                self.decays[i] = kept + 2 * (i - first), self._decays[i][1]
            event, owns = self.events.index(track.event), owners[track.group] == t
            self.track_table[t] = event, place, track.late, newest, at + 1, first, end, begin, over, at, owns
            at = kept + 2 * len(mine)
        self.head = at

    def _lay_rings(self, keys: Sequence[tuple[int, int]], tiled: Sequence[tuple[int, int, Aggregate]]) -> None:
        self.rings = _table(13, len(keys))
        at = self.head
        for r, key in enumerate(keys):
            mine = [part for t, hop, part in tiled if (t, hop) == key]
            hop, longest = key[1], max(part.over for part in mine)
            room = max((max(sketch.COMMON_LEAST, 4 * part.length) for part in mine if part.kind == "top"), default=0)
            words = {"spread": 2, "earliest": 2, "set": sketch.DISTINCT_WORDS, "ranks": sketch.QUANTILE_WORDS, "common": 2 * room}
            width, offsets = 2, []
            for field, kinds in _FIELDS.items():
                kept = any(part.kind in kinds for part in mine)
                offsets.append(width if kept else 0)
                width += words.get(field, 1) if kept else 0
            size = longest // hop + 1 + (longest % hop > 0) if longest else 1
            self.rings[r] = hop, size, at, width, room, *offsets
            at += size * width
        self.words = at
        self.sketches = bool(self.rings[:, 10:].any())

    def _word(self, kind: str, ring: int) -> int:
        """Where a tile of the ring keeps what the aggregate is made of."""
        if kind == "count":
            return 1
        field = next(i for i, kinds in enumerate(_FIELDS.values()) if kind in kinds)
        return int(self.rings[ring, 5 + field]) + (kind in ("var", "std", "first"))

    @property
    def view_tracks(self) -> list[Ints]:
        """By view, the tracks that it is made of: the newest event of the view is the newest of them."""
        return [np.array(self.tracks_of(view), np.int64) for view in self.views]

    def tracks_of(self, view: View) -> list[int]:
        """The tracks that a view is made of: its newest event is the newest of them."""
        late = NEVER if view.lateness is None else view.lateness
        parts = [each for feature in view.features for part in feature.parts for each in (part.of or (part,))]
        return [
            t
            for t, track in enumerate(self.tracks)
            if track.late == late
            and any(
                p.event is track.event and p.condition.key == track.condition.key and p.column in (track.column, None)
                for p in parts
            )
        ]

    @property
    def tables(self) -> tuple[Any, ...]:
        """What the kernel is given of it."""
        return (
            self.tag, self.track_table, self.decays, self.rings, self.windows, self.features, self.arguments,
        )  # fmt: skip

    def values(self, event: Event, decoded: Sequence[Any]) -> Floats:
        """The track values of events of one kind, (n, tracks), NaN where missing or of another kind."""
        return self.filled(event, len(decoded), lambda track: track.values(decoded))

    def filled(self, event: Event, n: int, values: Callable[[Track], Floats]) -> Floats:
        """The same, with the values of each track of this kind of event as `values` gives them, (n,)."""
        matrix = np.full((n, max(len(self.tracks), 1)), np.nan)
        for t, track in enumerate(self.tracks):
            if track.event is event:
                matrix[:, t] = values(track)
        return matrix


def _table(columns: int, rows: int) -> Ints:
    return np.zeros((rows, columns), np.int64)
