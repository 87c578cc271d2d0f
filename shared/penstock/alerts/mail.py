"""By e-mail: one plain letter a message, with a Message-ID that follows from it, so that a letter sent twice is known."""

from __future__ import annotations

import asyncio
import smtplib
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import format_datetime, localtime
from typing import Final

from ..evidence import line_of
from .message import Message
from .routes import SECONDS, Delayed, Undeliverable

__all__ = ["SCHEMES", "Mail"]

SCHEMES: Final = {"smtp": 587, "smtps": 465, "smtp+plain": 25}
"""Scheme -> its usual port: STARTTLS, without which nothing is sent; TLS at once; neither, for a relay on this machine."""
ATTEMPTS: Final = 10
"""To whom the server says "later" while it takes the letter for others: about eight minutes of a courier, as a server that puts
off strangers wants five, and those who have it wait for their next letter meanwhile."""


@dataclass
class _Owed:
    """A message, and who has not got it yet."""

    message: str
    to: list[str]
    attempts: int = 0
    """Those that some got it by."""
    never: tuple[str, ...] = ()
    """Whom the server does not know."""


class Mail:
    """Letters by one SMTP server to the same people."""

    name = "email"

    def __init__(
        self, scheme: str, host: str, port: int, user: str, password: str, sender: str, to: Sequence[str], trusted: ssl.SSLContext
    ) -> None:
        self._scheme, self._host, self._port, self._user, self._password = scheme, host, port, user, password
        self._sender, self._to, self._trusted = sender, list(to), trusted
        self.place = f"{scheme}://{host}:{port} for {', '.join(to)}"
        self._owed = _Owed("", [])
        self._slow = set[str]()
        """To whom the last letter did not go in ATTEMPTS: nobody waits for them again until they take one."""

    async def send(self, message: Message) -> str:
        client = _Client(self._host, self._trusted if self._scheme == "smtps" else None)
        if self._owed.message != message.id:
            self._owed = _Owed(message.id, list(self._to))
        try:
            async with asyncio.timeout(6 * SECONDS):  # a letter is half a dozen answers
                return await asyncio.to_thread(self._deliver, client, self.letter(message), self._owed)
        except TimeoutError:
            raise Delayed(f"{self._host} did not take the letter within {6 * SECONDS:.0f} s") from None
        except smtplib.SMTPNotSupportedError as error:
            raise Undeliverable(f"{self._host} cannot do what is asked: {error}") from None
        except smtplib.SMTPRecipientsRefused as error:
            said = "; ".join(f"{who}: {code} {_text(words)}" for who, (code, words) in error.recipients.items())
            kind = Undeliverable if all(code >= 500 for code, _ in error.recipients.values()) else Delayed
            raise kind(f"{self._host} takes no letter for {said}") from None
        except smtplib.SMTPResponseException as error:
            login = isinstance(error, smtplib.SMTPAuthenticationError)
            what = f"{self._host} {'refused the login' if login else 'answered'}: {error.smtp_code} {_text(error.smtp_error)}"
            raise (Undeliverable if error.smtp_code >= 500 else Delayed)(what) from None
        except ssl.SSLCertVerificationError as error:
            raise Undeliverable(f"the certificate of {self._host} is not to be trusted: {error.verify_message}") from None
        except UnicodeError:  # it would quote the password
            raise Undeliverable(f"{self._host} is no name of a server, or its user or password is not ASCII") from None
        except (smtplib.SMTPException, OSError) as error:
            raise Delayed(f"{self._host}:{self._port} does not answer: {str(error) or type(error).__name__}") from None
        finally:
            client.cut()

    def letter(self, message: Message) -> EmailMessage:
        """The message as a letter."""
        found = EmailMessage()
        found["Subject"], found["From"], found["To"] = message.title, self._sender, ", ".join(self._to)
        found["Date"], found["Message-ID"] = format_datetime(localtime()), f"<{message.id}@{self._sender.rpartition('@')[2]}>"
        found["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody's holiday reply
        found.set_content("\n".join([*message.lines, "", f"project {message.project}, times of the stream (UTC)"]) + "\n")
        return found

    def _deliver(self, client: _Client, letter: EmailMessage, owed: _Owed) -> str:
        """Give it to whom it is owed, all at first. Delayed: some have it, and others may yet."""
        try:
            code, words = client.connect(self._host, self._port)
            if code != 220:
                raise smtplib.SMTPConnectError(code, words)
            if self._scheme == "smtp":
                client.starttls(context=self._trusted)
            if self._user:
                client.login(self._user, self._password)
            try:
                refused = client.send_message(letter, to_addrs=owed.to)
            except smtplib.SMTPRecipientsRefused as error:
                if not owed.attempts:
                    raise  # nobody has it
                refused = error.recipients
            with suppress(smtplib.SMTPException, OSError):
                client.quit()  # the letter is out, whatever is said to that
        finally:
            client.close()
        owed.attempts += 1
        self._slow -= set(owed.to) - set(refused)
        later = [who for who, (code, _) in refused.items() if code < 500]
        owed.never += tuple(who for who in refused if who not in later)
        if owed.attempts < ATTEMPTS and not self._slow.issuperset(later):
            owed.to = later
            raise Delayed(f"{self._host} took the letter, but not yet for {', '.join(later)}")
        self._slow |= set(later)
        left = (*owed.never, *later)
        return f"{self._host} took the letter" + (f", but not for {', '.join(left)}" if left else "")


class _Client(smtplib.SMTP):
    """One connection, with TLS at once where that is given, which another thread can cut: smtplib bounds each read, but a server
    that says a byte now and then would hold its thread, and with it the end of the process, for ever."""

    def __init__(self, host: str, at_once: ssl.SSLContext | None) -> None:
        super().__init__(timeout=SECONDS)
        self._host, self._at_once = host, at_once  # the host is whose certificate STARTTLS asks for
        self._line: socket.socket | None = None
        self._over = False

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:  # smtplib's place for other sockets
        plain = socket.create_connection((host, port), timeout)
        self._line = plain.dup()  # TLS takes the other one
        if self._over:
            self.cut()
        return plain if self._at_once is None else self._at_once.wrap_socket(plain, server_hostname=host)

    def cut(self) -> None:
        """End it, whatever waits for what."""
        self._over, line = True, self._line
        if line is not None:
            with suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
            line.close()


def _text(words: bytes | str) -> str:
    return line_of(words.decode("utf-8", "replace") if isinstance(words, bytes) else words, 200)
