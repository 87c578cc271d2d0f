"""By e-mail: one plain letter a message, with a Message-ID that follows from it, so that a letter sent twice is known."""

from __future__ import annotations

import asyncio
import smtplib
import ssl
from collections.abc import Sequence
from email.message import EmailMessage
from email.utils import format_datetime, localtime
from typing import Final

from .message import Message
from .routes import SECONDS, Delayed, Undeliverable

__all__ = ["SCHEMES", "Mail"]

SCHEMES: Final = {"smtp": 587, "smtps": 465, "smtp+plain": 25}
"""Scheme -> its usual port: STARTTLS, without which nothing is sent; TLS at once; neither, for a relay on this machine."""


class Mail:
    """Letters by one SMTP server to the same people."""

    name = "email"

    def __init__(
        self, scheme: str, host: str, port: int, user: str, password: str, sender: str, to: Sequence[str], trusted: ssl.SSLContext
    ) -> None:
        self._scheme, self._host, self._port, self._user, self._password = scheme, host, port, user, password
        self._sender, self._to, self._trusted = sender, list(to), trusted
        self.place = f"{scheme}://{host}:{port} for {', '.join(to)}"

    async def send(self, message: Message) -> str:
        try:
            async with asyncio.timeout(6 * SECONDS):  # a letter is half a dozen answers; the thread ends by its own limits
                return await asyncio.to_thread(self._deliver, self.letter(message))
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
        except (smtplib.SMTPException, OSError) as error:
            raise Delayed(f"{self._host}:{self._port} does not answer: {str(error) or type(error).__name__}") from None

    def letter(self, message: Message) -> EmailMessage:
        """The message as a letter."""
        found = EmailMessage()
        found["Subject"], found["From"], found["To"] = message.title, self._sender, ", ".join(self._to)
        found["Date"], found["Message-ID"] = format_datetime(localtime()), f"<{message.id}@{self._sender.rpartition('@')[2]}>"
        found["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody's holiday reply
        found.set_content("\n".join([*message.lines, "", f"project {message.project}, times of the stream (UTC)"]) + "\n")
        return found

    def _deliver(self, letter: EmailMessage) -> str:
        if self._scheme == "smtps":
            client: smtplib.SMTP = smtplib.SMTP_SSL(self._host, self._port, timeout=SECONDS, context=self._trusted)
        else:
            client = smtplib.SMTP(self._host, self._port, timeout=SECONDS)
        with client:
            if self._scheme == "smtp":
                client.starttls(context=self._trusted)
            if self._user:
                client.login(self._user, self._password)
            refused = client.send_message(letter)
        return f"{self._host} took the letter" + (f", but not for {', '.join(refused)}" if refused else "")


def _text(words: bytes | str) -> str:
    return (words.decode("utf-8", "replace") if isinstance(words, bytes) else words)[:200]
