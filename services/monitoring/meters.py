"""What the telling of alarms counts for Prometheus. Made when first used: a process has each name once."""

from __future__ import annotations

from functools import cache
from typing import Any

from prometheus_client import Counter, Gauge

__all__ = ["RouteMeters", "lasting"]


@cache
def _families() -> dict[str, Any]:
    route = ["route"]
    return {
        "sent": Counter("penstock_alerts_sent_total", "Messages about alarms that a route has taken.", route),
        "failed": Counter("penstock_alert_attempts_failed_total", "Attempts at sending that failed; most are repeated.", route),
        "given_up": Counter("penstock_alerts_undelivered_total", "Messages about alarms that were given up.", route),
        "waiting": Gauge("penstock_alerts_waiting", "Notices that a route has not taken yet.", route),
    }


@cache
def lasting() -> Gauge:
    """Alarms that last, by subject and cause."""
    return Gauge("penstock_alarms_lasting", "Alarms that are raised and not cleared.", ["subject", "cause"])


class RouteMeters:
    """Those of one route."""

    def __init__(self, route: str) -> None:
        self.sent, self.failed, self.given_up, self.waiting = (family.labels(route) for family in _families().values())
