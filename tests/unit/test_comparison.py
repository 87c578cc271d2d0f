"""ps.drift.compare: two tables, whatever is in them, come to a verdict in words; a NaN never is one."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import penstock as ps
from penstock.comparison.likeness import Likeness
from penstock.policy import Drift

RNG = np.random.default_rng(0)
N = 2_000
NORMAL = RNG.normal(size=N)


def verdict(then: Any, now: Any, **options: Any) -> tuple[str, str]:
    """Of one column; nothing in the result is NaN."""
    found = ps.drift.compare(pd.DataFrame({"x": then}), pd.DataFrame({"x": now}), **options)
    assert "NaN" not in found.to_json() and "nan" not in str(found) + found.to_html()

    def numbers(value: Any) -> list[float]:
        if isinstance(value, dict):
            return [n for each in value.values() for n in numbers(each)]
        if isinstance(value, list):
            return [n for each in value for n in numbers(each)]
        return [value] if isinstance(value, float) else []

    assert all(math.isfinite(n) for n in numbers(found.described()))
    return found["x"].verdict, found["x"].why


def test_the_word_drift_still_declares_a_monitor() -> None:
    assert isinstance(ps.drift(every="2d", material=0.2), Drift)
    with pytest.raises(ps.DefinitionError, match="material"):
        ps.drift(material=2)


MISSING = [None] * N
DAYS = pd.date_range("2026-01-01", periods=N)
SCRIPTS = pd.Series(["日本", "ö", "o\u0308", "", " ", "\x00", "\ud800"] * 300, dtype=object)
ODD: dict[str, tuple[Any, Any, str, str]] = {
    "one constant": ([7.0] * N, [7.0] * 300, "steady", "moved by 0.000"),
    "another constant": ([7.0] * N, [8.0] * 300, "drift", "moved by 1.000"),
    "a constant that begins to vary": ([7.0] * N, NORMAL[:300], "drift", "moved by 1.000"),
    "all missing on both sides": (MISSING, [None] * 300, "steady", "every value is missing on both sides"),
    "all missing now": (NORMAL, [None] * 300, "drift", "missing: 100.00% of rows, 0.00% before"),
    "all missing before": (MISSING, NORMAL[:300], "drift", "missing: 0.00% of rows, 100.00% before"),
    "some missing now": (NORMAL, np.where(RNG.random(500) < 0.1, np.nan, NORMAL[:500]), "drift", "missing"),
    "one row": (NORMAL, NORMAL[:1], "unknown", "1 and 2,000 rows are too few to tell drift from chance"),
    "one row against one": ([1.0], [9.0], "unknown", "too few"),
    "no row now": (NORMAL, [], "unknown", "there are no rows to compare"),
    "a reference without rows": ([], NORMAL, "unknown", "the reference has no rows"),
    "no rows at all": ([], [], "unknown", "the reference has no rows"),
    "infinite values": ([*NORMAL, np.inf, -np.inf], [*NORMAL[:500], np.inf], "steady", "below its floor"),
    "infinite values that become many": (NORMAL, np.where(RNG.random(500) < 0.04, np.inf, NORMAL[:500]), "drift", "infinite"),
    "only infinite values": ([np.inf] * N, [np.inf] * 300, "steady", "below its floor"),
    "the greatest numbers there are": (NORMAL * 4e307, NORMAL[:500] * 4e307, "steady", "moved"),
    "the least numbers there are": (NORMAL * 5e-324, NORMAL[:500] * 5e-324, "steady", "moved"),
    "numbers that became text": (NORMAL, ["high"] * 300, "drift", "it was of numbers, and is of texts"),
    "integers beyond float64": ([10**400, 1] * 1_000, [10**400, 1] * 100, "steady", "moved"),
    "truth values beside numbers": ([True, False] * 1_000, [1.0, 0.0] * 200, "steady", "moved"),
    "truth values that turn": ([True] * N, [False] * 300, "drift", "moved"),
    "text in all scripts": (SCRIPTS, ["日本", "ö"] * 200, "drift", "moved by"),
    "a new text": (["a", "b"] * 1_000, ["a", "b", "c"] * 100, "drift", "new levels: 33.33% of rows, 0.00% before"),
    "lists": ([[1], [2]] * 1_000, [[1], [2]] * 100, "steady", "moved"),
    "names of rows": ([f"r{i}" for i in range(N)], ["r1"] * 300, "unknown", "it names rows: 2,000 different values"),
    "numbers of rows": (range(N), range(N, N + 300), "unknown", "it rises from row to row"),
    "times": (DAYS, DAYS[:9], "unknown", "times move by themselves"),
    "one text": (["a"] * N, ["a"] * 300, "steady", "moved by 0.000"),
    "one text and one row of it": (["a"] * N, ["a"], "unknown", "too few"),
    "one truth value": ([True] * N, [True] * 300, "steady", "moved by 0.000"),
    "two rows, and some missing before": ([*NORMAL, *[None] * 300], NORMAL[:2], "unknown", "too few"),
    "decimals": ([Decimal(i % 9) for i in range(N)], [1.0, 5.0] * 200, "drift", "moved"),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_odd_columns_have_a_stated_result(name: str) -> None:
    then, now, expected, why = ODD[name]
    found = verdict(then, now)
    assert found[0] == expected and why in found[1]


def test_a_million_levels_have_a_stated_result() -> None:
    then = pd.DataFrame({"x": np.arange(1_000_000).astype(str)})
    found = ps.drift.compare(then, then[:1_000])["x"]
    assert (found.verdict, found.why) == ("unknown", "it names rows: 1,000,000 different values in 1,000,000 rows")


def test_columns_on_one_side_and_of_two_kinds_and_what_is_not_there() -> None:
    then = pd.DataFrame({"a": NORMAL, "gone": 1, "k": pd.Categorical(["x", "y"] * 1_000)})
    now = pd.DataFrame({"new": 1, "a": NORMAL, "k": ["x", "y"] * 1_000})
    found = ps.drift.compare(then, now)
    assert {c.name: c.verdict for c in found.columns} == {"a": "steady", "gone": "drift", "k": "steady", "new": "unknown"}
    assert found.verdict == "drift" and found.drifted == ("gone",) and found.why == "drift in 1 of 3 columns: gone"
    assert ps.drift.compare(then, now, columns=["a"]).verdict == "steady"
    for options, said in (
        ({"columns": ["b"]}, "neither table has a column 'b'"),
        ({"like": "gone"}, "only one of the tables"),
        ({"alpha": 0}, "shares lie between 0 and 1"),
        ({"floor": 1.5}, "shares lie between 0 and 1"),
    ):
        with pytest.raises(ps.PenstockError, match=said):
            ps.drift.compare(then, now, **options)
    with pytest.raises(ps.PenstockError, match="the reference is a list, no table"):
        ps.drift.compare([1], now)  # type: ignore[arg-type]
    with pytest.raises(ps.PenstockError, match="two columns called 'a'"):
        ps.drift.compare(pd.DataFrame([[1, 2]], columns=["a", "a"]), now)
    with pytest.raises(ps.PenstockError, match="no column 'b' was compared"):
        found["b"]
    nothing = ps.drift.compare(pd.DataFrame(), pd.DataFrame())
    assert (nothing.verdict, nothing.why) == ("unknown", "nothing could be compared: there is no column")


def test_frames_arrow_tables_and_files_come_to_the_same(tmp_path: Path) -> None:
    then = pd.DataFrame({"a": NORMAL.round(3), "k": RNG.choice(["x", "y", "z"], N), "b": RNG.random(N) < 0.3})
    now = pd.DataFrame({"a": NORMAL[:900].round(3) + 1, "k": RNG.choice(["x", "z"], 900), "b": RNG.random(900) < 0.3})
    truth = ps.drift.compare(then, now)
    assert truth.drifted == ("a", "k") or truth.drifted == ("k", "a")
    for side, frame in (("then", then), ("now", now)):
        frame.to_parquet(tmp_path / f"{side}.parquet")
        frame.to_csv(tmp_path / f"{side}.csv", index=False)
    assert ps.drift.compare(pa.Table.from_pandas(then), pa.Table.from_pandas(now)).described() == truth.described()
    assert ps.drift.compare(str(tmp_path / "then.parquet"), tmp_path / "now.csv").described() == truth.described()


def test_the_result_is_shown_as_text_json_frame_and_page() -> None:
    found = ps.drift.compare(
        pd.DataFrame({"<b>": NORMAL, "k": ["x", "y"] * 1_000}), pd.DataFrame({"<b>": NORMAL + 1, "k": ["x", "y"] * 1_000})
    )
    assert str(found).splitlines()[0] == "Drift in 1 of 2 columns: <b> (2,000 rows in the reference, 2,000 now)"
    assert json.loads(found.to_json())["columns"][0]["answers"][0]["question"] == "distribution"
    table = found.to_pandas().set_index("name")
    assert table.loc["<b>", "verdict"] == "drift" and table.loc["<b>", "wasserstein"] == pytest.approx(1, abs=0.1)
    page = found.to_html("a & b")
    assert "<script" not in page and "&lt;b&gt;" in page and "a &amp; b" in page and page.count("<svg") == 1
    assert not [word for word in ("http:", "https:", "src=", "@import", "url(") if word in page]


# --- like with like ---------------------------------------------------------------------------------------------------


def hours(start: str, days: int, rng: np.random.Generator) -> pd.DataFrame:
    """Demand by the hour: low at night and on free days."""
    at = pd.date_range(start, periods=24 * days, freq="h")
    usual = 10 + 5 * np.sin((at.hour - 8) / 24 * 2 * np.pi) - 8 * (at.dayofweek >= 5)
    return pd.DataFrame({"at": at, "demand": usual + rng.normal(0, 0.5, len(at))})


def test_a_sunday_is_no_drift_among_its_like_and_a_busy_sunday_is() -> None:
    rng = np.random.default_rng(1)
    weeks, sunday = hours("2026-01-05", 56, rng), hours("2026-03-08", 1, rng)
    assert ps.drift.compare(weeks, sunday, floor=0.05).verdict == "drift"
    assert ps.drift.compare(weeks, sunday, like="at").verdict == "steady"
    busy = sunday.assign(demand=sunday["demand"] + 8)
    assert ps.drift.compare(weeks, busy, like="at").verdict == "drift"
    assert ps.drift.compare(weeks, busy, like="at")["at"].why == "the rows are compared within it"


def test_the_weights_give_the_reference_the_slots_of_the_current_rows() -> None:
    then = pd.DataFrame({"shop": ["a"] * 90 + ["b"] * 10, "day": [1, 2] * 50})
    now = pd.DataFrame({"shop": ["b"] * 30 + ["a"] * 10 + ["c"] * 10, "day": 1})
    like = Likeness(then, now, ["shop"])
    weights = like.weights(like.then, like.now)
    share = {shop: weights[(then["shop"] == shop).to_numpy()].sum() / weights.sum() for shop in "ab"}
    assert share == {"a": pytest.approx(0.2 + 0.2 * 0.9), "b": pytest.approx(0.6 + 0.2 * 0.1)}  # c: all shops stand in
    assert weights.sum() == pytest.approx(weights.sum() ** 2 / (weights @ weights)) and weights.sum() < 100


def test_a_reference_that_moves_by_itself_raises_its_own_floor() -> None:
    rng = np.random.default_rng(2)
    weather = np.repeat(rng.normal(size=40), 100) + rng.normal(0, 0.3, 4_000)
    then, now = pd.DataFrame({"x": weather[:3_600]}), pd.DataFrame({"x": weather[3_600:3_700]})
    found = ps.drift.compare(then, now)["x"]
    assert found.floor is not None and found.floor > 0.3
    assert ps.drift.compare(then, now, floor=0.05)["x"].verdict == "drift" and found.verdict == "steady"


# --- all columns together ---------------------------------------------------------------------------------------------


def test_what_no_column_shows_by_itself_a_classifier_sees() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(2, 4_000))
    then, now = pd.DataFrame({"a": a, "b": b}), pd.DataFrame({"a": a, "b": 0.9 * a + np.sqrt(1 - 0.81) * b})
    assert ps.drift.compare(then, now).verdict == "steady"
    found = ps.drift.compare(then, now, multivariate=True)
    assert found.together is not None and found.together.auc is not None and found.together.auc > 0.6
    assert found.verdict == "drift" and found.why.startswith("none of 2 columns has drifted by itself")
    same = ps.drift.compare(then, pd.DataFrame({"a": rng.normal(size=3_000), "b": rng.normal(size=3_000)}), multivariate=True)
    assert same.together is not None and same.together.verdict == "steady"
    few = ps.drift.compare(then, now[:20], multivariate=True)
    assert few.together is not None and few.together.verdict == "unknown"


def test_of_a_table_without_rows_it_is_said_that_there_are_none() -> None:
    full = pd.DataFrame({"id": [f"r{i}" for i in range(100)], "x": NORMAL[:100]})
    now = ps.drift.compare(full, full.iloc[:0])
    assert now.why == "nothing could be compared: there are no rows now" and now["id"].why == "there are no rows to compare"
    assert ps.drift.compare(full.iloc[:0], full).why == "nothing could be compared: the reference has no rows"
