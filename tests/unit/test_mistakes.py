"""Every mistake in a project file is told at once, with its line and what to write instead."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import penstock as ps
from penstock.errors import DefinitionError
from penstock.project import load

GOOD = """\
import penstock as ps

@ps.event("payments")
class Payment:
    payment_id: ps.Id[str]
    card_id: ps.Key[str]
    country: str
    amount: float
    paid_at: ps.EventTime

@ps.event("chargebacks")
class Chargeback:
    payment_id: ps.Key[str]
    fraudulent: bool
    reported_at: ps.EventTime

@ps.features(by=Payment.card_id)
class Card:
    spend_24h = ps.sum(Payment.amount, over="24h")
    usual = ps.mean(Payment.amount, over="30d")

    @ps.derived
    def surge(self, now: Payment) -> float:
        return now.amount / (self.usual + 1.0)

@ps.model(
    scores=Payment,
    features=[Payment.amount, Card],
    label=ps.label(Chargeback.fraudulent, within="7d", otherwise=False),
    monitors=[ps.drift(Card), ps.skill(floor=0.05)],
    retrain=ps.every("28d"),
    rollout=[ps.shadow("7d"), ps.canary(0.25, "3d")],
)
def fraud() -> ps.Learner:
    return ps.Learner()

project = ps.Project("cards", [fraud])
"""

WRONG = [
    ("country: str", "country: list[str]", "Payment.country: list is not a column type"),
    ("amount: float", "amount: float\n    at: ps.EventTime", "Payment has 2 time columns; mark exactly one as ps.EventTime"),
    ("card_id: ps.Key[str]", "card_id: ps.Key[float]", "Payment.card_id is an id or key, and float"),
    ("payment_id: ps.Id[str]", "payment_id: str", "model fraud: Payment is scored and needs an id"),
    ("payment_id: ps.Key[str]", "payment_id: str", "Chargeback has 0 key columns; mark exactly one as ps.Key[str]"),
    ('amount, over="24h"', 'amont, over="24h"', "Payment has no column amont; did you mean amount?"),
    ('amount, over="24h"', 'country, over="24h"', "sum(Payment.country): the column holds text, not a number"),
    ('"24h"', '"24 hours"', '"24 hours" is not a length of time; write a whole number and a unit'),
    ('"24h"', "24", '"24" is not a length of time; write a whole number and a unit'),
    ('"30d"', '"59s"', 'a window of "59s" is not between a minute and five years'),
    ('"30d"', '"1831d"', 'a window of "1831d" is not between a minute and five years'),
    ('"30d"', '"30d", where=lambda p: p.amont > 1', "Payment has no amont; did you mean amount?"),
    ('"30d"', '"30d", where=5', "where=5 is no function; write where=lambda payment: payment.amount > 100"),
    ('ps.sum(Payment.amount, over="24h")', "ps.ratio(5, ps.count(Payment))", "ratio(5) divides two aggregates that are numbers"),
    ('"30d"', '"30d", per=ps.among(Chargeback.payment_id, "x")', "per=Chargeback.payment_id is no column of Payment"),
    ('"30d"', '"30d", per=Payment.country', "names no categories; write per=ps.among(Payment.kind"),
    ('"30d"', '"30d", per=ps.among(Payment.country)', "needs 1 to 64 different categories"),
    ("by=Payment.card_id", 'by=Payment.card_id, ttl="1d"', 'ttl="1d" is shorter than its longest window, 30d'),
    (
        "ps.mean(Payment.amount",
        "ps.mean(Chargeback.fraudulent",
        "`by` names no column of it; add it: by=[..., Chargeback.<column>]",
    ),
    ("self.usual", "self.usal", "Card.surge: self has no usal; did you mean usual?"),
    (
        "now: Payment",
        "now",
        "Card.surge is given a row, and an event if it names one; write it as (self) or (self, now: Payment)",
    ),
    ('"24h"', '""', '"" is not a length of time'),
    ("[fraud])", "[fraud.build])", "is not a model; decorate the function with @ps.model(...)"),
    ("now.amount", "now.amuont", "Card.surge: now has no amuont; did you mean amount?"),
    ("[Payment.amount, Card]", "[Payment.country, Card]", "Payment.country holds text, and an input is a number"),
    ("[Payment.amount, Card]", "[Chargeback.fraudulent, Card]", "Chargeback.fraudulent is no column of Payment"),
    ("by=Payment.card_id", "by=Chargeback.payment_id", "model fraud: no column of Payment names the entity of Card"),
    ("[Payment.amount, Card]", "[Card.usual, Card]", "input Card.usual is listed twice; list it once"),
    ("Chargeback.fraudulent, within", "Chargeback.fraud, within", "no column fraud; did you mean fraudulent?"),
    (
        "Chargeback.fraudulent, within",
        "Payment.amount, within",
        "label(Payment.amount): otherwise=False is no number; write otherwise=0.0",
    ),
    (
        "Chargeback.fraudulent, within",
        "Payment.paid_at, within",
        "label(Payment.paid_at): the column holds datetime; a label is a bool, int or float column, or a str column with",
    ),
    ("Chargeback.fraudulent, within", "Payment.country, within", "a str column with 0 classes; name 2 to 50 different ones"),
    (
        'Chargeback.fraudulent, within="7d", otherwise=False',
        'Payment.country, within="7d", otherwise="FR", classes=("DE", "US")',
        "otherwise='FR' is none of the classes; write otherwise='DE'",
    ),
    ('within="7d", otherwise', 'within="7d", classes=("a", "b"), otherwise', "classes= of a column that holds bool"),
    (
        'within="7d", otherwise',
        'within="7d", quantile=0.9, otherwise',
        "quantile=0.9; it lies between 0 and 1, and is of a column",
    ),
    (
        'Chargeback.fraudulent, within="7d", otherwise=False)',
        'Payment.amount, within="7d"), value=ps.value(true_positive=1)',
        "model fraud: value= is of answers yes and no, and the label is not",
    ),
    ("ps.drift(Card)", "ps.drift(Payment.country)", "drift watches Payment.country, which is no input of the model"),
    (
        'Chargeback.fraudulent, within="7d", otherwise=False),\n    monitors=[ps.drift(Card)',
        'Payment.amount, within="7d"),\n    monitors=[ps.drift("label")',
        'drift("label") is of labels yes and no, and this one is a number; watch "score" instead',
    ),
    ("ps.drift(Card)", "ps.drift(material=2)", "material lies between 0 and 1"),
    ("floor=0.05", "floor=5", "the floor lies between -1 and 1"),
    ("canary(0.25", "canary(25", "canary(25): not a share; write a number between 0 and 1"),
    ('[ps.shadow("7d"), ps.canary(0.25, "3d")]', '[ps.canary(0.25, "3d"), ps.shadow("7d")]', "rollout shares fall: [0.25, 0.0]"),
    (
        "    rollout=",
        "    sources={'bank': 1},\n    rollout=",
        "a model has no sources=; it belongs to the label: label=ps.label(..., sources=...)",
    ),
    ("    rollout=", "    rolout=", "a model has no rolout=; did you mean rollout?"),
    ('"cards", [fraud]', '"Cards", [fraud]', "'Cards' is not a project name"),
    ('"cards", [fraud]', '"cards", [fraud, fraud]', "two models are called fraud; rename one"),
    ('"chargebacks"', '"payments"', "two events share the topic payments; give each its own"),
    ('"chargebacks"', '"cards.labels"', "topic cards.labels begins with the project's name, which is reserved"),
    ("project =", "print(nobody)\nproject =", "NameError: name 'nobody' is not defined"),
]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cards.py"


def told(file: Path, text: str) -> list[str]:
    file.write_text(text)
    with pytest.raises(DefinitionError) as raised:
        load(file.name)
    return str(raised.value).split("\n")


@pytest.mark.parametrize(("good", "wrong", "said"), WRONG, ids=[said for _, _, said in WRONG])
def test_a_mistake_is_told_in_words_and_with_its_line(file: Path, good: str, wrong: str, said: str) -> None:
    assert good in GOOD
    text = GOOD.replace(good, wrong, 1)
    lines = told(file, text)
    assert any(line.startswith("cards.py, line ") and said in line for line in lines), lines
    assert not [line for line in lines if "Error: " in line and "NameError: " not in said], "a mistake brought down another"


def test_nothing_is_told_of_a_file_without_mistakes(file: Path) -> None:
    file.write_text(GOOD)
    assert load(file.name).name == "cards"


def test_all_mistakes_of_a_file_are_told_at_once_in_the_order_of_lines(file: Path) -> None:
    text = GOOD
    for good, wrong in (
        ('amount, over="24h"', 'amont, over="a day"'),
        ("Payment.amount, over=", "Payment.country, over="),
        ("self.usual", "self.usal"),
        ("Chargeback.fraudulent, within", "Chargeback.fraud, within"),
        ("canary(0.25", "canary(25"),
        ("project = ", "project = nothing or "),
    ):
        text = text.replace(good, wrong, 1)
    lines = told(file, text)
    where = [text.split("\n").index(line) + 1 for line in text.split("\n") if any(
        word in line for word in ("amont", "Payment.country", "usal", "fraud, ", "canary(25", "nothing"))]  # fmt: skip
    assert [int(line.split(":")[0].rpartition(" ")[2]) for line in lines] == sorted([where[0], *where])  # two in the first


def test_what_follows_from_an_input_that_is_not_there_is_not_told_beside_it(file: Path) -> None:
    shaped = '@ps.function(takes={"amount": "FP64[*]"}, gives={"X": "FP32[*, 1]"})\ndef shaped(amount): ...\n\n@ps.model'
    more = "    canaries=[ps.known({Payment.amount: 3.0}, above=0.5)],\n    before=shaped,\n    retrain="
    text = GOOD.replace("@ps.model", shaped).replace("    retrain=", more).replace("ps.drift(Card)", "ps.drift(Payment.amount)")
    file.write_text(text)
    load(file.name)
    (line,) = told(file, text.replace("[Payment.amount, Card]", "[Payment.amont, Card]"))
    assert "Payment has no column amont; did you mean amount?" in line
    for name in ("drift(Payment.amount)", "known({Payment.amount:"):
        lines = told(file, text.replace(name, name.replace("amount", "amont")))
        assert all("; did you mean" in line and line.endswith("amount?") for line in lines), lines


def test_a_mistake_in_a_module_beside_the_project_is_told_with_its_own_file_and_may_be_corrected(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events, rest = GOOD.split("@ps.features", 1)
    monkeypatch.syspath_prepend(str(file.parent))
    (file.parent / "their_events.py").write_text(events.replace("amount: float", "amount: set[int]"))
    text = "import penstock as ps\nfrom their_events import Chargeback, Payment\n@ps.features" + rest
    assert told(file, text)[0].startswith("their_events.py, line 3: Payment.amount: set is not a column type")
    (file.parent / "their_events.py").write_text(events)
    assert load(file.name).name == "cards"
    del sys.modules["their_events"]


def test_outside_a_project_file_a_mistake_raises_at_once() -> None:
    with pytest.raises(DefinitionError, match='"soon" is not a length of time'):
        ps.every("soon")
    with pytest.raises(DefinitionError, match=r"Thing has 0 time columns.*\n.*Thing has 0 key columns"):

        @ps.event("things")
        class Thing:
            size: float


def test_an_event_answers_like_any_class_for_what_it_has_not() -> None:
    @ps.event("things")
    class Thing:
        name: ps.Key[str]
        at: ps.EventTime

    assert not hasattr(Thing, "nme")
    assert not hasattr(Thing, "__wrapped__")
    with pytest.raises(AttributeError, match="Thing has no column nme"):
        _ = Thing.nme  # type: ignore[attr-defined]
