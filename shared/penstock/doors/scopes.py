"""Scopes: which one a request needs, read off its method, path and query. Pure; the one table of who may do what.

predict   /predict, /v2 (inference and metadata), reads of features
publish   POST /events/{event}                                       label     the same for an event that answers another,
                                                                               /flags, and /reviews: the page, too
admin     ?variant=, the repository, /metrics, the dashboard, and whatever this table does not know
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, NamedTuple
from urllib.parse import parse_qsl

__all__ = ["ADMIN", "ANY", "LABEL", "OPEN", "PREDICT", "PUBLISH", "RATE", "SCOPES", "Principal", "needed"]

PREDICT, PUBLISH, LABEL, ADMIN = "predict", "publish", "label", "admin"
SCOPES: Final = (PREDICT, PUBLISH, LABEL, ADMIN)
OPEN: Final = "open"
"""Asked without a key: supervisors and load balancers have none."""
ANY: Final = "any"
"""Any key will do."""
RATE: Final = r"[1-9]\d{0,8}/(second|minute|hour|day)"
"""How a rate is written."""

_EXACTLY: Final = {"/healthz": OPEN, "/readyz": OPEN, "/v2/health/live": OPEN, "/v2/health/ready": OPEN, "/openapi.json": ANY}
_BELOW: Final = (
    ("/v2/repository", ADMIN),
    ("/v2", PREDICT),
    ("/predict", PREDICT),
    ("/features", PREDICT),
    ("/generation", PREDICT),
    ("/flags", LABEL),
    ("/reviews", LABEL),
    ("/docs", ANY),
    ("/static", ANY),
)


class Principal(NamedTuple):
    """Who asks: the name of a key (`key:<id>`) or the subject of a token (`token:<sub>`), and what they may."""

    name: str
    scopes: frozenset[str]
    rate: str = ""
    """Their own, such as 600/minute; empty: the server's."""

    def may(self, scope: str) -> bool:
        """Whether a scope, or ANY, is theirs. `admin` is not the sum of the others."""
        return scope == ANY or scope in self.scopes


def needed(method: str, path: str, query: bytes = b"", labels: Collection[str] = ()) -> str:
    """The scope that a request needs; `labels` are the events that answer others. `path` is decoded, as the application sees it.

    >>> needed("POST", "/v2/models/late/infer"), needed("POST", "/v2/repository/models/late/load"), needed("GET", "/readyz")
    ('predict', 'admin', 'open')
    >>> needed("POST", "/events/arrived", labels={"arrived"}), needed("POST", "/events/scheduled", labels={"arrived"})
    ('label', 'publish')
    >>> needed("POST", "/predict/late"), needed("POST", "/predict/late", b"v%61riant=v2"), needed("GET", "/metrics")
    ('predict', 'admin', 'admin')
    >>> needed("POST", "/flags/late"), needed("GET", "/reviews"), needed("GET", "/static/style.css")
    ('label', 'label', 'any')
    """
    if (found := _EXACTLY.get(path)) is not None:
        return found
    for below, scope in _BELOW:
        if path == below or path.startswith(f"{below}/"):
            if query and scope == PREDICT and any(name == "variant" for name, _ in parse_qsl(query.decode("latin-1"), True)):
                return ADMIN
            return scope
    if method == "POST" and path.startswith("/events/"):
        return LABEL if path.removeprefix("/events/").partition("/")[0] in labels else PUBLISH
    return ADMIN
