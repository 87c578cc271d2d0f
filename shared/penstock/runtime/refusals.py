"""Refusals: whatever went wrong with a request, as a status and one sentence. One map for all that is asked over HTTP or gRPC."""

from __future__ import annotations

import structlog

from ..errors import PenstockError, Refused
from ..log import LogError, TooLarge
from ..store import StoreError

__all__ = ["SOON", "Failed", "refusal"]

SOON = 1
"""Seconds after which a server that is busy may be asked again."""
_OUR_FAULT = "the server failed on this request; its log says why"


class Failed(PenstockError):
    """An answer other than 200. `after`: seconds until it may be asked again; `allow`: the methods that are taken."""

    def __init__(self, status: int, what: str, after: int | None = None, allow: str = "") -> None:
        super().__init__(what)
        self.status, self.after, self.allow = status, after, allow

    @property
    def headers(self) -> dict[str, str]:
        """What goes with the status."""
        after = {} if self.after is None else {"retry-after": str(self.after)}
        return {**after, **({"allow": self.allow} if self.allow else {})}


def refusal(error: BaseException) -> Failed:
    """What went wrong, to be told. A fault of ours is logged, and says nothing of itself."""
    match error:
        case Failed():
            return error
        case Refused():
            return Failed(413 if error.reason == "too_large" else 400, str(error))
        case TooLarge():
            return Failed(413, str(error))
        case LogError():
            return Failed(503, f"Kafka does not answer: {error}", SOON)
        case StoreError():
            return Failed(503, f"the online store does not answer: {error}", SOON)
    structlog.get_logger().error("request failed", exc_info=error)
    return Failed(500, _OUR_FAULT)
