"""Access: what an operator says of the doors, and the door that comes of it: none, one that asks, or a refusal to start."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import SettingError

if TYPE_CHECKING:
    from ..settings import Settings

__all__ = ["Access", "loopback"]


@dataclass(frozen=True)
class Access:
    """Every field but `redis` is a setting `http_<name>`, where its sentence is."""

    keys: str = ""
    pepper: str = ""
    jwks: str = ""
    issuer: str = ""
    audience: str = ""
    algorithms: str = "RS256"
    rate: str = ""
    distinct: str = ""
    open: bool = False
    redis: str = ""
    """Where rates are counted; empty: in this process."""

    @classmethod
    def of(cls, settings: Settings) -> Access:
        """As the settings have it."""
        return cls(
            keys=settings.http_keys,
            pepper=settings.http_pepper.get_secret_value(),
            jwks=settings.http_jwks,
            issuer=settings.http_issuer,
            audience=settings.http_audience,
            algorithms=settings.http_algorithms,
            rate=settings.http_rate,
            distinct=settings.http_distinct,
            open=settings.http_open,
            redis=settings.redis_url.get_secret_value(),
        )

    @property
    def asked(self) -> bool:
        """Whether there is anything that lets in."""
        return bool(self.keys or self.jwks)

    def check(self, host: str) -> None:
        """SettingError where others than this machine could ask and nothing says who may."""
        if self.asked or self.open or loopback(host):
            return
        raise SettingError(
            f"{host} is open to the network, and nothing says who may ask",
            "make a key:  penstock keys create NAME --scope predict   then:  export PENSTOCK_HTTP_KEYS=.penstock/keys.json   "
            "(or PENSTOCK_HTTP_JWKS for tokens; or PENSTOCK_HTTP_OPEN=true where something in front keeps others out)",
        )

    def door(self, app: Any, host: str, labels: Collection[str] = ()) -> Any:
        """The application behind its door: one that asks where keys or tokens are set, else on loopback one that only keeps out
        what pages from elsewhere have a browser ask. SettingError where others than this machine could ask without either, and
        where what was said cannot be."""
        self.check(host)
        if not self.asked:
            from .origin import SameOrigin

            return app if self.open else SameOrigin(app)
        from .breadth import Breadth
        from .door import Door
        from .keys import Keys, pepper_of
        from .rates import Rates

        keys = tokens = None
        if self.keys:
            path = Path(self.keys)
            keys = Keys(path, pepper_of(path, self.pepper))
            if not keys.all() and not self.jwks:
                raise SettingError(f"there are no keys in {path}", "make one:  penstock keys create NAME --scope predict")
        if self.jwks:
            from .tokens import Tokens

            named = tuple(word for word in self.algorithms.replace(",", " ").split())
            tokens = Tokens(self.jwks, self.issuer, self.audience, named)
        breadth = Breadth(self.distinct) if self.distinct else None
        return Door(app, keys, tokens, Rates(self.rate, self.redis), labels, breadth)


def loopback(host: str) -> bool:
    """Whether only this machine can reach an address.

    >>> loopback("127.0.0.1"), loopback("::1"), loopback("localhost"), loopback("0.0.0.0"), loopback("example.org")
    (True, True, True, False, False)
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
