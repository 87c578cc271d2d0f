"""What a person gives wrongly to the functions of `ps` is said in words, with what to write instead."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from tests.services.chargebacks import Card, Payment, fraud

import penstock as ps

anything: Any = ps  # what checkers would refuse
NAIVE = Payment("p1", "c1", 1.0, None, datetime(2026, 1, 1))


@pytest.mark.parametrize(
    ("call", "what", "fix"),
    [
        (lambda: anything.training_set("fraud", "tables"), "'fraud' is no model", "ps.training_set(fraud, tables)"),
        (lambda: ps.replay(Card, [NAIVE]), "Payment.paid_at is datetime", "tzinfo=UTC"),
        (lambda: anything.replay(Card, NAIVE), "is no list of events", "ps.replay(Card, [event, event])"),
        (lambda: anything.profile([1]), "takes a pandas DataFrame, not a list", "penstock profile --file data.csv"),
        (lambda: anything.Project("cards", fraud), "fraud stands alone", "ps.Project('cards', [fraud])"),
    ],
)
def test_what_is_given_wrongly_is_said_with_what_to_write(call: Callable[[], object], what: str, fix: str) -> None:
    with pytest.raises(ps.PenstockError) as raised:
        call()
    assert what in str(raised.value) and fix in raised.value.fix
