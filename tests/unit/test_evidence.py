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


def test_late_labels_say_how_far_behind_they_are_and_of_which_answers() -> None:
    late = {"cohort": "2026-03-19T00:00:00+00:00", "labelled": 0.435, "usually": 0.532, "within_seconds": 864_000.0,
            "median_delay_seconds": 216_000.0, "usual_median_delay_seconds": 108_000.0, "distance": 0.182, "critical": 0.156,
            "floor": 0.132, "answers": 324}  # fmt: skip
    assert facts(late) == [
        "43.5% of 324 answers have their label in time, usually 53.2%",
        "so labels are 18.2% behind the usual at worst (limit 15.6%)",
        "half of the labels came within 2.5 d, usually within 1.25 d",
        "this is of the answers of 2026-03-19 00:00; in time is within 10 d",
    ]
    assert "within_seconds" not in str(facts({**late, "median_delay_seconds": None}))


def test_novelty_names_the_inputs_and_an_answer_in_words() -> None:
    idle = {"input": "Customer.idle", "share": 0.2456, "expected": 0.00092, "floor": 0.05, "p": 4.5e-72, "below": 0, "above": 69,
            "missing": 0}  # fmt: skip
    odd = {"id": "a6245", "level": 9, "bits": 28, "inputs": {"Customer.idle": [918_000.4, 9], "Customer.burden": [None, 6]}}
    whole = {"score": "one in 128 expected", "share": 0.3, "expected": 0.005, "floor": 0.05, "p": 0.0}
    said = {"version": "v1", "answers": 281, "novel": 0.3, "expected": 0.005, "found": [idle, whole], "oddest": [odd]}
    assert facts(said) == [
        "30.0% of 281 answers were about something novel, as are 0.50% of the rows that v1 was fitted on",
        "Customer.idle was outside all training rows in 24.6% of the answers, 0.09% expected (limit 5.0% more): 69 above",
        "novel as a whole in 30.0% of the answers, 0.50% expected (limit 5.0% more)",
        "for example a6245, as odd as one training row in 512: Customer.idle 918,000, Customer.burden missing",
    ]
    assert facts({"oddest": [{**odd, "inputs": "none"}]}) == ["id a6245, level 9, bits 28, inputs none"]


def test_values_of_another_kind_are_told_by_their_names() -> None:
    assert facts({"skill": "high", "floor": None, "n": 1, "log_loss": 0.1, "prior_loss": "x"})
    assert facts({"skill": "high", "floor": 0.1, "n": 1, "log_loss": 0.1, "prior_loss": "x"}) == [
        "skill high, floor 0.1, n 1, log loss 0.1, prior loss x"
    ]
    assert facts({"inputs": [{"input": "a", "ks": "far", "more": [1, 2]}]}) == ["input a, ks far, more 1, 2"]
