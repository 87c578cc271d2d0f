"""Novelty from counts: what is outside the training rows or far out in their tails is seen; what is like them is not, at any
size; and one value, however great, is one value."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from penstock.duration import DAY
from penstock.inputs import Matrix
from penstock.policy import Novelty as Monitor
from penstock.records import Unseen
from penstock.services.monitoring.answers.ledger import Answer
from penstock.services.monitoring.counting.bins import Binner
from penstock.services.monitoring.monitors.novelty import Counted, Noticed, noticed
from penstock.statistics.novelty import HALVINGS, MOST_ODD, NOVEL, Novelty, added_unseen, novel, profile_of
from penstock.statistics.reference import Numbers

NAMES = ["a", "b", "c"]
MONITOR = Monitor(every=DAY, material=0.05, false_alarms_per_month=1.0)


def like(rng: np.random.Generator, rows: int) -> Matrix:
    """A heavy tail, a number that is mostly zero, and one that is sometimes missing."""
    found = np.stack([rng.standard_t(2, rows), rng.poisson(0.02, rows), rng.normal(size=rows)], axis=1).astype(np.float32)
    found[rng.random(rows) < 0.1, 2] = np.nan
    return found


def counted(novelty: Novelty, X: Matrix) -> Unseen:  # noqa: N803
    return novelty.unseen([f"{i:06}" for i in range(len(X))], X)


@given(
    hnp.arrays(np.float32, st.integers(1, 300), elements=st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0, 7.0, math.nan])),
    st.lists(st.sampled_from([-3.0, -1.5, -1.0, 0.0, 0.7, 1.0, 6.0, 7.0, 8.0, math.inf, math.nan]), min_size=1, max_size=9),
)
def test_bits_are_the_halvings_of_the_tail_that_a_value_is_beyond(reference: Matrix, asked: list[float]) -> None:
    found = Novelty(profile_of(["a"], reference[:, None])).bits(np.array(asked, np.float32)[:, None]).ravel()
    present = reference[~np.isnan(reference)]
    n = len(present)
    depth = min(max(math.ceil(math.log2(n)) if n > 1 else 0, 2), HALVINGS)
    left = [1 if j == depth else math.ceil(n / 2**j) for j in range(2, depth + 1)]
    whole = min(max(math.ceil(math.log2(len(reference))) if len(reference) > 1 else 0, 2), HALVINGS) - 1
    for value, bits in zip(asked, found.tolist(), strict=True):
        if math.isnan(value):
            gone = len(reference) - n
            assert bits == (whole if not gone else min(int(math.log2(len(reference) / gone)), whole))
        elif not n:
            assert bits == whole
        else:
            above, below = (present >= value).sum(), (present <= value).sum()
            assert bits == sum(min(above, below) < rows for rows in left)


def test_answers_like_the_reference_reach_each_level_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    novelty = Novelty(profile_of(NAMES, like(rng, 20_000)))
    found = counted(novelty, like(rng, 100_000))
    for level in range(3, 9):
        assert sum(found.levels[level:]) / 100_000 <= 1.3 / 2**level
    assert all(sum(outside) < 40 for outside in found.outside.values())


def test_counts_add_over_any_borders_and_the_oddest_are_those_of_all() -> None:
    rng = np.random.default_rng(2)
    novelty, X = Novelty(profile_of(NAMES, like(rng, 2_000))), like(rng, 3_000)  # noqa: N806
    ids = [f"{i:06}" for i in rng.permutation(3_000)]
    whole = novelty.unseen(ids, X)
    borders = [0, *sorted(rng.integers(0, 3_000, 20).tolist()), 3_000]
    parts = [novelty.unseen(ids[a:b], X[a:b]) for a, b in pairwise(borders)]
    for order in (parts, parts[::-1]):
        found: dict[str, Unseen] = {}
        for part in order:
            found = added_unseen(found, {"v1": part})
        assert found == {"v1": whole}
    assert len(whole.oddest) == MOST_ODD and whole.oddest[0].level >= NOVEL and novel(whole.levels) > MOST_ODD


def judged(reference: Matrix, days: list[Matrix]) -> list[bool | None]:
    novelty, memory, found = Novelty(profile_of(NAMES, reference)), Noticed(), list[bool | None]()
    for day, rows in enumerate(days):
        memory.add(day, {"v1": counted(novelty, rows)})
        found.append(noticed(MONITOR, memory).bad)
    return found


@pytest.mark.parametrize("n", [100, 1_000, 100_000])
def test_days_like_the_reference_raise_no_alarm_at_any_size(n: int) -> None:
    rng = np.random.default_rng(n)
    verdicts = judged(like(rng, 2_000), [like(rng, n) for _ in range(200 if n < 10_000 else 12)])
    print(f"n = {n}: {sum(map(bool, verdicts))} of {len(verdicts)} alarm")
    assert sum(map(bool, verdicts)) <= 0.05 * len(verdicts)


def test_one_value_however_great_neither_invents_a_shift_nor_hides_one() -> None:
    rng = np.random.default_rng(3)
    reference, quiet, shifted = like(rng, 5_000), like(rng, 500), like(rng, 500)
    quiet[0, 0] = 1e30
    shifted[:60, 2] = 40.0
    hidden = shifted.copy()
    hidden[0, 0] = 1e30
    assert judged(reference, [quiet, shifted, hidden]) == [False, True, True]


def test_an_alarm_names_the_inputs_and_the_oddest_answers() -> None:
    rng = np.random.default_rng(4)
    novelty, rows, memory = Novelty(profile_of(NAMES, like(rng, 5_000))), like(rng, 400), Noticed()
    rows[:80, 1] = 1_000.0
    rows[7] = [1e9, 1_000.0, -50.0]
    memory.add(0, {"v1": counted(novelty, rows)})
    bad, evidence, _ = noticed(MONITOR, memory)
    assert bad and {each.get("input") for each in evidence["found"]} >= {"b"}
    (b,) = [each for each in evidence["found"] if each.get("input") == "b"]
    assert (b["above"], b["below"], b["missing"]) == (80, 0, 0) and b["share"] == 0.2
    first = evidence["oddest"][0]
    assert first["id"] == "000007" and set(first["inputs"]) == {"a", "b", "c"}
    assert (novel(counted(novelty, rows).levels) / 400) == evidence["novel"] > evidence["expected"]


def test_what_is_usual_is_no_news_and_another_version_starts_anew() -> None:
    rng = np.random.default_rng(5)
    novelty, memory = Novelty(profile_of(NAMES, like(rng, 5_000))), Noticed()

    def day(number: int, share: float, version: str = "v1") -> bool | None:
        rows = like(rng, 1_000)
        rows[: int(share * 1_000), 2] = 40.0
        memory.add(number, {version: counted(novelty, rows)})
        return noticed(MONITOR, memory).bad

    assert not any(day(number, 0.045) for number in range(8))
    assert day(8, 0.055) is False and day(9, 0.12) is True
    assert day(10, 0.055, "v2") is True, "what was custom under v1 is not under v2"


@pytest.mark.parametrize(
    "reference",
    [np.empty((0, 3)), np.full((200, 3), np.nan), np.zeros((200, 3)), np.ones((1, 3)), np.full((200, 3), np.inf)],
    ids=["no rows", "all missing", "constant", "one row", "infinite"],
)
def test_a_reference_that_says_little_gives_a_stated_result(reference: Matrix) -> None:
    reference = reference.astype(np.float32)
    novelty, rng = Novelty(profile_of(NAMES, reference)), np.random.default_rng(6)
    memory = Noticed()
    memory.add(0, {"v1": counted(novelty, reference)})
    assert noticed(MONITOR, memory).bad is (None if len(reference) < 50 else False)
    memory.add(1, {"v1": counted(novelty, like(rng, 100))})
    assert noticed(MONITOR, memory).bad is (None if len(reference) < 50 else True)


def test_answers_that_were_counted_in_bins_are_the_same_without_being_decoded_again() -> None:
    rng, names = np.random.default_rng(3), ["V.b", "V.a", "V.c"]
    rows = rng.normal(size=(500, 3)).astype(np.float32)
    columns = {name: Numbers.of(rows[:, at]) for at, name in enumerate(names)}
    edges = {name: list(column.edges) for name, column in columns.items()}
    counts = {name: list(column.counts[: column.missing_cell + 1]) for name, column in columns.items()}
    asked = [msgspec.json.encode(dict(zip(names, row.tolist(), strict=True))) for row in 3 * rng.normal(size=(200, 3))]
    asked[7] = b'{"V.a":"x"}'
    answers = [
        Answer(f"i{at}", "k", datetime(2026, 1, 1, tzinfo=UTC), msgspec.Raw(row), 0.5, {}, "v", "champion")
        for at, row in enumerate(asked)
    ]
    counted, binner = Counted(profile_of(names, rows)), Binner(edges, counts)
    alone = counted.count(answers)
    assert binner.count(asked, [0] * len(asked)).unread == 1
    assert counted.count(answers, binner) == alone
    assert alone.answers == 199 and novel(alone.levels)
    fewer = Binner({"V.a": edges["V.a"]}, counts)
    fewer.count(asked, [0] * len(asked))
    assert counted.count(answers, fewer) == alone, "of other inputs, it is of no use"
