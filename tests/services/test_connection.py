"""Connections as they come: in pieces, in a row, slow, or none of ours. Real sockets, in one process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvicorn
from tests.services import graphs
from tests.services.test_serving import asking, tensor, word

from penstock.runtime.connection import WHOLE, Connection, cut
from penstock.services.inference.protocol import Limits
from penstock.services.inference.repository import Repository, named
from penstock.services.inference.serve import Serve, bound

Door = tuple[asyncio.StreamReader, asyncio.StreamWriter]
BODY = json.dumps(asking(tensor([[1.0, 2.0, 3.0]]))).encode()
HEAD = b"POST /v2/models/double/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n" % len(BODY)


def run(folder: Path, talk: Callable[[int, uvicorn.Server], Awaitable[None]]) -> None:
    async def whole() -> None:
        repository = Repository([named(word(folder, "double", graphs.scaled(2.0)))])
        await repository.open()
        app = Serve(repository, Limits(), False)
        server = uvicorn.Server(uvicorn.Config(app, http=Connection, lifespan="off", log_level="critical"))
        with bound("127.0.0.1", 0) as taken:
            server.config.load()
            server.lifespan = server.config.lifespan_class(server.config)
            await server.startup(sockets=[taken])
            try:
                await asyncio.wait_for(talk(taken.getsockname()[1], server), 60)
            finally:
                await server.shutdown(sockets=[])

    asyncio.run(whole())


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
    return int(head[0].split()[1]), headers, await reader.readexactly(int(headers.get("content-length", 0)))


def scores(body: bytes) -> list[float]:
    found: list[float] = json.loads(body)["outputs"][0]["data"]
    return found


def test_requests_in_a_row_are_answered_in_order(tmp_path: Path) -> None:
    async def talk(port: int, server: uvicorn.Server) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        missing = b"GET /v2/models/none HTTP/1.1\r\nHost: x\r\n\r\n"
        writer.write((HEAD + b"\r\n" + BODY) * 3 + missing + HEAD + b"\r\n" + BODY)
        found = [await answer(reader) for _ in range(5)]
        assert [status for status, _, _ in found] == [200, 200, 200, 404, 200]
        assert [scores(body) for status, _, body in found if status == 200] == [[2.0, 4.0, 6.0]] * 4
        writer.close()

    run(tmp_path, talk)


def test_a_request_may_come_a_byte_at_a_time_in_chunks_or_wait_to_be_asked_for_its_body(tmp_path: Path) -> None:
    async def talk(port: int, server: uvicorn.Server) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for byte in HEAD + b"\r\n" + BODY:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        assert scores((await answer(reader))[2]) == [2.0, 4.0, 6.0]
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (BODY[:7], BODY[7:8], BODY[8:])) + b"0\r\n\r\n"
        writer.write(b"POST /v2/models/double/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)
        assert scores((await answer(reader))[2]) == [2.0, 4.0, 6.0]
        writer.write(HEAD + b"Expect: 100-continue\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
        writer.write(BODY)
        assert scores((await answer(reader))[2]) == [2.0, 4.0, 6.0]
        writer.close()

    run(tmp_path, talk)


def test_an_answer_without_a_body_is_sent(tmp_path: Path) -> None:
    async def talk(port: int, server: uvicorn.Server) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HEAD /v2 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        writer.write(HEAD + b"Connection: close\r\n\r\n" + BODY)
        assert scores((await answer(reader))[2]) == [2.0, 4.0, 6.0]
        assert await reader.read() == b""

    run(tmp_path, talk)


def test_what_is_no_http_is_refused_in_the_form_of_all_others_without_a_name_or_version(tmp_path: Path) -> None:
    async def talk(port: int, server: uvicorn.Server) -> None:
        for garbage in (
            b"\x16\x03\x01\x02\x00\x01\x00",
            b"GET\r\n\r\n",
            b"POST / HTTP/9.9\r\n\r\n",
            HEAD + b"Content-Length: 5\r\n\r\n",
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(garbage)
            status, headers, body = await answer(reader)
            assert (status, set(json.loads(body))) == (400, {"error"})
            assert headers["connection"] == "close"
            assert await reader.read() == b""
            writer.close()

    run(tmp_path, talk)


def test_slow_and_silent_clients_are_cut_off_and_others_are_not(tmp_path: Path) -> None:
    async def talk(port: int, server: uvicorn.Server) -> None:
        doors = {
            name: await asyncio.open_connection("127.0.0.1", port)
            for name in ("silent", "slow head", "slow body", "good", "idle")
        }
        doors["slow head"][1].write(b"POST /v2/models/double/infer HTTP/1.1\r\nHo")
        doors["slow body"][1].write(HEAD + b"\r\n" + BODY[:10])
        for name in ("good", "idle"):
            doors[name][1].write(HEAD + b"\r\n" + BODY)
            assert (await answer(doors[name][0]))[0] == 200
        now = asyncio.get_running_loop().time()
        cut(server.server_state.connections, now + WHOLE - 5)
        assert len(server.server_state.connections) == 5
        cut(server.server_state.connections, now + WHOLE + 5)
        for name in ("silent", "slow head", "slow body"):
            assert (await answer(doors[name][0]))[0] == 408
            assert await doors[name][0].read() == b""
        doors["good"][1].write(HEAD + b"\r\n" + BODY)
        assert (await answer(doors["good"][0]))[0] == 200
        for _, writer in doors.values():
            writer.close()

    run(tmp_path, talk)


def test_a_client_that_goes_in_the_middle_of_its_request_harms_nobody(tmp_path: Path) -> None:
    async def talk(port: int, server: uvicorn.Server) -> None:
        for length in (10, len(HEAD), len(HEAD) + 20, len(HEAD) + 2 + len(BODY)):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write((HEAD + b"\r\n" + BODY)[:length])
            writer.transport.abort()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HEAD + b"\r\n" + BODY)
        assert scores((await answer(reader))[2]) == [2.0, 4.0, 6.0]
        writer.close()

    run(tmp_path, talk)
