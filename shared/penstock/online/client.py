"""Clients of the feature store: from Redis in your own process, or over HTTP; for threads and for asyncio.

    with ps.FeatureClient("redis://127.0.0.1:6379/0", project="cards.py") as client:    # or "http://127.0.0.1:8802"
        found = client.read(Card, ["card-1", "card-2"])
        found.values, found.to_pandas(), found.status["Card"]

From Redis a read is one round trip, and the windows are put together by the kernel that the stream uses. Over HTTP long answers
come as Arrow, and the client needs neither the project nor a way to Redis.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit

from ..aggregate import Feature
from ..errors import DefinitionError, PenstockError, Refused, Unreachable
from ..feature import Derived, view_of
from ..model import Model
from ..project import Project
from ..store import StoreError

if TYPE_CHECKING:  # `import penstock` stays light
    from .reader import BlockingFeatures, OnlineFeatures
    from .readings import Readings

__all__ = ["AsyncFeatureClient", "FeatureClient"]

TIMEOUT: Final = 5.0
"""Seconds: far above the largest read (a second), and above what a feature store waits before it says why (`reader.PATIENCE`)."""

_FEW: Final = 32
"""Keys up to which an answer is sooner read as JSON than as Arrow, which costs 0.2 ms however short it is."""

_KEPT: Final = 16
"""Connections over HTTP that are kept for threads; more are made when more ask at once, and closed after."""


class FeatureClient:
    """Reads features. Keep it: it holds connections and compiled lookups. Safe to share between threads.

    `url` is a Redis (`redis://`, `rediss://`, `unix://`; default REDIS_URL) or the feature store's own address (`http://`).
    From Redis it needs the `project`: one, a module or a file (default PENSTOCK_PROJECT). When nothing is heard for `timeout`
    seconds, a read raises Unreachable; it is not repeated. The first read from Redis loads machine code (on a machine that never
    ran Penstock it compiles some, for 10 to 20 s, whatever the timeout): read once before you serve.

    `key` is an API key or a token for a feature store that asks for one (default PENSTOCK_KEY).

    Raises DefinitionError when `url` is no such address.
    """

    def __init__(self, url: str = "", project: Project | str | None = None, *, timeout: float = TIMEOUT, key: str = "") -> None:
        url = url or _redis_url()
        with _spelling(url):
            self._source: _Http | _Redis = _Http(url, timeout, key) if _is_http(url) else _Redis(url, _project(project), timeout)

    def read(self, what: Any, keys: Any, at: Any = None) -> Readings:
        """One row for each key, in order, whether anything is known of it or not.

        what    a view (class or name), a feature (`Card.spend_24h`, or so as text), a model or its name, or a list of these
        keys    a list of keys, where all is by one key (a compound key is a tuple of its parts); else a list of
                `{column: value}`, a mapping of lists by column name, or a frame with these columns
        at      the moment at which windows end: a datetime with a time zone, or one for each key (also datetime64); default now

        A key is taken if it means the same in the type of its column: 7 and "7" name one entity, whichever type it has; 7.5 of an
        int, True or "07" are refused. None (in a frame also NaN) names nobody: its row is there, and `missing`.

        Raises Refused where there is no such view or a key is none, Unreachable where nobody answers in time, DefinitionError
        where the store holds other definitions of the views than the project.
        """
        return self._source.read(what, keys, at)

    def close(self) -> None:
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class AsyncFeatureClient:
    """The same for asyncio: `async with ps.AsyncFeatureClient(...) as client: found = await client.read(...)`."""

    def __init__(self, url: str = "", project: Project | str | None = None, *, timeout: float = TIMEOUT, key: str = "") -> None:
        url = url or _redis_url()
        with _spelling(url):
            self._source: _AsyncHttp | _AsyncRedis = (
                _AsyncHttp(url, timeout, key) if _is_http(url) else _AsyncRedis(url, _project(project), timeout)
            )

    async def read(self, what: Any, keys: Any, at: Any = None) -> Readings:
        """See `FeatureClient.read`."""
        return await self._source.read(what, keys, at)

    async def close(self) -> None:
        await self._source.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()


class _Redis:
    """Reads states and computes here. How many partitions the project runs with, the feature store wrote beside its state."""

    def __init__(self, url: str, project: Project, timeout: float) -> None:
        from ..store.redis import RedisReader

        self._project, self._reader = project, RedisReader(url, project.name, timeout)
        self._features: BlockingFeatures | None = None

    def read(self, what: Any, keys: Any, at: Any) -> Readings:
        try:
            if self._features is None:
                self._features = self._opened()
            return self._features.read(what, keys, at)
        except StoreError as error:
            raise _told(error) from None

    def _opened(self) -> BlockingFeatures:
        from ..topics import Topics
        from .reader import BlockingFeatures, partitions_of

        partitions = partitions_of(self._reader.position(Topics(self._project).shard(0)))
        return BlockingFeatures(Topics(self._project, partitions), self._reader.fetch)

    def close(self) -> None:
        self._reader.close()


class _AsyncRedis:
    def __init__(self, url: str, project: Project, timeout: float) -> None:
        from ..store.redis import RedisStore

        self._project, self._store, self._timeout = project, RedisStore(url, project.name, timeout), timeout
        self._online: OnlineFeatures | None = None

    async def read(self, what: Any, keys: Any, at: Any) -> Readings:
        from ..topics import Topics
        from .reader import OnlineFeatures, partitions_of

        try:
            if self._online is None:
                partitions = partitions_of(await self._store.position(Topics(self._project).shard(0)))
                self._online = OnlineFeatures(Topics(self._project, partitions), self._store, self._timeout)
            return await self._online.read(what, keys, at)
        except StoreError as error:
            raise _told(error) from None

    async def close(self) -> None:
        await self._store.close()


class _Http:
    """Asks a feature store. By urllib3, which takes half the time of httpx."""

    def __init__(self, url: str, timeout: float, key: str) -> None:
        import urllib3

        self._url, self._path = url, (urllib3.util.parse_url(url).path or "").rstrip("/") + "/features"
        self._pool = urllib3.connection_from_url(url, timeout=timeout, retries=False, maxsize=_KEPT)
        self._shown = _shown(key)
        self._failed = urllib3.exceptions.HTTPError

    def read(self, what: Any, keys: Any, at: Any) -> Readings:
        body, headers = _query(what, keys, at)
        try:
            answer = self._pool.urlopen("POST", self._path, body, {**headers, **self._shown})
        except self._failed as error:
            raise _away(self._url, error) from None
        return _readings(self._url, answer.status, answer.headers.get("content-type", ""), answer.data)

    def close(self) -> None:
        self._pool.close()


class _AsyncHttp:
    def __init__(self, url: str, timeout: float, key: str) -> None:
        import httpx

        self._url, self._client = url, httpx.AsyncClient(base_url=url, timeout=timeout, headers=_shown(key))

    async def read(self, what: Any, keys: Any, at: Any) -> Readings:
        import httpx

        body, headers = _query(what, keys, at)
        try:
            answer = await self._client.post("/features", content=body, headers=headers)
        except httpx.TransportError as error:
            raise _away(self._url, error) from None
        return _readings(self._url, answer.status_code, answer.headers.get("content-type", ""), answer.content)

    async def close(self) -> None:
        await self._client.aclose()


def _shown(key: str) -> dict[str, str]:
    """The header that shows a key; none where there is none."""
    return {"authorization": f"Bearer {found}"} if (found := key or os.environ.get("PENSTOCK_KEY", "")) else {}


_SCHEMES: Final = ("redis", "rediss", "unix", "http", "https")


def _is_http(url: str) -> bool:
    return url.partition(":")[0] in ("http", "https")


@contextmanager
def _spelling(url: str) -> Iterator[None]:
    """Say what is wrong with an address, without its password."""
    fix = 'write one such as "redis://127.0.0.1:6379/0" or "http://127.0.0.1:8802"'
    scheme, _, rest = url.partition("://")
    if not rest or scheme not in _SCHEMES:
        raise DefinitionError(f"{url.rpartition('@')[2][:80]!r} is no address to read features from", fix)
    try:
        _ = urlsplit(url).port
        yield
    except ValueError as error:
        raise DefinitionError(f"no {scheme}:// address to read features from: {error}", fix) from None


def _told(error: StoreError) -> PenstockError:
    """What the store says, as who reads should hear it."""
    from .lookup import OtherVersion

    if isinstance(error, OtherVersion):
        fix = "give the client the project that the feature store runs; if it is to run this one, let it take it over first"
        return DefinitionError(str(error), fix)
    return Unreachable(str(error), "start it, correct the address, or wait longer (timeout=): penstock doctor")


def _redis_url() -> str:
    from ..settings import load

    found = load().redis_url.get_secret_value()
    if not found:
        raise DefinitionError(
            "no address to read features from", 'give one, such as "redis://127.0.0.1:6379/0", or set REDIS_URL'
        )
    return found


def _project(project: Project | str | None) -> Project:
    from ..project import load
    from ..settings import load as load_settings

    return project if isinstance(project, Project) else load(project or load_settings().project)


def _query(what: Any, keys: Any, at: Any) -> tuple[bytes, dict[str, str]]:
    """A query in JSON, and the headers that ask for the form in which its answer is read soonest."""
    import msgspec

    from ..event import from_micros
    from .keys import listed
    from .query import ARROW, JSON, Query
    from .reader import moments

    names = [_spelled(item) for item in (what if isinstance(what, list | tuple) else [what])]
    if not isinstance(keys, Mapping) and hasattr(keys, "columns"):
        keys = {str(name): keys[name] for name in keys.columns}
    if isinstance(keys, Mapping):
        keys = {name: listed(column) for name, column in keys.items()}
    else:
        keys = listed(keys)
    said: Any = at if at is None or isinstance(at, str) else None
    if at is not None and said is None:
        n = 1 if not isinstance(at, Sequence) and not hasattr(at, "__len__") else len(at)
        times = [from_micros(micros).isoformat() for micros in moments(at, n).tolist()]
        said = times if hasattr(at, "__len__") else times[0]
    n = max(map(len, keys.values()), default=0) if isinstance(keys, dict) else len(keys)
    headers = {"content-type": JSON, "accept": JSON if n <= _FEW else ARROW}
    return msgspec.json.encode(Query(keys, features=names, at=said)), headers


def _spelled(item: Any) -> str:
    """How a query names a view, a feature or a model."""
    if isinstance(item, str):
        return item
    if isinstance(item, Feature | Derived):
        return repr(item)
    return item.name if isinstance(item, Model) else view_of(item).name


def _readings(url: str, status: int, form: str, body: bytes) -> Readings:
    """The answer to a query, or what it says is wrong."""
    import msgspec

    from .query import ARROW, answered, streamed

    if status == 200:
        try:
            return streamed(body) if form == ARROW else answered(body)
        except (msgspec.DecodeError, ValueError):  # ValueError: pyarrow's
            raise PenstockError(f"what answers at {url} is no feature store", "correct the address: penstock status") from None
    try:
        said = str(msgspec.json.decode(body)["error"])
    except (msgspec.DecodeError, KeyError, TypeError):
        said = f"it answered {status}"
    if status in (400, 404, 413):
        raise Refused({400: "schema", 404: "unknown", 413: "too_large"}[status], said)
    if status in (401, 403):
        fix = 'give it one of scope predict: key="..." or PENSTOCK_KEY (penstock keys create NAME --scope predict)'
        raise PenstockError(f"the feature store at {url} lets nobody in without a key: {said}", fix)
    if status == 503:
        raise Unreachable(f"the feature store at {url} cannot answer now: {said}", "try again, and look with: penstock status")
    raise PenstockError(f"the feature store at {url} does not answer: {said}", "look at its log: penstock logs feature_store")


def _away(url: str, error: Exception) -> Unreachable:
    return Unreachable(
        f"no feature store answers at {url}: {error}",
        "start it with `penstock up`, correct the address, or wait longer (timeout=)",
    )
