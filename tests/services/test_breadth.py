"""Breadth: about how many different inputs a key may ask. Who copies a model runs into the bound, however the asking is cut up;
who asks the same again does not."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.services.air import EVENT, Door
from tests.services.test_doors import bearer

from penstock.doors.access import Access
from penstock.doors.breadth import ASKING, KEYS, TILES, Asking, Breadth, Distinct
from penstock.doors.keys import Keys
from penstock.doors.rates import Spent
from penstock.runtime.refusals import Failed
from penstock.services.inference.open_inference.tensors import Asked, contents

HOUR = 3600.0


def asks(breadth: Breadth, now: float, *inputs: int, who: str = "key:1") -> bool:
    """Whether a request is let through; its inputs are counted."""
    found = breadth.asking(who, now)
    if isinstance(found, Asking):
        found.about(b"%d" % each for each in inputs)
    return isinstance(found, Asking)


@given(st.lists(st.integers(0, 300), max_size=400))
def test_few_are_counted_nearly_exactly_and_repeats_not_at_all(values: list[int]) -> None:
    found = Distinct()
    for value in values:
        found.add(b"%d" % value)
    assert abs(found.count - len(set(values))) <= max(3, 0.12 * len(set(values)))


@pytest.mark.parametrize("n", [100, 1_000, 3_000, 20_000, 100_000])
def test_many_are_counted_within_four_standard_errors_and_two_counts_add_as_one(n: int) -> None:
    one, other, whole = Distinct(), Distinct(), Distinct()
    for value in range(n):
        (one if value % 3 else other).add(b"%d" % value)
        other.add(b"%d" % (value // 2))
        whole.add(b"%d" % value)
    assert abs(whole.count / n - 1) < 4 * 0.033
    one.fold(other)
    assert one.registers == whole.registers and one.count == pytest.approx(whole.count)


def test_a_key_beyond_its_bound_waits_until_what_it_asked_has_left_the_window() -> None:
    breadth = Breadth("1000/day")
    assert all(asks(breadth, hour * HOUR, *range(hour * 100, hour * 100 + 100)) for hour in range(9))
    assert asks(breadth, 9 * HOUR, *range(900)), "the same again is nothing new"
    assert asks(breadth, 9 * HOUR, *range(5_000, 6_000)), "one request may go beyond"
    assert not asks(breadth, 9 * HOUR, 1) and breadth.share(9 * HOUR) > 1
    assert asks(breadth, 9 * HOUR, 1, who="key:2"), "each key has its own"
    spent = breadth.asking("key:1", 9 * HOUR)
    assert isinstance(spent, Spent) and (spent.most, spent.seconds) == (1_000, 86_400)
    assert spent.after <= 86_400 * (1 + 1 / TILES) - 9 * HOUR + 1
    assert not asks(breadth, 20 * HOUR, 1)
    assert asks(breadth, 36 * HOUR, 1), "a day later it may ask again"


def test_requests_that_were_let_in_together_ask_no_more_than_one_beyond_the_bound() -> None:
    breadth = Breadth("100/day")
    held = [breadth.asking("key:1", 0.0) for _ in range(3)]
    later = breadth.asking("key:1", 10_801.0)  # the window has moved on while those were held
    assert isinstance(later, Asking)
    for number, each in enumerate(held):
        assert isinstance(each, Asking)
        if number == 0:
            for value in range(300):
                each.about([b"%d" % value])
            continue
        with pytest.raises(Failed, match="100 different inputs") as failed:
            each.about([b"new"])
        assert failed.value.status == 429 and int(failed.value.headers["retry-after"]) > 0
    assert not asks(breadth, 10_802.0, 1), "what they asked counts in the window of now"


def test_who_has_long_asked_nothing_is_nobody_to_be_warned_of() -> None:
    breadth = Breadth("100/day")
    asks(breadth, 0.0, *range(90))
    assert breadth.share(HOUR) == pytest.approx(0.9, abs=0.1)
    assert breadth.share(48 * HOUR) == 0.0


def test_keys_that_asked_longest_ago_are_forgotten() -> None:
    breadth = Breadth("5/day")
    assert asks(breadth, 0.0, *range(50)) and not asks(breadth, 0.0, 1)
    for number in range(KEYS):
        asks(breadth, 1.0, who=f"token:{number}")
    assert asks(breadth, 1.0, 1)


def test_rows_are_told_apart_by_all_of_their_values() -> None:
    X = np.array([[1.0, 2.0], [1.0, 2.0], [1.0, 3.0]], np.float32)  # noqa: N806
    words = np.array([["a"], ["a"], ["a"]], object)
    asked = Asked({"X": X, "words": words}, 3, ("score",), frozenset(), None)
    assert len(set(contents(asked))) == 2
    asked.feeds["words"] = np.array([["a"], ["b"], ["a"]], object)
    assert len(set(contents(asked))) == 3


async def scored(scope: Any, receive: Any, send: Any) -> None:
    """An application that counts what it is asked: a list of numbers."""
    body = (await receive())["body"]
    asking = ASKING.get()
    if asking is not None:
        asking.about(msgspec.json.encode(each) for each in msgspec.json.decode(body or b"[]"))
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-who", (asking.who if asking else "").encode())]})
    await send({"type": "http.response.body", "body": b""})


def test_at_the_door_a_key_that_asks_about_too_much_is_refused_in_words_and_others_are_not(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json", "pepper")
    (key, words), (_, other) = keys.create("copy", ["predict", "publish"]), keys.create("shop", ["predict"])
    door = Access(keys=str(keys.path), pepper="pepper", distinct="500/day").door(scored, "0.0.0.0")

    async def talk() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(door), base_url="http://penstock") as client:
            for part in range(60):
                said = await client.post("/v2/models/late/infer", json=[*range(10 * part, 10 * part + 10)], headers=bearer(words))
                if said.status_code == 429:
                    break
                assert (said.status_code, said.headers["x-who"]) == (200, f"key:{key.id}")
            assert 42 <= part <= 58
            assert "500 different inputs in 86400 s" in said.json()["error"] and int(said.headers["retry-after"]) > 60_000
            assert said.headers["ratelimit"].startswith('"inputs";r=0;t=')
            assert (await client.post("/predict/late", json=[1], headers=bearer(words))).status_code == 429
            published = await client.post("/events/rides", json=[1], headers=bearer(words))
            assert (published.status_code, published.headers["x-who"]) == (200, ""), "what is published copies nothing"
            assert (await client.post("/predict/late", json=[1], headers=bearer(other))).status_code == 200

    asyncio.run(talk())
    assert ASKING.get() is None


def test_a_new_id_or_time_makes_no_new_input_and_a_list_has_as_many_as_it_has_events(door: Door) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        breadth = Breadth("1000/day")
        asking = breadth.asking("key:1", 0.0)
        assert isinstance(asking, Asking)
        token = ASKING.set(asking)
        try:
            for number in range(20):
                said = await client.post("/predict/late", json={**EVENT, "flight": f"f{number}"})
                assert said.status_code == 200, said.text
            assert round(1000 * breadth.share(0.0)) == 1
            listed = [{**EVENT, "flight": f"g{number}", "distance": float(number)} for number in range(30)]
            assert (await client.post("/predict/late", json=listed)).status_code == 200
            assert 28 <= 1000 * breadth.share(0.0) <= 34
        finally:
            ASKING.reset(token)

    door.run(talk, door.said("champion", "v1"))
