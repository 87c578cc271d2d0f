"""Evidence in words: what is known is a sentence, what is not is told by its names, and nothing breaks the telling."""

from __future__ import annotations

from penstock.evidence import facts, summary

SHIFT = {"input": "Origin.wind", "ks": 0.31, "critical": 0.2, "floor": 0.1}
DRIFT = {"since": "2013", "reference": "v2", "tested": 21, "shifted": 1, "periods": 2, "inputs": [SHIFT]}


def test_drift_says_how_many_inputs_moved_and_which_are_beyond_their_limits() -> None:
    within = {**SHIFT, "input": "Origin.rain", "ks": 0.19, "shifted": False}
    assert facts({**DRIFT, "inputs": [SHIFT, within]}) == [
        "1 of 21 watched moved against the reference of v2, 2 windows taken together",
        "Origin.wind moved by 0.31 (limit 0.2), beyond it",
        "Origin.rain moved by 0.19 (limit 0.2), within it",
    ]


def test_an_alarm_that_lasts_on_relaxed_limits_marks_what_is_near_its_limit() -> None:
    held = {**SHIFT, "ks": 0.17, "shifted": True}
    assert facts({**DRIFT, "inputs": [held]})[1] == "Origin.wind moved by 0.17 (limit 0.2), near it"
    uncounted = facts({**DRIFT, "shifted": 0, "inputs": [{**SHIFT, "shifted": False}]})
    assert uncounted[1] == "Origin.wind moved by 0.31 (limit 0.2), beyond it, but not counted", "its custom is not known"
    assert facts({**DRIFT, "shifted": 0})[0].startswith("nothing watched moves now against the reference of v2")


def test_labels_and_skill_are_sentences() -> None:
    late = facts({"labelled": 0.5, "usually": 0.98, "answers": 1200, "distance": 0.4})
    assert late == ["50.0% of 1,200 answers have their label in time, usually 98.0%", "distance 0.4"]
    bad = summary({"skill": 0.01, "floor": 0.02, "n": 900, "log_loss": 0.4, "prior_loss": 0.41})
    assert bad == "skill 0.01, below the floor of 0.02, on 900 outcomes; log loss 0.4, that of the prior 0.41"


def test_values_of_another_kind_are_told_by_their_names() -> None:
    assert facts({"skill": "high", "floor": None, "n": 1, "log_loss": 0.1, "prior_loss": "x"})
    assert facts({"skill": "high", "floor": 0.1, "n": 1, "log_loss": 0.1, "prior_loss": "x"}) == [
        "skill high, floor 0.1, n 1, log loss 0.1, prior loss x"
    ]
    assert facts({"inputs": [{"input": "a", "ks": "far", "more": [1, 2]}]}) == ["input a, ks far, more 1, 2"]
