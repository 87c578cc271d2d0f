"""How far the demo may publish ahead of the loop, and when the loop is at rest."""

from __future__ import annotations

from datetime import timedelta

from tests.services.cars import CARS, DAY, START

from penstock.event import to_micros
from penstock.picture import Picture
from penstock.services.demo import MOST_LAG, at_rest, keeps_up

DONE = dict.fromkeys(
    ("cars.feature_store", "cars.inference", "cars.monitoring", "cars.judge", "cars.trainer", "cars.registry"), 0
)


def seen(scored: int = 0, predictions: int = 0, closed: int = 0) -> Picture:
    """A loop that has closed the windows of so many days."""
    picture = Picture(CARS)
    picture.counts = {"scored": scored, "predictions": predictions}
    picture.now = START + closed * DAY
    return picture


def day(number: float) -> int:
    return to_micros(START + timedelta(days=number))


def test_the_publisher_waits_for_answers_for_windows_and_for_decisions() -> None:
    assert keeps_up(seen(closed=5), DONE, day(5.9))
    assert not keeps_up(seen(closed=5), DONE, day(6)), "a day is published and its window is not closed"
    assert not keeps_up(seen(scored=MOST_LAG), DONE, day(0.5))
    for service in ("trainer", "registry"):
        assert not keeps_up(seen(closed=5), {**DONE, f"cars.{service}": 1}, day(5))


def test_the_loop_is_at_rest_when_nobody_has_a_record_left_and_the_newest_event_is_in_a_closed_window() -> None:
    assert at_rest(seen(closed=3), DONE, day(2.9))
    assert not at_rest(seen(closed=3), DONE, day(3)), "its window begins there"
    for group in DONE:
        assert not at_rest(seen(closed=3), {**DONE, group: 1}, day(2.9))
