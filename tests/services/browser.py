"""A real browser, Chromium without a window, told what to do over its DevTools protocol. Tests skip where it is not installed."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

__all__ = ["Tab", "browsing"]

DEADLINE = 60.0


class Tab:
    """A page. `run` evaluates JavaScript in it; `until` waits for it to be true."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket, self._number = socket, 0
        self.said: list[str] = []
        """What the page complained of: errors of scripts, and what its policy kept it from."""

    async def call(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        while True:
            message = await self._socket.receive_json(timeout=DEADLINE)
            told = message.get("params", {})
            if message.get("method") == "Runtime.exceptionThrown" or told.get("entry", {}).get("level") in ("error", "warning"):
                self.said.append(json.dumps(told))
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]

    async def open(self, url: str) -> None:
        for domain in ("Page", "Runtime", "Log"):
            await self.call(f"{domain}.enable")
        await self.call("Page.navigate", url=url)

    async def run(self, script: str) -> Any:
        found = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def until(self, script: str) -> None:
        async with asyncio.timeout(DEADLINE):
            while not await self.run(script):
                await asyncio.sleep(0.02)

    async def picture(self, path: Path) -> None:
        found = await self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))


@asynccontextmanager
async def browsing(folder: Path, size: str = "1200,900") -> AsyncIterator[Tab]:
    """A tab of a browser of its own, which keeps what it keeps in `folder`."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium is installed")
    process = await asyncio.create_subprocess_exec(
        program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-port=0",
        "--no-first-run", "--disable-background-networking", "--disable-extensions", f"--window-size={size}",
        f"--user-data-dir={folder}", "about:blank",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        port = folder / "DevToolsActivePort"
        async with asyncio.timeout(DEADLINE):
            while not port.exists() or len(port.read_text().splitlines()) < 2:
                await asyncio.sleep(0.05)
        place = f"http://127.0.0.1:{port.read_text().splitlines()[0]}"
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{place}/json/list") as answer:
                (page,) = [each for each in await answer.json() if each["type"] == "page"]
            async with session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=64 << 20) as socket:
                yield Tab(socket)
    finally:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()
            await process.wait()
