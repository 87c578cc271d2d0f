"""What becomes of versions: rollout, promotion, roll back, commands, and that the compacted topic alone is the state."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import datetime

import msgspec
import pytest
from tests.rides import DAY, START, a_model, candidate, command, window

import penstock as ps
from penstock.errors import Refused
from penstock.model import Model
from penstock.records import Candidate, Code, Command, Decision, Paired, Statistic
from penstock.services.registry.lifecycle import decide
from penstock.services.registry.seats import Change
from penstock.services.registry.trial import Trial

N = 1_000
GATES = [ps.no_worse(by=0.001)]
STAGED = a_model(gates=GATES, rollout=[ps.shadow("1d"), ps.canary(0.1, "1d")])
SHADOW = a_model(gates=GATES, rollout=[ps.shadow("1d")])
AT_ONCE = a_model(gates=GATES)


class Book:
    """A registry of one model, every record taken twice, with the topic that it writes."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.state: dict[str, Decision] = {}
        self.topic: list[tuple[str, bytes | None]] = []

    def take(self, *records: Candidate | Statistic | Command) -> list[Change]:
        changes = []
        for record in records:
            found = decide(self.state, self.model, record)
            self.write(found)
            assert decide(self.state, self.model, record) == [], "taken again, a record changes nothing"
            changes += found
        return changes

    def write(self, changes: list[Change]) -> None:
        for key, decision in changes:
            self.topic.append((key, None if decision is None else msgspec.json.encode(decision)))
            if decision is None:
                self.state.pop(key, None)
            else:
                self.state[key] = decision

    def replayed(self) -> dict[str, Decision]:
        """The state from the compacted topic: newest value per key, tombstones gone."""
        newest = dict(self.topic)
        return {key: msgspec.json.decode(value, type=Decision) for key, value in newest.items() if value is not None}

    def at(self, key: str) -> str:
        return self.state[key].version if key in self.state else ""

    def kind(self, version: str) -> str:
        return self.state[version].kind


def promoted(model: Model = SHADOW) -> Book:
    """v1, then v2 better by 0.05 and promoted on the second day."""
    book = Book(model)
    book.take(candidate("v1"), candidate("v2", 1), window(2, v1=0.0, v2=-0.05))
    return book


def test_the_first_candidate_is_champion_at_once() -> None:
    book = Book(STAGED)
    book.take(candidate("v1"))
    assert (book.at("champion"), book.at("challenger"), book.state["champion"].reason) == ("v1", "", "first")


def test_the_version_that_was_first_in_charge_stays_the_first_whatever_comes() -> None:
    book = promoted()
    assert (book.at("first"), book.at("champion")) == ("v1", "v2")
    book.take(candidate("v3", 3), window(4, v2=0.0, v3=-0.05), window(5, v2=0.0, v3=0.3))
    assert (book.at("first"), book.at("champion"), book.kind("v3")) == ("v1", "v2", "rolled_back")
    assert book.replayed()["first"] == book.state["first"]


def test_a_better_challenger_passes_the_stages_in_order_and_is_promoted() -> None:
    book = Book(STAGED)
    book.take(candidate("v1"), candidate("v2", 1))
    assert (book.kind("v2"), book.state["challenger"].share) == ("shadow", 0.0)
    book.take(window(2, v1=0.0, v2=-0.01))
    assert (book.kind("v2"), book.state["challenger"].share) == ("canary", 0.1)
    book.take(window(3, v1=0.0, v2=-0.01))
    assert (book.at("champion"), book.at("challenger"), book.at("probation")) == ("v2", "", "v1")
    made = book.state["champion"]
    assert (made.expected, made.actor, made.at) == ("v1", "registry", START + 3 * DAY)
    assert made.evidence["n"] == 2 * N
    assert made.evidence["mean"] == pytest.approx(-0.01)


def test_a_challenger_that_is_worse_beyond_chance_and_margin_is_rejected() -> None:
    book = Book(SHADOW)
    book.take(candidate("v1"), candidate("v2", 1), window(2, v1=0.0, v2=0.05))
    assert (book.at("champion"), book.at("challenger"), book.kind("v2")) == ("v1", "", "rejected")


def test_a_stage_lasts_from_the_first_window_after_the_decision() -> None:
    """A candidate that took three days to fit is not judged on the windows that it missed."""
    book = Book(SHADOW)
    book.take(candidate("v1"), candidate("v2", 1), window(5, v1=0.0, v2=-0.05, n=10))
    assert Trial.of(book.state["challenger"]).since == START + 4 * DAY


def test_too_few_labels_extend_a_stage_three_times_and_then_reject() -> None:
    book = Book(SHADOW)
    book.take(candidate("v1"), candidate("v2", 1))
    for day in (2, 3, 4):  # and the labels of the first answers may take a day
        book.take(window(day, v1=0.0, v2=-0.05, n=10))
        assert book.at("challenger") == "v2"
    book.take(window(5, v1=0.0, v2=-0.05, n=10))
    assert (book.at("challenger"), book.kind("v2")) == ("", "rejected")
    assert book.state["v2"].reason.startswith("40 of the 200 labels needed (least=) in 3 times the stage")


def test_a_stage_is_not_over_before_the_labels_of_its_first_answers_can_be_known() -> None:
    """Chargebacks take a month; a day in shadow begins when the first of them are in."""
    book = Book(a_model(gates=GATES, rollout=[ps.shadow("1d")], within="30d"))
    book.take(candidate("v1"), candidate("v2", 1), *(window(day) for day in range(2, 31)))
    assert (book.at("challenger"), book.kind("v2")) == ("v2", "shadow")
    book.take(window(31, v1=0.0, v2=-0.05))
    assert book.at("champion") == "v2"


def test_a_version_that_is_never_scored_is_given_up_when_its_labels_would_have_been_known() -> None:
    book = Book(SHADOW)
    book.take(candidate("v1"), candidate("v2", 1), *(window(day, v1=0.0) for day in (2, 3, 4)))
    assert book.at("challenger") == "v2"
    book.take(window(5, v1=0.0))
    assert (book.at("challenger"), book.kind("v2")) == ("", "rejected")
    assert book.state["v2"].reason.startswith("0 of the 200 labels needed")


def test_it_does_not_matter_how_many_windows_were_taken_before_a_candidate_was_offered() -> None:
    """A fit takes its time, and a replay need not: its version was not scored in these windows either way."""
    stories = []
    for place in range(3):
        unscored = [window(day, v1=0.0) for day in (2, 3)]
        book = Book(STAGED)
        book.take(candidate("v1"), *unscored[:place], candidate("v2", 1), *unscored[place:])
        book.take(*(window(day, v1=0.0, v2=-0.01, n=500) for day in (4, 5, 6)))
        stories.append(book.state)
    assert stories[0]["champion"].version == "v2"
    assert stories[0] == stories[1] == stories[2]


def test_a_project_that_gives_up_its_stages_decides_the_challenger_by_its_gates_alone() -> None:
    book = Book(STAGED)
    book.take(candidate("v1"), candidate("v2", 1))
    book.model = AT_ONCE
    book.take(window(2, v1=0.0, v2=-0.01))
    assert (book.at("champion"), book.at("challenger")) == ("v2", "")


def test_too_few_labels_at_first_may_still_be_enough_in_the_extension() -> None:
    book = Book(SHADOW)
    book.take(candidate("v1"), candidate("v2", 1), window(2, v1=0.0, v2=-0.05, n=150), window(3, v1=0.0, v2=-0.05, n=60))
    assert book.at("champion") == "v2"


def test_a_newer_candidate_replaces_one_in_shadow() -> None:
    book = Book(STAGED)
    book.take(candidate("v1"), candidate("v2", 1), candidate("v3", 1.5))
    assert (book.at("challenger"), book.kind("v2"), book.kind("v3")) == ("v3", "retired", "shadow")


def test_behind_a_canary_only_the_newest_candidate_waits_and_then_takes_its_place() -> None:
    book = Book(STAGED)
    book.take(candidate("v1"), candidate("v2", 1), window(2, v1=0.0, v2=-0.01))
    book.take(candidate("v3", 2.2), candidate("v4", 2.5))
    assert (book.at("challenger"), book.kind("v3"), book.kind("v4")) == ("v2", "retired", "registered")
    book.take(window(3, v1=0.0, v2=-0.01))
    assert (book.at("champion"), book.at("challenger"), book.kind("v4")) == ("v2", "v4", "shadow")
    assert Trial.of(book.state["challenger"]).against == "v2"


def test_without_stages_a_candidate_is_promoted_at_once_and_the_old_one_put_on_probation() -> None:
    book = Book(AT_ONCE)
    book.take(candidate("v1"), candidate("v2", 1))
    assert (book.at("champion"), book.at("probation")) == ("v2", "v1")


def test_a_champion_that_turns_bad_is_rolled_back() -> None:
    book = promoted()
    book.take(window(3, v1=0.0, v2=0.1))
    assert (book.at("champion"), book.at("probation")) == ("v1", "")
    assert (book.kind("v2"), book.kind("v1")) == ("rolled_back", "champion")
    assert book.state["champion"].evidence["rolled_back"] == "v2"
    assert book.state["champion"].actor == "registry"


def test_probation_ends_after_the_time_of_the_rollout_and_then_nothing_rolls_back() -> None:
    book = promoted()
    book.take(window(3, v1=0.0, v2=-0.01))
    assert book.at("probation") == ""
    book.take(window(4, v1=0.0, v2=1.0))
    assert book.at("champion") == "v2"


def test_after_a_roll_back_a_challenger_is_judged_against_the_version_now_in_charge() -> None:
    book = Book(a_model(gates=GATES, rollout=[ps.shadow("2d")]))
    book.take(candidate("v1"), candidate("v2", 1), window(2, v1=0.0, v2=-0.05), window(3, v1=0.0, v2=-0.05))
    book.take(candidate("v3", 3))
    book.take(window(4, v1=0.0, v2=0.1, v3=0.05))
    assert book.at("champion") == "v1"
    trial = Trial.of(book.state["challenger"])
    assert (trial.against, trial.n, trial.mean) == ("v1", N, pytest.approx(0.05))
    book.take(window(5, v1=0.0, v3=0.05))
    assert book.kind("v3") == "rejected"


def test_metrics_that_are_not_numbers_reject_a_candidate() -> None:
    book = Book(SHADOW)
    book.take(candidate("v1", log_loss=float("nan")))
    assert (book.at("champion"), book.kind("v1")) == ("", "rejected")


def test_the_newest_snapshot_is_online_and_older_ones_leave_the_topic() -> None:
    book = Book(SHADOW)
    for number in range(1, 5):
        book.take(candidate(f"online-{number}", number, "incremental", recent_log_loss=0.5))
    assert book.at("online") == "online-4"
    assert set(book.replayed()) == {"online", "online-4"}
    assert decide(book.state, SHADOW, candidate("online-2", 2, "incremental", recent_log_loss=0.5)) == []


def test_a_snapshot_whose_loss_jumps_is_not_served_but_the_next_one_may_be() -> None:
    book = Book(SHADOW)
    for number, loss in ((1, 0.4), (2, 0.7)):
        book.take(candidate(f"online-{number}", number, "incremental", recent_log_loss=loss))
    assert (book.at("online"), book.kind("online-2")) == ("online-1", "rejected")
    book.take(candidate("online-3", 3, "incremental", recent_log_loss=0.7))
    assert (book.at("online"), sorted(book.state)) == ("online-3", ["online", "online-3"])


def test_a_command_that_expects_another_champion_is_refused_in_words() -> None:
    book = promoted()
    changes = book.take(command("roll_back", expected="v1"))
    (said,) = [decision for _, decision in changes if decision is not None]
    assert (said.kind, said.actor) == ("rejected", "ada")
    assert said.reason == "the champion is v2, not v1 as the command expects"
    assert book.at("champion") == "v2"


def test_a_person_rolls_back_to_the_champion_before_also_after_probation() -> None:
    book = promoted()
    book.take(window(3, v1=0.0, v2=-0.01), command("roll_back", expected="v2", day=3.5))
    assert (book.at("champion"), book.kind("v2"), book.state["champion"].actor) == ("v1", "rolled_back", "ada")


def test_a_person_approves_a_stage_and_then_the_promotion() -> None:
    book = Book(STAGED)
    book.take(candidate("v1"), candidate("v2", 1))
    book.take(command("approve", expected="v1", version="v2", name="a"))
    assert book.kind("v2") == "canary"
    book.take(command("approve", expected="v1", name="b"))
    assert (book.at("champion"), book.at("probation"), book.at("challenger")) == ("v2", "v1", "")


def test_a_person_promotes_any_known_version_and_no_unknown_one() -> None:
    book = promoted()
    book.take(window(3, v1=0.0, v2=0.1), command("promote", expected="v1", version="v2", day=3.5))
    assert (book.at("champion"), book.at("probation")) == ("v2", "v1")
    book.take(command("promote", expected="v2", version="v9"))
    assert book.at("champion") == "v2"
    with pytest.raises(Refused):
        decide(book.state, SHADOW, command("dance", expected="v2"))


def test_answers_to_commands_are_kept_for_a_month_of_stream_time() -> None:
    book, asked = promoted(), [command("roll_back", expected="v9", day=day) for day in (10.0, 39.0, 40.0, 71.0)]
    for kept, record in zip((1, 2, 2, 1), asked, strict=True):
        book.take(record)
        assert sum(key.startswith("command-") for key in book.replayed()) == kept
    assert decide(book.state, SHADOW, asked[-1]) == [], "one that comes again is known"
    with pytest.raises(Refused, match="answers are kept for 30 days"):
        decide(book.state, SHADOW, asked[1])


def a_story(seed: int) -> list[Candidate | Statistic | Command]:
    """A random history in stream time: versions of random quality, late candidates, commands of every kind."""
    rng = random.Random(seed)
    records: list[Candidate | Statistic | Command] = []
    quality: dict[str, float] = {}
    full = online = 0
    for day in range(1, 30):
        if rng.random() < 0.4:
            full += 1
            quality[f"v{full}"] = rng.choice([-0.05, -0.01, 0.0, 0.01, 0.05])
            records.append(candidate(f"v{full}", day - rng.random()))
        if rng.random() < 0.5:
            online += 1
            records.append(candidate(f"online-{online}", day, "incremental", recent_log_loss=rng.choice([0.3, 0.35, 0.6])))
        if rng.random() < 0.3:
            action, versions = rng.choice(["approve", "promote", "roll_back"]), ["", *quality]
            made = command(action, rng.choice(versions), rng.choice(versions), f"{seed}-{day}", day)
            records.append(made)
        n = rng.choice([0, 50, 300, 1000])
        records.append(window(day, n, **{v: q + rng.gauss(0, 0.005) for v, q in quality.items()}))
        if rng.random() < 0.2:  # what was good turns bad
            quality = {v: q + rng.choice([0.0, 0.08]) for v, q in quality.items()}
    return records


@pytest.mark.parametrize("seed", range(40))
def test_the_compacted_topic_restores_the_state_whatever_has_happened(seed: int) -> None:
    book = Book([STAGED, SHADOW, AT_ONCE][seed % 3])
    for record in a_story(seed):
        book.take(record)
        assert book.replayed() == book.state


@pytest.mark.parametrize("seed", range(40))
def test_the_same_records_give_the_same_bytes_also_after_a_restart_before_each(seed: int) -> None:
    model = [STAGED, SHADOW, AT_ONCE][seed % 3]
    kept, restarted = Book(model), Book(model)
    for record in a_story(seed):
        kept.take(record)
        restarted.state = restarted.replayed()
        restarted.take(record)
    assert kept.topic == restarted.topic


@pytest.mark.parametrize("seed", range(40))
def test_a_crash_in_the_middle_of_any_write_ends_in_the_same_aliases(seed: int) -> None:
    """The first part of the changes of a record is in the log; the process comes back and takes the record again."""
    model = [STAGED, SHADOW, AT_ONCE][seed % 3]
    calm, crashed, rng = Book(model), Book(model), random.Random(seed)
    for record in a_story(seed):
        calm.take(record)
        for _ in range(2):
            changes = decide(crashed.state, model, record)
            crashed.write(changes[: rng.randint(0, len(changes))])
            crashed.state = crashed.replayed()
        crashed.take(record)
        for key in calm.state.keys() | crashed.state.keys():
            assert calm.state.get(key) == crashed.state.get(key), (key, record)


@pytest.mark.parametrize("seed", range(20))
def test_ids_are_unique_per_decision_and_evidence_grows_under_the_same_id(seed: int) -> None:
    book = Book(STAGED)
    for record in a_story(seed):
        book.take(record)
    seen: dict[str, tuple[str, str, datetime]] = {}
    for _, value in book.topic:
        if value is not None:
            said = msgspec.json.decode(value, type=Decision)
            assert seen.setdefault(said.id, (said.kind, said.version, said.at)) == (said.kind, said.version, said.at)


@pytest.mark.parametrize("seed", range(10))
def test_worse_by_construction_is_never_promoted_and_better_always_is(seed: int) -> None:
    """Differences are drawn event by event; margins and stages are as a project would declare them."""
    for gap, champion in ((0.03, "v1"), (-0.03, "v2")):
        rng = random.Random(seed)
        book = Book(STAGED)
        book.take(candidate("v1"), candidate("v2", 1))
        for day in range(2, 9):
            gaps = [rng.gauss(0.01, 0.08) - rng.gauss(0.01 + gap, 0.08) for _ in range(1_500)]
            paired = {"v1": {"v2": Paired(n=len(gaps), sum=sum(gaps), squares=sum(g * g for g in gaps))}}
            book.take(msgspec.structs.replace(window(day), paired=paired))
        assert book.at("champion") == champion


def test_sums_do_not_depend_on_how_outcomes_are_cut_into_windows() -> None:
    one = Trial(subject="v2", against="v1", until=START).grown(window(2, n=600, v1=0.01, v2=0.04))
    two = Trial(subject="v2", against="v1", until=START)
    for day in (1, 2):
        two = two.grown(window(day, n=300, v1=0.01, v2=0.04))
    assert (one.n, one.mean, one.error) == (two.n, pytest.approx(two.mean), pytest.approx(two.error))


def fitted(version: str, day: float, **codes: str) -> Candidate:
    functions = dict(zip(["before"], (Code(name=name, sha256=code) for name, code in codes.items()), strict=True))
    return msgspec.structs.replace(candidate(version, day), functions=functions)


def deployed(model: Model, **codes: str) -> Model:
    made = replace(model)
    made.__dict__["codes"] = codes  # as if it were computed
    return made


def test_nobody_is_rolled_back_to_a_version_whose_function_is_another_now() -> None:
    book = Book(deployed(SHADOW, cut="a"))
    book.take(fitted("v1", 0, cut="a"), candidate("v2", 1), window(2, v1=0.0, v2=-0.05))
    book.model = deployed(SHADOW, cut="b")
    book.take(window(3, v1=0.0, v2=0.3))
    assert (book.at("champion"), book.at("probation"), book.kind("v2")) == ("v2", "", "champion")


def test_a_challenger_whose_function_is_another_now_leaves_the_rollout() -> None:
    book = Book(deployed(SHADOW, cut="a"))
    book.take(candidate("v1"), fitted("v2", 1, cut="a"))
    book.model = deployed(SHADOW, cut="b")
    book.take(command("approve", "v1", day=1.5))
    assert (book.at("champion"), book.at("challenger")) == ("v1", "v2")
    assert "which is b now" in next(d.reason for key, d in book.state.items() if key.startswith("command-"))
    book.take(window(2, v1=0.0, v2=-0.05))
    assert (book.at("champion"), book.at("challenger"), book.kind("v2")) == ("v1", "", "rejected")
    assert book.state["v2"].reason == "fitted with the function cut before the model, of code a, which is b now"


@pytest.mark.parametrize("when", ["declared", "tried"])
def test_a_gate_of_coverage_is_refused_where_answers_are_no_quantile(when: str) -> None:
    """It would pass whatever comes."""
    with pytest.raises(ps.DefinitionError, match=r"covers\(\) is of answers that are a quantile"):
        a_model(gates=[ps.covers(0.1)]) if when == "declared" else STAGED.under(ps.Policy(gates=[ps.covers(0.1)]))
