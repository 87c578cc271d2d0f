"""An application on a real socket, in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from penstock.runtime.server import server as running
from penstock.services.inference.open_inference.serve import bound

__all__ = ["opened"]


@contextmanager
def opened(make: Callable[[], Awaitable[Any]], lifespan: bool = True) -> Iterator[str]:
    """The URL of what `make` makes; it is made in the thread that serves it."""
    there, failed, stop = threading.Event(), list[BaseException](), list[Callable[[], object]]()
    with bound("127.0.0.1", 0) as taken:

        async def whole() -> None:
            server = running(await make(), lifespan=lifespan)
            serving = asyncio.create_task(server.serve(sockets=[taken]))
            while not server.started:
                await asyncio.sleep(0.001)
            loop = asyncio.get_running_loop()
            stop.append(partial(loop.call_soon_threadsafe, setattr, server, "should_exit", True))
            there.set()
            await serving

        def run() -> None:
            try:
                asyncio.run(whole())
            except BaseException as error:
                failed.append(error)
            finally:
                there.set()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        assert there.wait(30)
        if failed:
            raise failed[0]
        try:
            yield f"http://127.0.0.1:{taken.getsockname()[1]}"
        finally:
            stop[0]()
            thread.join(30)
