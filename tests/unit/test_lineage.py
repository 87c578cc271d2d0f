"""Lineage: from topics through columns, features and derived features to models, and back."""

from __future__ import annotations

import pytest

import penstock as ps
from penstock.examples.flights import project as flights
from penstock.feature import view_of
from penstock.lineage import Edge, Lineage, reads
from penstock.project import Project


@ps.event("payments")
class Payment:
    payment_id: ps.Id[str]
    card_id: ps.Key[str]
    amount: float
    fee: float
    place: str
    paid_at: ps.EventTime


@ps.event("refunds")
class Refund:
    card_id: ps.Key[str]
    amount: float
    paid_at: ps.EventTime


def ratio(row: Card, now: Payment) -> float:
    return now.amount / row.usual


@ps.features(by=[Payment.card_id, Refund.card_id])
class Card:
    usual = ps.mean(Payment.amount, over="30d")
    refunds = ps.count(Refund, over="1h")

    @ps.derived
    def surge(self, now: Payment) -> float:
        return now.amount / self.usual

    @ps.derived
    def handed(self, now: Payment) -> float:
        return ratio(self, now)

    @ps.derived
    def partly(self, now: Payment) -> float:
        return max(self.surge, now.fee)


LINEAGE = Lineage(Project("cards", rows={Payment: [Card]}))


def test_a_feature_comes_from_its_column_and_from_what_names_the_entity() -> None:
    assert set(LINEAGE.above("Card.usual")) == {"Payment.amount", "Payment.card_id", "topic:payments"}
    assert Edge("Payment.card_id", "Card.usual", "key") in LINEAGE.edges


def test_a_count_comes_from_the_time_of_its_event() -> None:
    assert Edge("Refund.paid_at", "Card.refunds", "value") in LINEAGE.edges
    assert "Refund.amount" not in LINEAGE.above("Card.refunds")


def test_a_derived_feature_comes_from_what_its_body_names() -> None:
    assert reads(Card.surge, ["usual", "refunds"], view_of(Card).by) == ["Payment.amount", "Card.usual"]
    assert reads(Card.partly, ["usual", "refunds", "surge"], view_of(Card).by) == ["Card.surge", "Payment.fee"]


def test_a_body_that_hands_its_row_on_may_read_all_of_it() -> None:
    names = reads(Card.handed, ["usual", "refunds"], view_of(Card).by)
    assert set(names) == {"Card.usual", "Card.refunds", "Payment.amount", "Payment.fee"}


def test_a_column_is_followed_down_to_the_models() -> None:
    lineage = Lineage(flights)
    assert lineage.below("Weather.temp") == ["Origin.temp", "model:late"]
    assert set(lineage.below("Scheduled.distance")) == {"model:late"}
    assert "Origin.waiting" in lineage.below("topic:departed")
    assert lineage.readers(lineage.views[0]) == ["late"]
    assert Edge("Arrived.late", "model:late", "label") in lineage.edges


def test_no_way_leads_back_and_every_edge_joins_two_nodes() -> None:
    for lineage in (LINEAGE, Lineage(flights)):
        order = list(lineage.nodes)
        for edge in lineage.edges:
            assert order.index(edge.start) < order.index(edge.end), edge


@pytest.mark.parametrize("name", ["topic:payments", "Card.usual"])
def test_nothing_is_above_itself(name: str) -> None:
    assert name not in LINEAGE.above(name)
    assert name not in LINEAGE.below(name)


def test_a_person_means_a_topic_a_model_or_all_of_a_view() -> None:
    lineage = Lineage(flights)
    assert lineage.named("weather") == ["topic:weather"]
    assert lineage.named("late") == ["model:late"]
    assert lineage.named("Path") == ["Path.delay_7d", "Path.late_7d"]
    assert lineage.named("nobody") == []
