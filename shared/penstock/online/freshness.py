"""How old the values of a view may be: what it promises, when it expires, and how a read says so.

A view's age at a moment is the time since the newest event *of that view* about the entity. Other views by the same key neither
keep it alive nor age it. The moment is when the windows end (`as_of`), in stream time; so a row in the stream, a read and a
backfill that cover the same events up to the same moment agree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from ..aggregate import hop_of
from ..feature import View

if TYPE_CHECKING:  # `import penstock` stays light
    import numpy as np
    import numpy.typing as npt

__all__ = ["STATUSES", "expired", "lifetime", "limits", "status_of"]

Moments = TypeVar("Moments", int, "npt.NDArray[np.int64]")

STATUSES: Final = ("fresh", "stale", "newer", "expired", "missing", "rebuilding", "unpromised")
"""What a read says of one view of one entity; codes are places in this tuple.

    fresh      as of the moment asked about, and no older than promised
    stale      as of the moment asked about; the newest event is older than `fresh_within`
    newer      as of the entity's newest event, which lies after that moment: tiles cannot be taken back
    expired    the newest event is older than `ttl`: the view has forgotten the entity
    missing    nothing is known: no event of this view named such an entity
    rebuilding the store has lost writes, and is not yet what it had been: values are older than they were
    unpromised as of the moment asked about; the view promises nothing (no `fresh_within`), so whether its newest event is too old
               is for who reads to say, from the age
"""
FRESH, STALE, NEWER, EXPIRED, MISSING, REBUILDING, UNPROMISED = range(len(STATUSES))
NEVER: Final = 1 << 62
"""A promise, or a lifetime, that no age exceeds; as the kernel has it."""


def expired(view: View, newest: Moments, moment: Moments) -> bool | npt.NDArray[np.bool_]:
    """Whether what happened at `newest` is forgotten at `moment` (microseconds; ints or arrays): the one meaning of expiry. At an
    age of exactly `ttl` it is not.

    A value whose newest event is forgotten is as for an entity that was never seen; a view is when all of its values are.
    """
    return False if view.ttl is None else moment - newest > view.ttl


def status_of(newest: int, asked: int, as_of: int, promise: int, ttl: int) -> int:
    """The code of `STATUSES` for an entity whose newest event in a view was at `newest` (-1: none), asked about at `asked`, with
    windows that end at `as_of`; `promise` and `ttl` as `limits` says them. All in microseconds.

    >>> STATUSES[status_of(newest=5, asked=20, as_of=20, promise=10, ttl=NEVER)]
    'stale'
    """
    if newest < 0:
        return MISSING
    if as_of - newest > ttl:
        return EXPIRED
    if as_of > asked:
        return NEWER
    if promise == NEVER:
        return UNPROMISED
    return STALE if as_of - newest > promise else FRESH


def limits(view: View) -> tuple[int, int]:
    """What a view promises and its ttl, in microseconds; NEVER where it says nothing."""
    return view.fresh_within or NEVER, NEVER if view.ttl is None else view.ttl


def lifetime(view: View) -> int | None:
    """Microseconds after an entity's newest event from which on the view says of it what it says of one that it never saw, so
    that its state may go; None: never, because a value without a window stays for ever."""
    parts = [each for feature in view.features for part in feature.parts for each in (part.of or (part,))]
    if view.ttl is None and not all(part.over for part in parts):
        return None
    windows = [part.over + hop_of(part.over) for part in parts if part.over]  # a window's tail is floored
    return max(view.ttl or 0, *windows, 0)
