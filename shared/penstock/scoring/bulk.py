"""Scoring in bulk: all rows of a file or table, by several processes, in bounded memory, each row once.

    source --parts--> processes: read, answer --in order--> sink

Every row of the source is a row of the result: where it lies (partition and offset of a table, else the number of its row or
line), its id where the source has one, `version`, `score` (the probability of True, or the number; null where there is none), of
classes also `answer` (the most probable, whose probability the score is) and `probabilities` (JSON), and `error`, which says why.
What is done is not done again: the same job finds its parts in the sink.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from penstock.artefact import Artefacts
from penstock.errors import PenstockError
from penstock.project import Project
from penstock.records import Decision
from penstock.records.answers import served

from .answers import NOBODY, Scored, Serving, score
from .sinks import Sink
from .sources import Chunk, Part, Source
from .versions import Charge

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Done", "Job", "run"]

AHEAD: Final = 2
"""Parts that each process may be ahead of the sink: results wait in memory."""
SHOWN: Final = 10
"""Rows without a score that are told one by one."""


@dataclass(frozen=True)
class Job:
    """What is to be scored, by whom. The same charge, source and definitions are the same job."""

    charge: Charge
    artefacts: Artefacts
    source: Source
    fingerprint: str
    """Of the project: the definitions behind the inputs."""

    @property
    def lineage(self) -> dict[str, Any]:
        """What the scores are made from."""
        charge = self.charge
        weight = charge.online_weight if charge.online is not None else None
        members = [_member(charge.lead, 1.0 if weight is None else 1.0 - weight)]
        members += [_member(charge.online, weight)] if charge.online is not None else []
        return {
            "model": charge.model,
            "members": members,
            "source": self.source.said,
            "definitions": self.fingerprint,
            "inputs": list(charge.inputs),
        }

    @property
    def id(self) -> str:
        """Derived from the lineage."""
        return hashlib.sha256(json.dumps(self.lineage, sort_keys=True).encode()).hexdigest()[:16]

    @classmethod
    def of(cls, charge: Charge, artefacts: Artefacts, source: Source, project: Project) -> Job:
        return cls(charge, artefacts, source, project.fingerprint)


def _member(decision: Decision, weight: float | None) -> dict[str, Any]:
    artefact = decision.candidate.artefact if decision.candidate is not None else None
    digest, kind = (artefact.sha256, artefact.format) if artefact is not None else ("", "")
    said = {"version": decision.version, "digest": digest, "format": kind, "weight": weight}
    functions = decision.candidate.functions if decision.candidate is not None else {}
    return said | ({"functions": {role: [code.name, code.sha256] for role, code in functions.items()}} if functions else {})


@dataclass(frozen=True)
class Done:
    """What the result holds; `first` are places and causes of the first rows without a score. `again`: parts that were there."""

    rows: int
    bad: int
    first: list[dict[str, Any]]
    again: int


def run(job: Job, sink: Sink, workers: int = 1, told: Callable[[int], None] = lambda size: None) -> Done:
    """Score what is not scored yet. `told(size)` is called when a part is in the sink, in the unit of the source.

    PenstockError where the version cannot be opened, the sink has something else, or a process ended. The same again goes on.
    """
    parts = job.source.parts
    if not parts:
        raise PenstockError("there is no row to score", "see what the source holds")
    there = min(sink.begin(), len(parts))
    for part in parts[:there]:
        told(part.size)
    for number, table in enumerate(_results(job, parts[there:], workers), there):
        sink.put(number, table)
        told(parts[number].size)
    sink.finish()
    return _done(sink, there)


def _results(job: Job, parts: Sequence[Part], workers: int) -> Iterator[pa.Table]:
    """The parts, answered, in order."""
    if workers == 1 or len(parts) < 2:
        serving = job.charge.opened(job.artefacts)
        for part in parts:
            yield _answered(part, job.charge.model, serving)
        return
    context = get_context("spawn")  # a fork would copy the threads of onnxruntime and pyarrow half
    pool = ProcessPoolExecutor(min(workers, len(parts)), context, _open, (job.charge, job.artefacts))
    waiting: deque[Future[pa.Table]] = deque()
    try:
        for part in parts:
            waiting.append(pool.submit(_score, part))
            if len(waiting) > AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        fix = "give it more memory, or fewer processes (--workers); the same command goes on where it was"
        raise PenstockError("a process that scored has ended", fix) from None
    finally:
        pool.shutdown(cancel_futures=True)


_here: dict[str, Any] = {}
"""Of a process of the pool: the model, or why it cannot be opened."""


def _open(charge: Charge, artefacts: Artefacts) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _here.update(model=charge.model, serving=charge.opened(artefacts))
    except PenstockError as error:  # an initializer that raises breaks the pool without a word
        _here["error"] = PenstockError(str(error), error.fix)


def _end_with_parent() -> None:
    """A process whose parent was killed would wait for work for ever: it has both ends of the queue."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _score(part: Part) -> pa.Table:
    if "error" in _here:
        raise _here["error"]
    try:
        return _answered(part, _here["model"], _here["serving"])
    except PenstockError as error:
        raise PenstockError(str(error), error.fix) from None  # of the one class that can be sent


def _answered(part: Part, model: str, serving: Serving) -> pa.Table:
    import pyarrow as pa

    many = any(member.task == "multiclass" for member in serving.members.values())
    tables = [_table(chunk, score(model, chunk.X, [""] * len(chunk.X), serving), many) for chunk in part.read()]
    return pa.concat_tables(tables)


def _table(chunk: Chunk, scored: Scored, many: bool) -> pa.Table:
    import pyarrow as pa

    found = np.array(scored.score, np.float64)
    errors: list[str | None] = [None] * len(found)
    if scored.failed:
        why = "; ".join(f"{version}: {cause}" for version, cause in scored.causes.items())
        for row, answer in enumerate(scored.answers):
            if answer is NOBODY:
                errors[row] = f"failed: {scored.why.get(row, why)}"
    for row, said in chunk.bad.items():
        errors[row] = said
    without = np.array([error is not None for error in errors], bool)
    versions = [None if error is not None else answer.version for error, answer in zip(errors, scored.answers, strict=True)]
    table: pa.Table = chunk.place
    table = table.append_column("version", pa.array(versions, pa.string()))
    table = table.append_column("score", pa.array(found, pa.float64(), mask=without))
    if many:
        each = zip(scored.probabilities, scored.answers, strict=True)
        shares = [json.dumps(served(said, answer.version)) for said, answer in each]
        table = table.append_column("answer", pa.array(scored.named, pa.string(), mask=without))
        table = table.append_column("probabilities", pa.array(shares, pa.string(), mask=without))
    return table.append_column("error", pa.array(errors, pa.string()))


def _done(sink: Sink, again: int) -> Done:
    """Counted from what is written, so that it is right for what an earlier run did, too."""
    rows, bad, first = 0, 0, list[dict[str, Any]]()
    for batch in sink.batches(["error"]):
        rows += batch.num_rows
        bad += batch.num_rows - batch.column(0).null_count
    if bad:
        for batch in sink.batches(None):
            first += batch.filter(batch["error"].is_valid()).to_pylist()
            if len(first) >= SHOWN:
                break
    told = ("version", "score", "answer", "probabilities")
    return Done(rows, bad, [{k: v for k, v in row.items() if k not in told} for row in first[:SHOWN]], again)
