"""The registry's decisions where no service runs: read from the models topic once, or from a file beside the artefacts.

A run in one process keeps its log in memory; what its registry decided is left in a file, so that its models can be loaded after
it. Both are the compacted topic: the newest record by key.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import msgspec

from penstock.log import Log, Partition

__all__ = ["held", "keep", "kept"]


class _Line(msgspec.Struct):
    key: str
    value: msgspec.Raw


async def held(log: Log, topic: str) -> tuple[dict[bytes, bytes], int]:
    """The newest record by key of everything that a models topic holds now, and the position after it."""
    partition, found = Partition(topic, 0), dict[bytes, bytes]()
    at, end = (await log.begins([topic]))[partition], (await log.ends([topic]))[partition]
    reader = await log.reader({partition: at})
    try:
        while at < end:
            for batch in await reader.read(1000, 0.25):
                at = batch.next
                for key, value in zip(batch.keys, batch.values, strict=True):
                    if value is None:
                        found.pop(key or b"", None)
                    else:
                        found[key or b""] = value
    finally:
        await reader.close()
    return found, end


def keep(folder: Path, topic: str, table: dict[bytes, bytes]) -> None:
    """Leave decisions in a folder of artefacts, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [msgspec.json.encode(_Line(key.decode(), msgspec.Raw(value))) for key, value in table.items()]
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".", delete=False) as file:
        file.write(b"".join(line + b"\n" for line in lines))
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).replace(folder / f"{topic}.jsonl")


def kept(folder: Path, topic: str) -> dict[bytes, bytes] | None:
    """What was left there; None where nothing was."""
    try:
        data = (folder / f"{topic}.jsonl").read_bytes()
    except OSError:
        return None
    lines = msgspec.json.Decoder(_Line).decode_lines(data)
    return {line.key.encode(): bytes(line.value) for line in lines}
