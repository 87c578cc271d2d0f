"""What a read answers from stored bytes is what the stream's own state would answer, whatever is asked, in whatever order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.online import answering
from penstock.online.answering import Answering
from penstock.online.freshness import STATUSES, expired
from penstock.windows.panes import Panes
from penstock.windows.shape import Shape

from .test_aggregates import TOGETHER
from .test_restoring import newest, packed
from .test_window import SHAPE

NOW = 1_900_000_000_000_000
STORED = {late: packed(5, late) for late in (0.0, 0.4)}
QUESTIONS = st.lists(
    st.tuples(
        st.sampled_from(["a0", "a1", "a2", "a3", "a4", "never seen", None]),
        st.sampled_from([-(10**14), 0, 10**9, 10**12, 10**14]),
    ),
    max_size=30,
)


def asked(stored: dict[str, tuple[bytes, bytes]], questions: list[tuple[str | None, int]], shape: Shape) -> tuple[Any, ...]:
    """As a lookup asks: every entity once, nobody is empty bytes."""
    names = list(dict.fromkeys(name for name, _ in questions))
    pairs = [stored.get(name or "", (b"", b"")) for name in names]
    index = np.array([names.index(name) for name, _ in questions], np.int64)
    moments = np.array([NOW + after for _, after in questions], np.int64)
    return Answering(shape, shape.views)([head for head, _ in pairs], [tail for _, tail in pairs], index, moments)


@pytest.mark.parametrize("late", [0.0, 0.4])
@pytest.mark.parametrize("plain", [False, True], ids=["machine code", "plain Python"])
def test_a_read_answers_as_the_stream_would(late: float, plain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if plain:
        monkeypatch.setattr(answering, "machine_code_of", lambda sketches: answering.answered)
    tracks = [SHAPE.tracks_of(view) for view in SHAPE.views]

    @given(QUESTIONS)
    @settings(max_examples=10 if plain else 60, deadline=None)
    def holds(questions: list[tuple[str | None, int]]) -> None:
        windows, effective, times, codes = asked(STORED[late], questions, SHAPE)
        for i, (name, after) in enumerate(questions):
            panes, one = Panes(SHAPE), np.ones(1, np.int64)
            panes.restore(name or "", *STORED[late].get(name or "", (b"", b"")))
            slots, moment = panes.slots([name or ""]), np.array([NOW + after], np.int64)
            nothing = np.full((1, len(SHAPE.tracks)), np.nan)
            row, until = panes.apply(slots, moment, -one, nothing, one, keep=False)
            assert (windows[i].tobytes(), effective[i]) == (row[0].tobytes(), until[0])
            for v, view in enumerate(SHAPE.views):
                last = newest(panes, slots)[0, tracks[v]].max()
                assert times[i, v] == last
                said, age = STATUSES[codes[i, v]], until[0] - last
                if last < 0:
                    assert said == "missing"
                elif expired(view, last, until[0]):
                    assert said == "expired"
                elif until[0] > moment[0]:
                    assert said == "newer"
                elif not view.fresh_within:
                    assert said == "unpromised"
                else:
                    assert said == ("stale" if age > view.fresh_within else "fresh")

    holds()


def test_states_with_sketches_are_read_too() -> None:
    found = asked({}, [("nobody", 0)], TOGETHER)
    assert found[0].shape == (1, len(TOGETHER.columns))


def test_a_state_of_another_version_is_refused_whichever_it_is() -> None:
    stored = dict(STORED[0.0])
    stored["a2"] = stored["a2"][0] + bytes(8), stored["a2"][1]
    with pytest.raises(ValueError, match="state 1 belongs to another version of the views"):
        asked(stored, [("a0", 0), ("a2", 0)], SHAPE)
