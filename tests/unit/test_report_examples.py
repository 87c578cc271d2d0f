"""The most wrong answers of a report are those that a plain search finds, each once, by its newest label."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from penstock.report.examples import MOST
from penstock.report.reading import _worst

START = datetime(2026, 1, 1, tzinfo=UTC)


def outcomes(seed: int, kind: str) -> list[dict[str, Any]]:
    """Answers, a fifth of them corrected later; scores on a grid, so that many are equally wrong."""
    rng, rows = random.Random(seed), list[dict[str, Any]]()
    for i in range(200):
        score = rng.choice([0.1, 0.25, 0.5, 0.9, float("nan")])
        labels = [rng.choice(["a", "b"]) if kind == "classes" else rng.random() < 0.5 for _ in range(1 + (rng.random() < 0.2))]
        for at, label in enumerate(labels):
            rows.append(
                {
                    "offset": len(rows), "id": f"o{i:03}", "key": f"k{i % 7}", "time": START + timedelta(minutes=i // 2),
                    "labelled": START + timedelta(hours=1 + at, minutes=i), "label": label, "score": score, "version": "v1",
                    "answer": "a", "Order.amount": float(i) if i % 3 else None,
                }
            )  # fmt: skip
    return rows


@pytest.mark.parametrize("kind", ["yes or no", "classes"])
@pytest.mark.parametrize("seed", range(3))
def test_the_most_wrong_answers_are_those_that_a_plain_search_finds(seed: int, kind: str) -> None:
    rows = outcomes(seed, kind)
    newest = {row["id"]: row for row in rows}  # in order of label: the last is the newest

    def off(row: dict[str, Any]) -> float:
        if kind == "classes":
            return row["score"] if row["label"] != row["answer"] else -row["score"]
        return abs(row["label"] - row["score"])

    known = [row for row in newest.values() if row["score"] == row["score"]]
    expected = sorted(known, key=lambda row: (-off(row), row["time"], row["id"]))[:MOST]
    shuffled = random.Random(seed).sample(rows, len(rows))
    found = _worst(pa.Table.from_pylist(shuffled), ["Order.amount"], "label")
    assert [(w.id, w.score, w.inputs["Order.amount"]) for w in found] == [
        (row["id"], row["score"], row["Order.amount"]) for row in expected
    ]
