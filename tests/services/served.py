"""`penstock serve` in this process, for tests: files that are written whole, requests, and a client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from penstock.services.inference.open_inference.protocol import Limits
from penstock.services.inference.open_inference.repository import Repository, named
from penstock.services.inference.open_inference.serve import Serve

ROWS = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
Talk = Callable[[httpx.AsyncClient, Repository], Awaitable[None]]


def put(place: Path, data: bytes) -> Path:
    """A file appears whole, as one that writes models should let it."""
    new = place.with_suffix(".new")
    new.write_bytes(data)
    return new.replace(place)


def word(folder: Path, name: str, data: bytes) -> str:
    return f"{name}={put(folder / (name.replace('/', '-') + '.onnx'), data)}"


def run(words: list[str], talk: Talk, admin: bool = False, limits: Limits = Limits(), **options: Any) -> None:
    async def whole() -> None:
        repository = Repository([named(one) for one in words], **options)
        await repository.open()
        transport = httpx.ASGITransport(Serve(repository, limits, admin))
        async with httpx.AsyncClient(transport=transport, base_url="http://penstock") as client:
            await talk(client, repository)

    asyncio.run(whole())


def tensor(rows: Any = ROWS, **changes: Any) -> dict[str, Any]:
    array = np.array(rows)
    return {"name": "x", "shape": list(array.shape), "datatype": "FP32", "data": array.ravel().tolist(), **changes}


def asking(*inputs: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"inputs": list(inputs) or [tensor()], **fields}
