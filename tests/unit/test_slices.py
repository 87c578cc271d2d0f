"""Where a model fails: named when it is there, hardly ever when it is not, in words that mean what was judged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import penstock as ps
from penstock.frames.condition import Condition
from penstock.frames.slices import Slice, Slices, archived
from penstock.offline import Tables

RUNS = 200


@ps.event("told")
class Told:
    id: ps.Key[str]
    late: bool
    days: float
    at: ps.EventTime


LATE, DAYS = ps.label(Told.late, within="1d"), ps.label(Told.days, within="1d")


def answers(seed: int, n: int = 2_000, rate: float = 0.3) -> pd.DataFrame:
    """Probabilities that are right, and have nothing to do with the inputs."""
    rng = np.random.default_rng(seed)
    numbers = {f"x{i}": rng.normal(size=n) for i in range(4)}
    frame = pd.DataFrame(numbers | {"city": rng.choice(list("abcdef"), n), "night": rng.random(n) < 0.3})
    frame.loc[rng.random(n) < 0.2, "x3"] = np.nan
    scores = 1 / (1 + np.exp(-rng.normal(np.log(rate / (1 - rate)), 1, n)))
    return frame.assign(id=[f"{seed}/{i}" for i in range(n)], score=scores, label=rng.random(n) < scores)


def turned(frame: pd.DataFrame, where: Any) -> pd.DataFrame:
    """The labels turned round in some rows."""
    return frame.assign(label=frame["label"] ^ where)


def fulfils(frame: pd.DataFrame, condition: Condition) -> pd.Series:
    """What a condition means, row by row."""

    def said(value: Any) -> str:
        return str(value).lower() if isinstance(value, bool) else str(value)

    def holds(value: Any) -> bool:
        if pd.isna(value):
            return condition.missing or bool(condition.others and "missing" not in condition.others)
        if condition.level is not None:
            return said(value) == condition.level
        if condition.others:
            return said(value) not in condition.others
        above = condition.above is None or value > condition.above
        below = condition.at_most is None or value <= condition.at_most
        alone = condition.missing and condition.above is None and condition.at_most is None
        return above and below and not alone

    return frame[condition.input].map(holds)


@pytest.mark.parametrize("surprising", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize("rate", [0.3, 0.02])
def test_where_loss_has_nothing_to_do_with_inputs_a_slice_is_named_in_at_most_5_percent_of_runs(
    rate: float, surprising: bool
) -> None:
    named = [bool(ps.slices(answers(seed, rate=rate), surprising=surprising, material=0.0).slices) for seed in range(RUNS)]
    assert sum(named) <= 0.05 * RUNS
    none = ps.slices(answers(named.index(False), rate=rate), surprising=surprising)
    assert none.why.startswith("no slice found: none of ") and none.slices == () and none.tried > 0


PLANTED: dict[str, Callable[[pd.DataFrame], pd.Series]] = {
    "one number": lambda f: f["x0"] > 1.3,
    "two numbers": lambda f: (f["x0"] > 0.8) & (f["x1"] < -0.2),
    "a text and a number": lambda f: (f["city"] == "c") & (f["x2"] > 0),
    "a truth": lambda f: f["night"] & (f["x0"] > 0.5),
    "what is missing": lambda f: f["x3"].isna(),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_slice_is_found(planted: str) -> None:
    hits = []
    for seed in range(20):
        frame = answers(seed, n=6_000)
        frame = turned(frame, where := PLANTED[planted](frame))
        found = ps.slices(frame, surprising=True).slices
        if not found:
            hits.append(0.0)
            continue
        named = pd.concat([fulfils(frame, each) for each in found[0].conditions], axis=1).all(axis=1)
        hits.append((named & where).sum() / (named | where).sum())
    assert np.mean(np.array(hits) > 0.7) >= 0.9, hits


def test_words_figures_and_intervals_are_of_the_rows_that_the_conditions_hold() -> None:
    seen = list[Slice]()
    for seed in range(30):
        frame = answers(seed, n=3_000)
        frame = turned(frame, list(PLANTED.values())[seed % len(PLANTED)](frame))
        told = ps.slices(frame, material=0.0)
        losses = -np.log(np.where(frame["label"], frame["score"], 1 - frame["score"]))
        judged = _judged(frame)
        for each in told.slices:
            named = pd.concat([fulfils(frame, c) for c in each.conditions], axis=1).all(axis=1).to_numpy()
            assert each.rows == (named & judged).sum() and told.judged == judged.sum()
            assert each.loss == pytest.approx(losses[named & judged].mean())
            assert each.rest == pytest.approx(losses[~named & judged].mean())
            assert each.excess == pytest.approx(each.loss - each.rest) and 0 < each.low < each.excess < each.high
            assert each.share == each.rows / told.judged and 1 <= len(each.conditions) <= 3
            assert each.where == " and ".join(map(str, each.conditions))
        assert list(told.slices) == sorted(told.slices, key=lambda s: -s.rows * s.excess)
        seen += told.slices
    assert len(seen) >= 25


def _judged(frame: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.bool_]]:
    from penstock.frames.slices import _halves

    return ~_halves(frame["id"])


def test_intervals_hold_the_true_excess() -> None:
    within = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        frame = pd.DataFrame({"x": rng.random(1_000), "score": 0.0})
        frame["label"] = rng.exponential(np.where(frame["x"] > 0.8, 3.0, 1.0))
        told = ps.slices(frame)
        assert told.loss_is == "absolute_error"
        for each in told.slices:
            inside = np.array([fulfils(pd.DataFrame({"x": GRID}), c) for c in each.conditions]).all(axis=0)
            truth = np.where(GRID > 0.8, 3.0, 1.0)
            within.append(each.low <= truth[inside].mean() - truth[~inside].mean() <= each.high)
    assert len(within) > 100 and np.mean(within) >= 0.95


GRID = (np.arange(10_000) + 0.5) / 10_000


def test_a_model_that_knows_what_it_does_not_know_is_not_surprising() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.random(5_000)})
    frame["score"] = np.where(frame["x"] > 0.7, 0.5, 0.05)
    frame["label"] = rng.random(5_000) < frame["score"]
    told = ps.slices(frame)
    assert told.slices[0].where.startswith("x > 0.7")
    assert told.slices[0].expected == pytest.approx(told.slices[0].loss, abs=0.03)
    assert ps.slices(frame, surprising=True).slices == ()


def test_a_difference_that_is_no_matter_is_not_named() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.random(60_000), "score": 0.0})
    frame["label"] = rng.normal(np.where(frame["x"] > 0.5, 1.06, 1.0), 0.1)
    assert ps.slices(frame).slices == ()
    assert ps.slices(frame, material=0.05).slices


def test_more_answers_change_the_half_of_no_earlier_one() -> None:
    frame = answers(1)
    half = _judged(frame)
    assert (_judged(frame.iloc[::-1])[::-1] == half).all() and (_judged(frame.head(100)) == half[:100]).all()
    assert 0.45 < half.mean() < 0.55


ODD: dict[str, pd.DataFrame] = {
    "nothing": answers(1).head(0),
    "one row": answers(1).head(1),
    "no label": answers(1).assign(label=None),
    "one loss": answers(1).assign(label=True, score=0.5),
    "constant inputs": answers(1)[["label", "score"]].assign(x=1.0),
    "no inputs": answers(1)[["id", "label", "score"]],
    "all missing": answers(1)[["label", "score"]].assign(x=None, y=np.nan),
    "infinite": answers(1)[["label", "score"]].assign(x=np.where(np.arange(2_000) % 3, np.inf, -np.inf)),
    "huge": answers(1)[["label", "score"]].assign(x=np.arange(2_000) * 1e300),
    "levels": answers(1)[["label", "score"]].assign(x=[f"ü{i}" for i in range(2_000)]),
    "times": answers(1)[["label", "score"]].assign(x=pd.date_range("2026-01-01", periods=2_000)),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("odd", ODD)
def test_odd_input_has_a_stated_result(odd: str) -> None:
    told = ps.slices(ODD[odd])
    assert isinstance(told, Slices) and told.why and "nan" not in str(told)


def _outcomes(folder: Path, frame: pd.DataFrame) -> pd.DataFrame:
    """Archived and read again: a second label for every third."""
    from deltalake import write_deltalake

    frame = frame.assign(id=[f"a{i}" for i in range(len(frame))], version="v1", partition=0)
    frame = pd.concat([frame.iloc[::3].assign(truth=frame["truth"].iloc[0]), frame], ignore_index=True)
    frame = frame.assign(offset=range(len(frame)), time=pd.Timestamp("2026-03-01", tz="UTC").as_unit("us"))
    write_deltalake(str(folder / "p.outcomes.m"), pa.Table.from_pandas(frame))
    return archived(Tables(folder), "p.outcomes.m", DAYS, ["x", "younger"])


def test_of_numbers_the_error_counts_and_of_classes_whether_the_answer_was_right(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, sizes = rng.integers(0, 10, 4_000).astype(float), rng.normal(0, 1, 4_000)
    numbers = pd.DataFrame({"x": x, "score": 5.0, "truth": 5.0 + np.where(x > 7, 3.0, 1.0) * sizes})
    told = ps.slices(_outcomes(tmp_path / "numbers", numbers))
    assert (told.rows, told.loss_is, told.slices[0].where, told.slices[0].expected) == (4_000, "absolute_error", "x > 7", None)
    right = rng.random(4_000) < np.where(x <= 2, 0.4, 0.9)
    classes = pd.DataFrame({"x": x, "score": 0.9, "answer": "bug", "truth": np.where(right, "bug", "question")})
    for surprising in (True, False):
        told = ps.slices(_outcomes(tmp_path / f"classes {surprising}", classes), surprising=surprising)
        assert (told.rows, told.loss_is, told.slices[0].where) == (4_000, "zero_one_loss", "x ≤ 2")
        assert told.slices[0].loss == pytest.approx(0.6, abs=0.05)
        assert told.slices[0].rest == pytest.approx(0.1, abs=0.03)
        assert told.slices[0].expected == pytest.approx(0.1), "it was sure of nine of ten"
    named = classes.rename(columns={"answer": "said", "truth": "kind"}).assign(kind=lambda f: f["kind"].astype("category"))
    assert ps.slices(named, label="kind", answer="said").slices[0].where == "x ≤ 2"
    with pytest.raises(ps.PenstockError, match="or labels classes") as caught:
        ps.slices(named, label="kind")
    assert "answer=" in str(caught.value.fix)


def test_declared_segments_tell_slices_though_the_model_does_not_see_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    cities, x = rng.choice(["Rome", "Bari", "missing"], 4_000), rng.integers(0, 10, 4_000).astype(float)
    right = rng.random(4_000) < np.where(cities == "Rome", 0.4, 0.9)
    segments = [f'{{"Ask.city":"{city}","x":"< 5"}}' if city != "missing" else '{"x":"< 5"}' for city in cities]
    frame = pd.DataFrame({"x": x, "score": 0.9, "truth": right, "segments": segments}).rename(columns={"truth": "label"})
    from deltalake import write_deltalake

    frame = frame.assign(id=[f"a{i}" for i in range(4_000)], version="v1", partition=0, offset=range(4_000))
    write_deltalake(str(tmp_path / "p.outcomes.m"), pa.Table.from_pandas(frame))
    read = archived(Tables(tmp_path), "p.outcomes.m", LATE, ["x"], segments=["Ask.city", "x"])
    assert [*read.columns] == ["id", "label", "score", "version", "x", "Ask.city"], "of an input its own values say more"
    assert read["Ask.city"].isna().sum() == (cities == "missing").sum()
    assert [each.where for each in ps.slices(read).slices] == ["Ask.city is Rome"]
    assert "Ask.city" not in archived(Tables(tmp_path), "p.outcomes.m", LATE, ["x"])


def test_a_quantile_is_judged_by_its_pinball_loss() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 10, 4_000).astype(float)
    below = rng.random(4_000) < np.where(x > 7, 0.1, 0.9)  # of an answer that is meant to be the quantile of 0.9
    frame = pd.DataFrame({"x": x, "score": 5.0, "label": np.where(below, 4.0, 6.0)})
    assert ps.slices(frame).slices == ()  # all are equally far away
    told = ps.slices(frame, quantile=0.9)
    assert (told.loss_is, told.slices[0].where) == ("pinball_loss", "x > 7")
    assert told.slices[0].rest == pytest.approx(0.9 * 0.1 + 0.1 * 0.9, abs=0.02)
    truths = pd.DataFrame({"x": x, "score": 0.5, "label": 1.0})  # numbers that look like probabilities are none
    assert ps.slices(truths, quantile=0.9).loss == pytest.approx(0.45)
    with pytest.raises(ps.PenstockError, match="quantile=2"):
        ps.slices(frame, quantile=2)


def test_frames_tables_and_files_say_the_same(tmp_path: Path) -> None:
    frame = turned(answers(3), answers(3)["x0"] > 1)
    told = ps.slices(frame)
    frame.to_parquet(tmp_path / "outcomes.parquet")
    assert told.slices and ps.slices(str(tmp_path / "outcomes.parquet")) == told == ps.slices(pa.Table.from_pandas(frame))


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(ps.PenstockError, match="no column 'lable'"):
        ps.slices(answers(1), label="lable")
    with pytest.raises(ps.PenstockError, match="truths or numbers"):
        ps.slices(answers(1).assign(label="yes"))
    with pytest.raises(ps.PenstockError, match="only probabilities"):
        ps.slices(answers(1).assign(label=3.5), surprising=True)
