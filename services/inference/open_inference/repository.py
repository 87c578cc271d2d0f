"""The repository of `penstock serve`: files by model and version, opened, watched, put in each other's place.

    late.onnx                                       a model
    prepare.py:clean                                a Python function, in a process of its own (`penstock.scoring.process`)
    prepare.py:clean+late.onnx+finish.py:words      a chain of them, asked as one model (`penstock.scoring.chain`)

A file that changes is opened beside the version in force, warmed, and takes over between two requests; whoever asked the
version before still gets its answer. What cannot be opened never takes over. A version without a name is called by the first
12 digits of the sha256 of its files (and the names of its functions), so that every answer says which bytes gave it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import structlog

from penstock.errors import PenstockError, Unreachable
from penstock.runtime.refusals import Failed
from penstock.scoring.chain import Chain, Step
from penstock.scoring.graph import Graph
from penstock.scoring.process import Bounds, Function

from .batching import Batcher
from .protocol import Version
from .tally import Tally
from .tensors import Parameters

__all__ = ["Named", "Repository", "named"]

_ONNX, _PYTHON, _CHAIN = "onnx_onnxv1", "python", "ensemble"
"""Platforms, as Triton calls them."""
_FUNCTION: Final = re.compile(r"(.+\.py):([A-Za-z_]\w*)")
_NAME: Final = re.compile(r"[A-Za-z0-9_.\-]{1,100}")
_LATER: Final = 5
"""Seconds after which a model that is not loaded may be asked for again."""

Stamp = tuple[tuple[int, int, int], ...]
"""Of each file: when it was written (ns), its size, its inode."""


class Source(NamedTuple):
    """Of a step: an ONNX file, or a function of a Python file."""

    path: Path
    function: str = ""

    def __str__(self) -> str:
        return f"{self.path}:{self.function}" if self.function else str(self.path)


@dataclass(frozen=True)
class Named:
    """What to serve, as it is named on the command line: FILE, MODEL=FILE or MODEL/VERSION=FILE; several steps with + between
    them."""

    model: str
    version: str | None
    steps: tuple[Source, ...]

    def __str__(self) -> str:
        return "+".join(map(str, self.steps))


def named(word: str) -> Named:
    """What a word of the command line means; PenstockError when it means nothing.

    >>> named("models/fraud.onnx").model, named("late/3=x.onnx").version
    ('fraud', '3')
    >>> named("prepare.py:clean+late.onnx").model, str(named("a=prepare.py:clean").steps[0])
    ('late', 'prepare.py:clean')
    """
    name, equals, file = word.partition("=")
    said = file if equals else word
    steps = [_source(part) for part in said.split("+")]
    if not any(step.function for step in steps):
        steps = [Source(Path(said))]  # a + in the name of a file
    stem = next((step.path.stem for step in steps if not step.function), steps[0].function)
    model, slash, version = name.partition("/") if equals else (stem, "", "")
    for part in (model, version) if slash else (model,):
        if not _NAME.fullmatch(part) or part == "stats":
            raise PenstockError(
                f"{word!r} does not name a model: {part!r} is not letters, digits and _ . -",
                "write FILE.onnx, MODEL=FILE.onnx or MODEL/VERSION=FILE.onnx",
            )
    return Named(model, version or None, tuple(steps))


def _source(said: str) -> Source:
    of = _FUNCTION.fullmatch(said)
    return Source(Path(said)) if of is None else Source(Path(of[1]), of[2])


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
    `timeout`: seconds that opening one may take. `patience`: see `Batcher`. `bounds`: of each Python function."""

    def __init__(
        self,
        files: Sequence[Named],
        memory: int | None = None,
        timeout: float = 60.0,
        patience: float = 1.0,
        bounds: Bounds = Bounds(),
    ) -> None:
        self._places: dict[str, dict[str | None, _Place]] = {}
        for one in files:
            versions = self._places.setdefault(one.model, {})
            if one.version in versions or (versions and None in (one.version, *versions)):
                raise PenstockError(
                    f"{one.model} is named twice" + (f", as version {one.version}" if one.version else ""),
                    f"give versions names: {one.model}/1={one} {one.model}/2=...",
                )
            versions[one.version] = _Place(one)
        self._memory, self._timeout, self._patience, self._bounds = memory, timeout, patience, bounds
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
                raise type(error)(f"{place.named} cannot be served: {error}", error.fix) from None

    async def look(self) -> None:
        """Take over files that have changed, once they are whole: the same at two looks."""
        for place in self._all():
            stamp = _stamp(place.named)
            settled, place.seen = stamp == place.seen, stamp
            if stamp is not None and settled and stamp != place.stamp and place.wanted:
                await self._swap(place)

    async def _swap(self, place: _Place) -> None:
        before = place.label
        try:
            await self._open(place)
        except PenstockError as error:
            place.reason = f"the file as it is now is not served: {error}"
            self._logger.error("file not served", model=place.named.model, path=str(place.named), cause=str(error))
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
        place.stamp = _stamp(place.named)
        opened, size = await _in_time(place.named, self._bounds, self._timeout)
        if self._memory is not None and size > self._memory:
            raise PenstockError(
                f"it takes {size >> 20} MiB of memory, more than the {self._memory >> 20} allowed", "raise --memory"
            )
        label, signature = place.named.version or opened.sha256[:12], opened.step.signature
        batcher = Batcher(opened.step.run, signature, place.tally, self._patience, apart=opened.platform != _ONNX)
        about: Parameters = {"sha256": opened.sha256, "bytes": opened.bytes, "batched": signature.batched}
        if opened.platform != _ONNX:
            about["steps"] = str(place.named)
        place.now = Version(place.named.model, label, opened.platform, signature, batcher, place.tally, about)
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


class _Opened(NamedTuple):
    """What was opened of a place."""

    step: Step
    platform: str
    sha256: str
    """Of the file, and of a function its name; of several the sha256 of theirs."""
    bytes: int


def _stamp(of: Named) -> Stamp | None:
    """None while a file is not there."""
    found = []
    for step in of.steps:
        try:
            about = step.path.stat()
        except OSError:
            return None
        found.append((about.st_mtime_ns, about.st_size, about.st_ino))
    return tuple(found)


async def _in_time(named: Named, bounds: Bounds, timeout: float) -> tuple[_Opened, int]:
    """What is named, open, and the bytes of memory it takes. Opened in a thread of its own, which is left behind when it takes
    too long: a thread cannot be ended."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[tuple[_Opened, int]] = loop.create_future()

    def tell(found: tuple[_Opened, int] | None, error: BaseException | None) -> None:
        if done.done():
            return
        if found is not None:
            done.set_result(found)
        else:
            done.set_exception(error or RuntimeError("nothing was opened"))

    def work() -> None:
        try:
            found, error = _opened(named, bounds._replace(opening=timeout)), None
        except BaseException as caught:
            found, error = None, caught
        if not loop.is_closed():
            loop.call_soon_threadsafe(tell, found, error)

    threading.Thread(target=work, name=f"opening {named}", daemon=True).start()
    try:
        return await asyncio.wait_for(done, timeout)
    except TimeoutError:
        raise PenstockError(f"it was not open after {timeout:g} s", "raise --load-timeout, or serve a smaller model") from None


def _opened(named: Named, bounds: Bounds) -> tuple[_Opened, int]:
    """Open all steps, and the bytes of this process's memory that they take; a function has its own."""
    before = _resident()
    found = [Function(step.path, step.function, bounds) if step.function else _graph(step.path) for step in named.steps]
    size = sum(one.size for one in found)
    taken = max(size, _resident() - before)
    if len(found) == 1:
        only = found[0]
        return _Opened(only, _ONNX if isinstance(only, Graph) else _PYTHON, only.sha256, size), taken
    try:
        chain = Chain([(str(step), one) for step, one in zip(named.steps, found, strict=True)])
    except PenstockError:
        for one in found:
            if isinstance(one, Function):
                one.close()  # the error holds this frame, and with it their processes, until the garbage is collected
        raise
    together = hashlib.sha256("".join(one.sha256 for one in found).encode()).hexdigest()
    return _Opened(chain, _CHAIN, together, size), taken


def _graph(path: Path) -> Graph:
    try:
        return Graph(path.read_bytes())
    except OSError as error:
        raise Unreachable(f"it cannot be read: {error.strerror or error}", "name an ONNX file that is there") from None


def _resident() -> int:
    """Bytes of memory that this process has; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0
