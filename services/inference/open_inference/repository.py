"""The repository of `penstock serve`: ONNX files by model and version, opened, watched, put in each other's place.

A file that changes is opened beside the version in force, warmed, and takes over between two requests; whoever asked the
version before still gets its answer. What cannot be opened never takes over. A version without a name is called by the first
12 digits of its file's sha256, so that every answer says which bytes gave it.
"""

from __future__ import annotations

import asyncio
import os
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from penstock.errors import PenstockError, Unreachable
from penstock.runtime.refusals import Failed
from penstock.scoring.graph import Graph

from .batching import Batcher
from .protocol import Version
from .tally import Tally
from .tensors import Parameters

__all__ = ["Named", "Repository", "named"]

PLATFORM: Final = "onnx_onnxv1"
_NAME: Final = re.compile(r"[A-Za-z0-9_.\-]{1,100}")
_LATER: Final = 5
"""Seconds after which a model that is not loaded may be asked for again."""

Stamp = tuple[int, int, int]
"""Of a file: when it was written (ns), its size, its inode."""


@dataclass(frozen=True)
class Named:
    """A file to serve, as it is named on the command line: FILE, MODEL=FILE or MODEL/VERSION=FILE."""

    model: str
    version: str | None
    path: Path


def named(word: str) -> Named:
    """What a word of the command line means; PenstockError when it means nothing.

    >>> named("models/fraud.onnx").model, named("late/3=x.onnx").version
    ('fraud', '3')
    """
    name, equals, file = word.partition("=")
    path = Path(file if equals else word)
    model, slash, version = name.partition("/") if equals else (path.stem, "", "")
    for said in (model, version) if slash else (model,):
        if not _NAME.fullmatch(said) or said == "stats":
            raise PenstockError(
                f"{word!r} does not name a model: {said!r} is not letters, digits and _ . -",
                "write FILE.onnx, MODEL=FILE.onnx or MODEL/VERSION=FILE.onnx",
            )
    return Named(model, version or None, path)


@dataclass
class _Place:
    """What is served in one place of the repository: a named file, and what of it is in force."""

    named: Named
    tally: Tally = field(default_factory=Tally)
    now: Version | None = None
    label: str = ""
    """Of the version in force, or that was."""
    size: int = 0
    """Bytes of memory that it takes."""
    stamp: Stamp | None = None
    """Of the file that was opened, or refused, last."""
    seen: Stamp | None = None
    wanted: bool = True
    """Not unloaded by an administrator."""
    reason: str = ""
    used: int = 0
    opening: asyncio.Lock = field(default_factory=asyncio.Lock)


class Repository:
    """Models of files. `memory`: bytes that they may take together; beyond it the least used is closed until it is asked for.
    `timeout`: seconds that opening one may take. `patience`: see `Batcher`."""

    def __init__(self, files: Sequence[Named], memory: int | None = None, timeout: float = 60.0, patience: float = 1.0) -> None:
        self._places: dict[str, dict[str | None, _Place]] = {}
        for one in files:
            versions = self._places.setdefault(one.model, {})
            if one.version in versions or (versions and None in (one.version, *versions)):
                raise PenstockError(
                    f"{one.model} is named twice" + (f", as version {one.version}" if one.version else ""),
                    f"give versions names: {one.model}/1={one.path} {one.model}/2=...",
                )
            versions[one.version] = _Place(one)
        self._memory, self._timeout, self._patience = memory, timeout, patience
        self._turn = 0
        self._logger = structlog.get_logger()

    @property
    def models(self) -> Sequence[str]:
        return list(self._places)

    # --- what the protocol asks ---

    def waiting(self) -> str:
        missing = [place for place in self._all() if place.wanted and place.now is None and not place.size]
        return "; ".join(f"{place.named.model}: {place.reason or 'is not open yet'}" for place in missing)

    def versions(self, model: str) -> Sequence[str]:
        return [place.label for place in reversed(self._of(model)) if place.wanted and place.label]

    async def version(self, model: str, version: str | None) -> Version:
        place = self._place(model, version)
        self._turn += 1
        place.used = self._turn
        return place.now or await self._reopened(place)

    def tallies(self) -> Mapping[tuple[str, str], Tally]:
        return {(place.named.model, place.label): place.tally for place in self._all()}

    def index(self) -> Sequence[Mapping[str, str]]:
        return [
            {
                "name": place.named.model,
                "version": place.label,
                "state": "READY" if place.wanted and place.label else "UNAVAILABLE",
                "reason": place.reason or ("" if place.now else "closed to make room; opened when it is asked for"),
            }
            for place in self._all()
        ]

    async def load(self, model: str) -> None:
        for place in self._of(model):
            try:
                await self._open(place)
            except PenstockError as error:
                raise Failed(400, f"{model} cannot be loaded: {error}") from None
            place.wanted = True

    async def unload(self, model: str) -> None:
        for place in self._of(model):
            place.wanted, place.now, place.size, place.reason = False, None, 0, "unloaded"

    # --- files ---

    async def open(self) -> None:
        """Open all, in the order of the command line. PenstockError at the first that cannot be served."""
        for place in self._all():
            try:
                await self._open(place)
            except PenstockError as error:
                raise type(error)(f"{place.named.path} cannot be served: {error}", error.fix) from None

    async def look(self) -> None:
        """Take over files that have changed, once they are whole: the same at two looks."""
        for place in self._all():
            stamp = _stamp(place.named.path)
            settled, place.seen = stamp == place.seen, stamp
            if stamp is not None and settled and stamp != place.stamp and place.wanted:
                await self._swap(place)

    async def _swap(self, place: _Place) -> None:
        before = place.label
        try:
            await self._open(place)
        except PenstockError as error:
            place.reason = f"the file as it is now is not served: {error}"
            self._logger.error("file not served", model=place.named.model, path=str(place.named.path), cause=str(error))
        else:
            if place.now is not None:
                sha256 = place.now.parameters["sha256"]
                self._logger.info("swapped", model=place.named.model, before=before, version=place.label, sha256=sha256)

    async def _reopened(self, place: _Place) -> Version:
        """A version that was closed to make room."""
        model = place.named.model
        if not place.wanted:
            raise Failed(503, f"{model} was unloaded", _LATER)
        async with place.opening:
            if place.now is None:
                try:
                    await self._opened(place)
                except PenstockError as error:
                    raise Failed(503, f"{model} cannot be opened again: {error}", _LATER) from None
        assert place.now is not None
        return place.now

    async def _open(self, place: _Place) -> None:
        async with place.opening:
            await self._opened(place)

    async def _opened(self, place: _Place) -> None:
        """Read the file and put it in force."""
        path, model = place.named.path, place.named.model
        place.stamp = _stamp(path)
        graph, size = await _in_time(path, self._timeout)
        if self._memory is not None and size > self._memory:
            raise PenstockError(
                f"it takes {size >> 20} MiB of memory, more than the {self._memory >> 20} allowed", "raise --memory"
            )
        label = place.named.version or graph.sha256[:12]
        batcher = Batcher(graph.run, graph.signature, place.tally, self._patience)
        about: Parameters = {"sha256": graph.sha256, "bytes": graph.size, "batched": graph.signature.batched}
        place.now = Version(model, label, PLATFORM, graph.signature, batcher, place.tally, about)
        place.label, place.size, place.reason = label, size, ""
        self._make_room(place)

    def _make_room(self, newest: _Place) -> None:
        """Close the least used until the others fit. A request that has its version in hand still gets its answer."""
        if self._memory is None:
            return
        open_ = sorted((place for place in self._all() if place.now is not None), key=lambda place: place.used)
        while sum(place.size for place in open_) > self._memory:
            victim = next(place for place in open_ if place is not newest)
            open_.remove(victim)
            victim.now = None
            self._logger.info("closed to make room", model=victim.named.model, version=victim.label)

    def _all(self) -> list[_Place]:
        return [place for versions in self._places.values() for place in versions.values()]

    def _of(self, model: str) -> list[_Place]:
        if model not in self._places:
            raise Failed(404, f"there is no model {model[:80]!r}; there is: {', '.join(self._places)}")
        return list(self._places[model].values())

    def _place(self, model: str, version: str | None) -> _Place:
        """The place of a version; where none is named, that of the last one on the command line."""
        places = self._of(model)
        if version is None:
            return places[-1]
        for place in places:
            if place.label == version:
                return place
        known = ", ".join(place.label for place in places if place.label) or "none"
        raise Failed(404, f"model {model} has no version {version[:80]!r}; it has: {known}")


def _stamp(path: Path) -> Stamp | None:
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_mtime_ns, about.st_size, about.st_ino


async def _in_time(path: Path, timeout: float) -> tuple[Graph, int]:
    """A file as a graph, and the bytes of memory it takes. Opened in a thread of its own, which is left behind when it takes
    too long: a thread cannot be ended."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[tuple[Graph, int]] = loop.create_future()

    def tell(found: tuple[Graph, int] | None, error: BaseException | None) -> None:
        if done.done():
            return
        if found is not None:
            done.set_result(found)
        else:
            done.set_exception(error or RuntimeError("nothing was opened"))

    def work() -> None:
        try:
            found, error = _graph(path), None
        except BaseException as caught:
            found, error = None, caught
        if not loop.is_closed():
            loop.call_soon_threadsafe(tell, found, error)

    threading.Thread(target=work, name=f"opening {path}", daemon=True).start()
    try:
        return await asyncio.wait_for(done, timeout)
    except TimeoutError:
        raise PenstockError(f"it was not open after {timeout:g} s", "raise --load-timeout, or serve a smaller model") from None


def _graph(path: Path) -> tuple[Graph, int]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Unreachable(f"it cannot be read: {error.strerror or error}", "name an ONNX file that is there") from None
    before = _resident()
    graph = Graph(data)
    return graph, max(len(data), _resident() - before)


def _resident() -> int:
    """Bytes of memory that this process has; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0
