"""API keys: shown once when they are made, kept as HMAC-SHA256 under a pepper, found by their public id.

    penstock_<id>_<secret>          id: 12 hex digits, public; secret: 256 random bits

Whoever reads the file of keys learns who may ask what, and no key: a digest cannot be turned back, and cannot be tried without
the pepper either, which is a setting, or a file of its own beside the keys. Both files are readable by their owner alone.
"""

from __future__ import annotations

import hmac
import os
import secrets
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import msgspec
import structlog

from ..errors import PenstockError, SettingError
from .scopes import RATE, SCOPES, Principal

__all__ = ["Key", "Keys", "pepper_of"]

PREFIX: Final = "penstock"
LONGEST_NAME: Final = 80
LOOK: Final = 1.0
"""Seconds between two looks at the file: a key that was revoked is refused after so long."""
_NOBODY: Final = bytes(32)


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a key."""

    id: str
    name: str
    """Whose it is, for people."""
    scopes: tuple[str, ...]
    digest: str
    """HMAC-SHA256 of the whole key under the pepper, in hex."""
    made: datetime
    rate: Annotated[str, msgspec.Meta(pattern=f"^({RATE})?$")] = ""


class _File(msgspec.Struct):
    keys: list[Key]


class Keys:
    """The file of keys. `create` and `revoke` change it at once and whole; a server asks `find`, which sees changes within LOOK.

    A file that is gone or broken holds no keys: nobody gets in by one until it is mended, and the log says so.
    """

    def __init__(self, path: Path, pepper: str) -> None:
        self.path, self._hmac = path, hmac.new(pepper.encode(), digestmod="sha256")
        self._known: dict[str, tuple[bytes, Principal]] = {}
        self._looked, self._seen = 0.0, (0, 0, 0)

    def all(self) -> list[Key]:
        """Every key. SettingError when the file is none of ours; none when there is no file."""
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=_File).keys
        except FileNotFoundError:
            return []
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise SettingError(f"the keys in {self.path} cannot be read: {error}", "mend the file, or name another") from None

    def create(self, name: str, scopes: Iterable[str], rate: str = "") -> tuple[Key, str]:
        """A new key, and the words that are shown once."""
        wanted = tuple(scope for scope in SCOPES if scope in set(scopes))
        if unknown := sorted(set(scopes) - set(SCOPES)):
            raise PenstockError(f"there is no scope {unknown[0]!r}", f"there are: {', '.join(SCOPES)}")
        if not name.isprintable() or not 0 < len(name.strip()) <= LONGEST_NAME:
            raise PenstockError(f"a key's name has 1 to {LONGEST_NAME} printable characters", "name whose it is:  reports")
        id_ = secrets.token_hex(6)
        words = f"{PREFIX}_{id_}_{secrets.token_urlsafe(32)}"
        made = datetime.now(UTC).replace(microsecond=0)
        key = Key(id=id_, name=name, scopes=wanted, digest=self._digest(words).hex(), made=made, rate=rate)
        self._write([*self.all(), key])
        return key, words

    def revoke(self, id_: str) -> Key:
        """Take a key away."""
        held = self.all()
        found = next((key for key in held if key.id == id_), None)
        if found is None:
            raise PenstockError(f"there is no key {id_!r} in {self.path}", "see which there are:  penstock keys list")
        self._write([key for key in held if key is not found])
        return found

    def find(self, words: str, now: float | None = None) -> Principal | None:
        """Whose key it is; None: nobody's. `now` is in seconds of the monotonic clock."""
        moment = time.monotonic() if now is None else now
        if not self._looked or moment - self._looked >= LOOK:
            self._look(moment)
        digest, principal = self._known.get(words[len(PREFIX) + 1 :].partition("_")[0], (_NOBODY, None))
        return principal if hmac.compare_digest(digest, self._digest(words)) else None

    def _digest(self, words: str) -> bytes:
        found = self._hmac.copy()  # half the time of a new one
        found.update(words.encode("utf-8", "surrogatepass"))
        return found.digest()

    def _look(self, moment: float) -> None:
        """Read the file again where it has changed."""
        self._looked = moment
        try:
            found = self.path.stat()
            seen = found.st_ino, found.st_mtime_ns, found.st_size
        except OSError:
            seen = (-1, 0, 0)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            if seen[0] == -1:
                raise SettingError(f"there are no keys in {self.path}", "")
            self._known = {k.id: (bytes.fromhex(k.digest), _principal(k)) for k in self.all()}
        except (SettingError, ValueError) as error:
            self._known = {}
            structlog.get_logger().error("nobody can use a key", cause=str(error))

    def _write(self, held: Sequence[Key]) -> None:
        """All keys in the place of those before, readable by their owner alone."""
        written = msgspec.json.format(msgspec.json.encode(_File(list(held)))) + b"\n"
        try:
            beside = self.path.with_name(f".{self.path.name}.{os.getpid()}")
            _private(beside, written)
            beside.replace(self.path)
        except OSError as error:
            raise PenstockError(f"{self.path} cannot be written: {error.strerror}", "name another place:  --keys FILE") from None


def pepper_of(path: Path, given: str, make: bool = False) -> str:
    """The pepper for keys in a file: the one that was given, else what the file beside them holds; `make` makes that one."""
    if given:
        return given
    beside = path.with_suffix(".pepper")
    try:
        if make and not beside.exists():
            _private(beside, secrets.token_hex(32).encode())
        return beside.read_text().strip()
    except FileNotFoundError:
        fix = "set PENSTOCK_HTTP_PEPPER as it was when the keys were made, or make keys:  penstock keys create NAME"
        raise SettingError(f"there is no pepper for the keys in {path}: {beside} does not exist", fix) from None
    except OSError as error:
        raise SettingError(f"the pepper {beside} cannot be used: {error.strerror}", "make it readable to this user") from None


def _private(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _principal(key: Key) -> Principal:
    return Principal(f"key:{key.id}", frozenset(key.scopes), key.rate)
