"""How far a reader is behind, in seconds, against records that know when they came."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock.log import Partition
from penstock.runtime import behind as behind_module
from penstock.runtime.behind import Behind

PLACES = [Partition("trips", 0), Partition("trips", 1)]
MOVES = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5)), min_size=len(PLACES), max_size=len(PLACES))
LOOKS = st.lists(st.tuples(st.integers(1, 9), MOVES), min_size=1, max_size=30)
"""Seconds until the next look, and of each partition the records that came and those that were read."""


@given(LOOKS)
def test_the_seconds_are_those_since_a_look_first_saw_the_oldest_record_that_is_left(
    looks: list[tuple[int, list[tuple[int, int]]]],
) -> None:
    behind, now = Behind(), 1000.0
    came: dict[Partition, list[float]] = {place: [] for place in PLACES}
    done = dict.fromkeys(PLACES, 0)
    for step, moves in looks:
        now += step
        for place, (new, read) in zip(PLACES, moves, strict=True):
            came[place] += [now] * new
            done[place] = min(done[place] + read, len(came[place]))
        left = [time for place in PLACES for time in came[place][done[place] :]]
        ends = {place: len(times) for place, times in came.items()}
        assert behind.look(now, ends, done) == (len(left), now - min(left, default=now))


def test_a_partition_that_moved_to_another_process_is_no_longer_ours_to_be_behind_with() -> None:
    behind = Behind()
    behind.look(0.0, dict.fromkeys(PLACES, 5), dict.fromkeys(PLACES, 0))
    assert behind.look(60.0, dict.fromkeys(PLACES, 5), {PLACES[0]: 5}) == (0, 0.0)
    assert behind.look(90.0, dict.fromkeys(PLACES, 5), {PLACES[0]: 5, PLACES[1]: 0}) == (5, 0.0)


def test_a_log_that_is_away_makes_what_is_left_older() -> None:
    behind, ends = Behind(), {PLACES[0]: 3}
    behind.look(0.0, ends, {PLACES[0]: 1})
    assert behind.look(50.0, ends, {PLACES[0]: 1}) == (2, 50.0)


def test_a_long_outage_is_remembered_in_bounded_memory_and_never_as_too_short() -> None:
    behind, place = Behind(), PLACES[0]
    for look in range(behind_module.KEPT * 3):
        assert behind.look(float(look), {place: look + 1}, {place: 0}) == (look + 1, float(look))
    assert len(behind._seen[place]) == behind_module.KEPT
    last = behind_module.KEPT * 3
    records, seconds = behind.look(float(last), {place: last + 1}, {place: last})
    assert records == 1 and seconds >= 0
