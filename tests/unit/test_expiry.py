"""Entities that have been quiet for a lifetime are let go, whatever the batches and restarts; others never."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import penstock as ps
from penstock import duration
from penstock.errors import DefinitionError
from penstock.feature import View, view_of
from penstock.online.freshness import STATUSES, expired, lifetime, limits, status_of
from penstock.services.feature_store.expiry import SWEPT, TOGETHER, Expiry
from penstock.topology import Hop


@ps.event("pings")
class Ping:
    host: ps.Key[str]
    load: float
    at: ps.EventTime


@ps.features(by=Ping.host)
class Host:
    pings_1h = ps.count(Ping, over="1h")


@ps.features(by=Ping.host, fresh_within="10m", ttl="2h")
class Newest:
    load = ps.last(Ping.load)
    pings_1h = ps.count(Ping, over="1h")


@ps.features(by=Ping.host)
class Ever:
    load = ps.last(Ping.load)


LIFE = duration.HOUR + 5 * duration.MINUTE


def hop(*views: type) -> Hop:
    return Hop("host", tuple(map(view_of, views)), (), ())


class TestLifetime:
    @pytest.mark.parametrize(("view", "length"), [(Host, LIFE), (Newest, 2 * duration.HOUR), (Ever, None)])
    def test_is_the_ttl_or_what_the_longest_window_reaches_or_endless(self, view: type, length: int | None) -> None:
        assert lifetime(view_of(view)) == length

    def test_a_view_that_never_forgets_keeps_all_entities_of_its_key(self) -> None:
        expiry = Expiry(hop(Host, Ever))
        for day in range(5):
            expiry.take(["a"], np.array([day * duration.DAY]))
            assert expiry.sweep(day) == ([], {})


EVENTS = st.lists(st.tuples(st.integers(0, 6), st.sampled_from("abcd") | st.none(), st.integers(0, 9)), max_size=40)


@settings(deadline=None, max_examples=300)
@given(gaps=EVENTS, borders=st.sets(st.integers(0, 40)), restarts=st.sets(st.integers(0, 40)), disorder=st.booleans())
def test_who_is_let_go_was_quiet_for_a_lifetime_and_who_was_for_two_is_let_go(
    gaps: list[tuple[int, str | None, int]], borders: set[int], restarts: set[int], disorder: bool
) -> None:
    expiry, table = Expiry(hop(Host)), dict[str, bytes]()
    newest, held = dict[str, int](), set[str]()
    moment, now, pending = 0, 0, list[tuple[str | None, int]]()
    for i, (gap, name, back) in enumerate(gaps):
        moment += gap * LIFE // 4
        time = max(0, moment - back * LIFE // 4) if disorder else moment
        pending.append((name, time))
        now = max(now, time)
        if name is not None:
            newest[name] = max(newest.get(name, -1), time)
            held.add(name)
        if i not in borders:
            continue
        expiry.take([n for n, _ in pending], np.array([t for _, t in pending], np.int64))
        pending = []
        gone, fields = expiry.sweep(i)
        assert len(gone) == len(set(gone))
        for entity in gone:
            assert now - newest[entity] > LIFE
        held -= set(gone)
        for entity in held:
            assert now // LIFE - newest[entity] // LIFE < 2
        for field, value in fields.items():
            if value is None:
                table.pop(field, None)
            else:
                table[field] = value
        if i in restarts:
            expiry, now_then = Expiry(hop(Host)), expiry.now
            expiry.now = now_then  # a part of the hop's position
            for field in sorted(table):
                expiry.recall(field, table[field])


def test_a_step_looks_at_a_bounded_number() -> None:
    expiry = Expiry(hop(Host))
    for version in range(10):
        expiry.take([f"{version} {n}" for n in range(SWEPT)], np.full(SWEPT, version))
        expiry.sweep(version)
    expiry.take(["late"], np.array([3 * LIFE]))
    steps = [len(expiry.sweep(10 + step)[0]) for step in range(12)]
    assert steps == [*[SWEPT] * 10, 0, 0]


def test_a_trickle_of_entities_does_not_make_a_field_each() -> None:
    expiry, table = Expiry(hop(Host)), dict[str, bytes | None]()
    for version in range(2 * TOGETHER):
        expiry.take([f"host {version}"], np.array([version]))
        table |= expiry.sweep(version)[1]
    assert len(table) == 2


class TestStatus:
    def codes(self, view: View, ages: list[float | None], asked: float = 0.0) -> list[str]:
        newest, as_of = [-1 if age is None else int((10_000 - age) * 1e6) for age in ages], 10_000_000_000
        return [STATUSES[status_of(at, as_of - int(asked * 1e6), as_of, *limits(view))] for at in newest]

    def test_follows_from_the_age_of_the_view_at_the_end_of_its_windows(self) -> None:
        ages = [0, 600, 600.000001, 7200, 7200.000001, None]
        assert self.codes(view_of(Newest), ages) == ["fresh", "fresh", "stale", "stale", "expired", "missing"]
        assert self.codes(view_of(Newest), ages, 1) == ["newer", "newer", "newer", "newer", "expired", "missing"]
        assert self.codes(view_of(Ever), ages) == [*["unpromised"] * 5, "missing"]

    @given(newest=st.integers(0, 1 << 50), gap=st.integers(0, 1 << 40))
    def test_expiry_means_the_same_for_a_number_and_for_a_column(self, newest: int, gap: int) -> None:
        view = view_of(Newest)
        column = expired(view, np.array([newest]), np.array([newest + gap]))
        assert expired(view, newest, newest + gap) == (gap > 2 * duration.HOUR) == bool(np.all(column))
        assert not expired(view_of(Ever), newest, newest + gap)


class TestDeclaration:
    def declared(self, **given: str) -> View:
        @ps.features(by=Ping.host, **given)
        class Day:
            pings_24h = ps.count(Ping, over="24h")

        return view_of(Day)

    def test_the_ttl_is_part_of_what_a_view_means_and_the_promise_is_not(self) -> None:
        plain = self.declared()
        assert self.declared(fresh_within="1h").fingerprint == plain.fingerprint
        assert self.declared(ttl="24h").fingerprint != plain.fingerprint != self.declared(ttl="25h").fingerprint
        assert (self.declared(fresh_within="1h", ttl="2d").fresh_within, plain.ttl) == (duration.HOUR, None)

    @pytest.mark.parametrize(
        ("given", "said", "fix"),
        [
            ({"ttl": "23h"}, 'ttl="23h" is shorter than its longest window, 1d', 'ttl="1d"'),
            ({"ttl": "24h", "fresh_within": "25h"}, "would expire before it is stale", "shorter promise"),
            ({"ttl": "soon"}, "not a length of time", "whole number"),
            ({"fresh_within": "0h"}, "not a length of time", "whole number"),
        ],
    )
    def test_a_promise_that_cannot_be_meant_is_a_mistake(self, given: dict[str, str], said: str, fix: str) -> None:
        with pytest.raises(DefinitionError) as caught:
            self.declared(**given)
        assert said in str(caught.value) and fix in caught.value.fix
