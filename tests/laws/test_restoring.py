"""States unpacked many at a time are those unpacked one by one; and a slot that is used again remembers nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from penstock.event import event_of, to_micros
from penstock.windows import packing
from penstock.windows.panes import Panes

from .staged import stream
from .test_window import SHAPE


def packed(seed: int, late: float, n: int = 900) -> dict[str, tuple[bytes, bytes]]:
    """Heads and tails of five entities, with tails that were cut on the way."""
    panes, stored = Panes(SHAPE), dict[str, tuple[bytes, bytes]]()
    events = stream(seed, n, late, entities=5)
    for first in range(0, n, 31):
        batch = events[first : first + 31]
        values = np.concatenate([SHAPE.values(event_of(type(e)), [e]) for e in batch])
        slots = np.array([panes.slot(e.account) for e in batch], np.int64)
        times = np.array([to_micros(e.at) for e in batch], np.int64)
        kinds = np.array([SHAPE.events.index(event_of(type(e))) for e in batch], np.int64)
        panes.apply(slots, times, kinds, values, np.zeros(len(batch), np.int64))
        heads, tails, cut = panes.pack()
        for name, head in heads.items():
            stored[name] = head, (b"" if name in cut else stored.get(name, (b"", b""))[1]) + tails.get(name, b"")
    return stored


def newest(panes: Panes, slots: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """By entity and track, the time of the newest event; -1: there was none."""
    heads, at = panes._state[slots], panes.shape.track_table[:, 1]
    return np.where(heads[:, at] > 0, heads[:, at + 1], -1.0).astype(np.int64)


def seen(panes: Panes, names: list[str]) -> bytes:
    """Everything that reads can see of entities, now and much later."""
    slots = panes.slots(names)
    found = newest(panes, slots).tobytes()
    for after in (0, 10**9, 10**12, 10**14):
        times = np.full(len(names), 1_900_000_000_000_000 + after)
        nothing = np.full((len(names), len(SHAPE.tracks)), np.nan)
        rows, effective = panes.apply(slots, times, np.full(len(names), -1), nothing, np.ones(len(names), np.int64), keep=False)
        found += rows.tobytes() + effective.tobytes()
    return found


@pytest.mark.parametrize("late", [0.0, 0.4])
@pytest.mark.parametrize("plain", [False, True], ids=["machine code", "plain Python"])
def test_many_at_a_time_is_one_by_one(late: float, plain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if plain:
        monkeypatch.setattr(packing, "restored_by", lambda: packing.restored)
    stored = packed(3, late)
    names = [*stored, "never seen"]
    one, many = Panes(SHAPE), Panes(SHAPE)
    for name in names:
        one.restore(name, *stored.get(name, (b"", b"")))
    other = packed(4, late)
    for states in (other, stored):  # into slots that were used before
        pairs = [states.get(name, (b"", b"")) for name in names]
        slots = np.array([many.slot(name) for name in names], np.int64)
        many.restore_all(slots, [head for head, _ in pairs], [tail for _, tail in pairs])
    assert seen(many, names) == seen(one, names)


def test_a_state_of_another_layout_is_refused_whole() -> None:
    panes, (head, tail) = Panes(SHAPE), packed(3, 0.0)["a0"]
    with pytest.raises(ValueError, match="another version of the views"):
        panes.restore_all(np.array([panes.slot("a")]), [head + bytes(8)], [tail])


def test_a_slot_that_was_let_go_is_used_again_and_remembers_nothing() -> None:
    panes, stored = Panes(SHAPE, capacity=4), packed(3, 0.0)
    for name, pair in stored.items():
        panes.restore(name, *pair)
    kept = seen(panes, ["a1"])
    panes.forget(["a0", "a2", "nobody"])
    assert len(panes) == len(stored) - 2
    assert panes.unknown(["a0", "a1", "a2"]) == ["a0", "a2"]
    slots: list[Any] = [panes.slot("new 1"), panes.slot("new 2"), panes.slot("new 3")]
    assert len({*slots, *panes.slots(list({*stored} - {"a0", "a2"})).tolist()}) == len(stored) + 1
    assert max(slots) == len(stored)
    fresh = Panes(SHAPE)
    fresh.slot("new")
    for name in ("new 1", "new 2", "new 3"):
        assert seen(panes, [name]) == seen(fresh, ["new"])
    assert seen(panes, ["a1"]) == kept
    assert panes.pack() == ({}, {}, [])
