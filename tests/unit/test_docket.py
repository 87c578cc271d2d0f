"""The docket: which answers people are asked about, what counts of what they say, and what becomes of it."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.services.clinic import Discharge, answer, clinic, flag, review

import penstock as ps
from penstock.errors import DefinitionError
from penstock.event import to_micros
from penstock.log import Send
from penstock.records import Flag, Prediction, Queued, Review, Reviewed
from penstock.review import drawn
from penstock.reviewing.panel import usefulness
from penstock.services.monitoring import docket as docket_module
from penstock.services.monitoring.docket import Asked, Docket


class Court:
    """A docket, and all that it has sent."""

    def __init__(self, **declared: Any) -> None:
        self.topics = clinic(**declared)
        self.sends: list[Send] = []
        self.docket = Docket(self.topics.project.models[0], self.topics, self.sends)

    def hear(self, *said: Prediction | Flag | Review) -> Court:
        for each in said:
            if isinstance(each, Prediction):
                asked = msgspec.json.decode(msgspec.json.encode(each), type=Asked)
                self.docket.answer(asked, to_micros(each.time))
            elif isinstance(each, Flag):
                self.docket.flag(each, to_micros(each.at))
            else:
                self.docket.hear(each, to_micros(each.at))
        return self

    def again(self) -> Court:
        """As it is after a restart."""
        fresh = Court.__new__(Court)
        fresh.topics, fresh.sends = self.topics, self.sends
        fresh.docket = Docket(self.topics.project.models[0], self.topics, fresh.sends)
        fresh.docket.restore(self.saved.items(), self.docket.queued(), self.docket.now, self.docket.unknown())
        fresh.docket.table = dict(self.saved)
        return fresh

    @property
    def saved(self) -> dict[bytes, bytes]:
        return {field: value for field, value in self.docket.table.items() if value is not None}

    def of(self, topic: str, kind: Any) -> list[Any]:
        return [msgspec.json.decode(send.value, type=kind) for send in self.sends if send.topic == topic and send.value]

    @property
    def ends(self) -> list[tuple[str, str, bool | None]]:
        return [(end.prediction, end.state, end.label) for end in self.of(self.topics.reviewed, Reviewed)]

    @property
    def waiting(self) -> dict[str, Queued]:
        found: dict[str, Queued] = {}
        for send in self.sends:
            if send.topic == self.topics.queue:
                name = (send.key or b"").decode().partition("/")[0]
                found.pop(name, None)
                if send.value is not None:
                    found[name] = msgspec.json.decode(send.value, type=Queued)
        return found

    @property
    def labels(self) -> list[dict[str, Any]]:
        return self.of("returns", dict)


def test_people_are_asked_about_answers_near_the_threshold_and_those_of_which_the_model_knew_little() -> None:
    court = Court(near=0.1).hear(answer("near", 0.6), answer("far", 0.61), answer("blind", 0.95, pulse=None))
    assert {name: (q.unfamiliar, q.want) for name, q in court.waiting.items()} == {"near": (False, 1), "blind": (True, 1)}
    assert msgspec.json.decode(court.waiting["near"].inputs) == {"Discharge.age": 60.0, "Discharge.pulse": 70.0}


def test_what_is_asked_of_the_uncertain_is_a_share_that_follows_from_the_id() -> None:
    answers = [answer(f"o{i}") for i in range(1000)]
    few = Court(sample=0.1, most=1000).hear(*answers).waiting
    assert 70 < len(few) < 130
    assert set(few) == {a.id for a in answers if drawn("review", "readmission", a.id) < 0.1}
    assert set(few) == set(Court(sample=0.1, most=1000).hear(*reversed(answers)).waiting)
    assert set(few) < set(Court(sample=0.2, most=1000).hear(*answers).waiting), "a greater share asks about these, and more"


def test_a_flagged_answer_waits_whatever_its_score_and_what_was_said_of_it_is_shown() -> None:
    court = Court().hear(answer("o", 0.99), flag("o", says=False, why="she moved away"), flag("o", "bob"))
    assert (court.waiting["o"].flags, court.waiting["o"].notes) == (2, ["ann: no would be right - she moved away", "bob: wrong"])
    assert court.labels == [], "a flag is no label"


def test_a_decision_is_a_label_event_of_its_source_as_of_the_stream_s_time() -> None:
    court = Court().hear(answer("o"), answer("later", 0.9, hours=5), review("o", says=True))
    assert court.labels == [
        {"stay_id": "o", "returned": True, "reporter": "reviewers", "reported_at": "2026-03-01T05:00:00Z"}
    ]  # fmt: skip
    assert court.ends == [("o", "labelled", True)] and court.waiting == {}


def test_where_no_sources_are_declared_it_is_a_label_like_any_other() -> None:
    (label,) = Court(sources=None).hear(answer("o"), review("o")).labels
    assert label == {"stay_id": "o", "returned": True, "reported_at": "2026-03-01T00:00:00Z"}


def test_two_are_asked_on_purpose_without_seeing_each_other_and_a_third_where_they_differ() -> None:
    court = Court(pairs=1.0).hear(answer("o"), review("o", "ada", True))
    assert (court.waiting["o"].want, court.waiting["o"].have, court.waiting["o"].not_for) == (2, 1, ["ada"])
    assert court.labels == []
    court.hear(review("o", "bob", False))
    assert (court.waiting["o"].want, court.waiting["o"].have) == (3, 2)
    court.hear(review("o", "cyd", False))
    assert court.labels[0]["returned"] is False
    two, end = court.of(court.topics.reviewed, Reviewed)
    assert (two.state, two.reviewers, two.said) == ("contradicted", ["ada", "bob"], [True, False])
    assert (end.paired, end.reviewers, end.said) == (True, ["ada", "bob", "cyd"], [True, False, False])


def test_the_word_of_who_flagged_an_answer_does_not_decide_on_it() -> None:
    first: list[Flag | Review] = [flag("o", "ann"), review("o", "ann")]
    for words in (first, first[::-1]):
        court = Court().hear(*words, answer("o", 0.9))
        assert court.labels == [] and court.ends == [("o", "refused", None)] and "o" in court.waiting
        assert court.hear(review("o", "ada", False)).labels[0]["returned"] is False


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([flag("o"), flag("o")], "flagged by the same person before"),
        ([review("o", "ada"), review("o", "ada", False)], "reviewed by the same person before"),
        ([review("o", "ada"), review("o", "bob"), review("o", "cyd")], "decided already"),
        ([review("o", "ada"), review("o", "bob"), flag("o")], "decided already"),
        ([flag("o", f"f{i}") for i in range(51)], "flagged by 50 others already"),
    ],
)
def test_words_that_do_not_count_are_told(words: list[Flag | Review], reason: str) -> None:
    court = Court(pairs=1.0).hear(answer("o"), *words)
    refused = [end for end in court.of(court.topics.reviewed, Reviewed) if end.state == "refused"]
    assert [end.reason for end in refused] == [reason]


def test_words_of_an_answer_that_is_not_known_wait_for_it() -> None:
    court = Court().hear(flag("o", "ann"), review("o", "ada", False))
    assert court.sends == []
    assert court.hear(answer("o", 0.9)).ends == [("o", "labelled", False)]


def test_words_of_an_answer_that_never_comes_are_an_orphan_when_its_horizon_has_passed() -> None:
    court = Court().hear(answer("a"), flag("o", hours=1), answer("b", 0.9, hours=30 * 24 + 1))
    assert court.ends[-1][:2] != ("o", "orphan")
    assert court.hear(answer("c", 0.9, hours=30 * 24 + 2)).ends[-1] == ("o", "orphan", None)


def test_no_more_words_of_unknown_answers_wait_than_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docket_module, "WAITING", 3)
    court = Court().hear(*(flag(f"o{i}") for i in range(5)))
    assert court.ends == [("o0", "orphan", None), ("o1", "orphan", None)]
    assert set(court.hear(*(answer(f"o{i}", 0.9) for i in range(5))).waiting) == {"o2", "o3", "o4"}


def test_which_words_of_unknown_answers_give_way_does_not_depend_on_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docket_module, "WAITING", 3)
    court = Court()
    for i in range(5):  # each by a clock that is behind the one before
        court = court.hear(flag(f"o{i}", hours=10.0 - i)).again()
    assert court.ends == [("o0", "orphan", None), ("o1", "orphan", None)]


def test_a_review_of_what_nobody_asked_about_waits_for_a_flag_and_is_refused_without() -> None:
    late = answer("late", 0.9, hours=31 * 24)
    court = Court().hear(answer("o", 0.9), review("o"))
    assert court.sends == []
    assert court.again().hear(late).ends[-1] == ("o", "refused", None)
    assert Court().hear(answer("o", 0.9), review("o"), flag("o"), late).ends[0] == ("o", "labelled", True)


def test_what_nobody_decides_leaves_the_queue_with_the_horizon_of_its_label() -> None:
    court = Court().hear(answer("o"), answer("late", 0.9, hours=31 * 24))
    assert court.waiting == {} and court.ends == [("o", "expired", None)]
    assert court.saved.keys() == {b"readmission\0late"}


def test_the_queue_is_bounded_and_holds_what_teaches_most() -> None:
    rng = random.Random(3)
    answers = [answer(f"o{i}", round(rng.uniform(0.4, 0.6), 3)) for i in range(60)]
    court = Court(most=10, near=0.1).hear(*answers, answer("flagged", 0.99), flag("flagged"))
    waiting = court.waiting
    closest = sorted(answers, key=lambda a: (abs(a.score - 0.5), drawn("order", "readmission", a.id)))
    assert set(waiting) == {"flagged", *(a.id for a in closest[:9])}
    assert min(waiting.values(), key=usefulness).prediction == "flagged"


def test_a_decision_that_is_no_event_is_refused_and_says_why() -> None:
    name = "o" * 1025  # of an event, more than a key may have
    court = Court().hear(answer(name), review(name))
    (end,) = court.of(court.topics.reviewed, Reviewed)
    assert end.state == "refused" and "the label would be no Return" in end.reason and court.labels == []


WORDS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["ada", "bob", "cyd"]), st.booleans()), max_size=8
)  # fmt: skip


@given(
    reviews=WORDS, flags=st.lists(st.sampled_from("abc"), max_size=3), order=st.randoms(use_true_random=False), cut=st.booleans()
)
@settings(deadline=None)
def test_what_is_found_does_not_depend_on_which_topic_was_read_first_nor_on_restarts(
    reviews: list[tuple[str, str, bool]], flags: list[str], order: random.Random, cut: bool
) -> None:
    sources: list[list[Any]] = [
        [answer("a"), answer("b", 0.9), answer("c", 0.9)],
        [flag(name, f"flagger{i}") for i, name in enumerate(flags)],
        [review(name, by, says) for name, by, says in reviews],
    ]

    def found(merged: list[Any], restarts: bool) -> dict[str, Any]:
        court = Court(pairs=0.5)
        for said in merged:
            court = court.hear(said)
            if restarts:
                court = court.again()
        return {label["stay_id"]: label["returned"] for label in court.labels}

    places = [i for i, source in enumerate(sources) for _ in source]
    order.shuffle(places)
    rest = [iter(source) for source in sources]
    assert found([next(rest[i]) for i in places], cut) == found([said for source in sources for said in source], False)
    assert naive(sources) == found([said for source in sources for said in source], False)


def naive(sources: list[list[Any]]) -> dict[str, bool]:
    """The same, told as a person would."""
    answers, flags, reviews = sources
    result = {}
    for a in answers:
        if a.id != "a" and not any(f.prediction == a.id for f in flags):
            continue  # nobody is asked
        words: dict[str, bool] = {}
        for r in reviews:
            if r.prediction == a.id:
                words.setdefault(r.by, r.says)
        said = list(words.values())
        want = 2 if drawn("pair", "readmission", a.id) < 0.5 else 1
        if len(said) >= want and len(set(said[:want])) == 1:
            result[a.id] = said[0]
        elif len(said) >= 3:
            result[a.id] = Counter(said[:3]).most_common()[0][0]
    return result


def test_a_review_that_could_not_become_a_label_is_a_mistake_in_the_project() -> None:
    @ps.event("paid")
    class Paid:
        stay_id: ps.Key[str]
        paid: bool
        amount: float
        teller: str
        at: ps.EventTime

    def declare(**more: Any) -> None:
        @ps.model(scores=Discharge, features=[Discharge.age], label=ps.label(Paid.paid, within="1d", **more), review=ps.review())
        def paying() -> ps.Learner:
            raise NotImplementedError

    with pytest.raises(DefinitionError, match=r"nobody fills Paid.amount, Paid.teller"):
        declare()
    with pytest.raises(DefinitionError, match=r"'reviewers' is no source"):
        declare(sources=ps.sources(Paid.teller, {"bank": 1}))
    with pytest.raises(DefinitionError, match=r"near=0\.7"):
        ps.review(near=0.7)
