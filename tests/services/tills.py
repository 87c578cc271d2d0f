"""What a process does that reads tills while another writes them; light, because a process of its own imports it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import penstock as ps
from penstock.log import partition_of

START = datetime(2024, 1, 1, tzinfo=UTC)


@ps.event("sales")
class Sale:
    shop: ps.Key[str]
    amount: float
    at: ps.EventTime


@ps.features(by=Sale.shop)
class Till:
    sales_11h = ps.count(Sale, over="11h")
    taken_11h = ps.sum(Sale.amount, over="11h")
    newest = ps.last(Sale.amount)


TILLS = ps.Project("tills", rows={Sale: [Till]})
MOST, STEP = 1_900, 1 / 3
"""Writes, and minutes between two: all in the window; a tile closes with every fifteenth."""
ENOUGH = 10
"""States that a reader wants to see."""


def torn(url: str, tills: int) -> list[str]:
    """Read all tills until enough states were seen; every answer that never was one."""
    wrong, seen = list[str](), set[float]()
    with ps.FeatureClient(url, TILLS) as client:
        shops = [f"till {n}" for n in range(tills)]
        while len(seen) < ENOUGH:
            found = client.read(Till, shops, START + timedelta(minutes=MOST * STEP))
            by_shard: dict[int, set[float]] = {}
            for shop, (sales, taken, newest) in zip(shops, found.values.tolist(), strict=True):
                if not (sales == newest + 1 and taken == newest * (newest + 1) / 2):
                    wrong.append(f"{shop}: {sales} {taken} {newest}")
                by_shard.setdefault(partition_of(shop.encode(), 4), set()).add(newest)
            wrong += [f"shard {shard} at once in {states}" for shard, states in by_shard.items() if len(states) > 1]
            seen |= {newest for states in by_shard.values() for newest in states}
    return wrong
