"""Real servers on this machine that take messages about alarms, and answer as they are told."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

from penstock.local import port as ports

__all__ = ["Answer", "Post", "Postman", "Web", "mail_server", "scripted", "smtp", "web_server"]


class Answer(NamedTuple):
    """What a web server is to answer; `after` seconds."""

    status: int = 200
    headers: dict[str, str] = {}  # noqa: RUF012
    body: bytes = b"ok"
    after: float = 0.0


class Post(NamedTuple):
    path: str
    headers: dict[str, str]
    body: bytes


class Web(NamedTuple):
    url: str
    posts: list[Post]


def context_of(keys: Path) -> ssl.SSLContext:
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    found.load_cert_chain(keys / "cert.pem", keys / "key.pem")
    return found


@contextlib.contextmanager
def web_server(answers: Sequence[Answer] = (), keys: Path | None = None) -> Iterator[Web]:
    """A web server that answers with these in turn, and with 200 from then on."""
    posts, left = list[Post](), list(answers)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            posts.append(Post(self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            answer = left.pop(0) if left else Answer()
            time.sleep(answer.after)
            with contextlib.suppress(OSError):
                self.send_response(answer.status)
                for name, value in {"content-length": str(len(answer.body)), **answer.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.body)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that goes away is what we test
    if keys is not None:
        server.socket = context_of(keys).wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield Web(f"{'https' if keys else 'http'}://127.0.0.1:{server.server_port}/hook/secret", posts)
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


class Postman:
    """Takes letters into `letters`; `answers` are said to the next ones instead of 250, `refuses` names whom it does not know,
    and `later` to whom it says "later" how often."""

    def __init__(
        self, answers: Sequence[str] = (), refuses: Sequence[str] = (), later: Mapping[str, int] = MappingProxyType({})
    ) -> None:
        self.answers, self.refuses, self.later = list(answers), refuses, dict(later)
        self.letters: list[tuple[list[str], bytes]] = []

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:  # noqa: N802
        if address in self.refuses:
            return "550 no such person"
        if self.later.get(address, 0):
            self.later[address] -= 1
            return "450 later"
        envelope.rcpt_tos.append(address)
        return "250 ok"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        if self.answers:
            return self.answers.pop(0)
        self.letters.append((envelope.rcpt_tos, envelope.content))
        return "250 ok"


@contextlib.contextmanager
def mail_server(
    postman: Postman, keys: Path | None = None, implicit: bool = False, login: tuple[str, str] | None = None
) -> Iterator[int]:
    """A mail server with STARTTLS (`keys`) or TLS at once (`implicit`), and a login where one is given. Yields its port."""

    def known(server: SMTP, session: Any, envelope: Any, mechanism: str, said: Any) -> AuthResult:
        right = isinstance(said, LoginPassword) and (said.login.decode(), said.password.decode()) == login
        return AuthResult(success=right, handled=False)

    tls: dict[str, Any] = {}
    if keys is not None:
        tls = {"ssl_context": context_of(keys)} if implicit else {"tls_context": context_of(keys), "require_starttls": True}
    if login is not None:
        tls |= {"authenticator": known, "auth_required": True, "auth_require_tls": not implicit and keys is not None}
    port = ports.free()
    controller = Controller(postman, hostname=ports.LOOPBACK, port=port, ready_timeout=10.0, **tls)
    controller.start()
    try:
        yield port
    finally:
        controller.stop()


@contextlib.contextmanager
def scripted(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server that talks to one client after another as it is told. Yields its port."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                one, _ = server.accept()
                with one, contextlib.suppress(OSError):
                    talk(one)

    with socket.create_server((ports.LOOPBACK, 0)) as server:
        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]


def smtp(line: socket.socket, letters: list[bytes], farewell: bytes = b"221 bye") -> None:
    """Take letters as a mail server that offers a login and says `farewell` to QUIT."""
    with line.makefile("rwb", buffering=0) as lines:
        lines.write(b"220 hello\r\n")
        for said in lines:
            word = said.split()[0].upper()
            if word == b"QUIT":
                lines.write(farewell + b"\r\n")
                return
            lines.write({b"DATA": b"354 go on\r\n", b"EHLO": b"250-ok\r\n250 AUTH PLAIN\r\n"}.get(word, b"250 ok\r\n"))
            if word == b"DATA":
                letters.append(b"".join(iter(lines.readline, b".\r\n")))
                lines.write(b"250 ok\r\n")
