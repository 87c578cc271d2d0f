"""Signatures of artefacts: who may make models, where a digest says only that a file is the one that was registered.

Ed25519 (RFC 8032). The trainer signs with a private key; whoever loads models holds public keys, and refuses what none of them
signed. It covers the file: which version serves, on which inputs, is said by whoever may write to the models topic. Keys are PEM
files and never travel with an artefact:

    openssl genpkey -algorithm ed25519 -out signing.pem
    openssl pkey -in signing.pem -pubout -out public.pem

A file of public keys may hold several, so that a key can be replaced: first add the new one everywhere, then sign with it.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .errors import PenstockError, SettingError

if TYPE_CHECKING:
    from .records import Artefact

__all__ = ["PublicKeys", "SigningKey", "message"]

DOMAIN: Final = b"penstock.artefact.v1"
"""What is signed begins with it, so that a signature of anything else made with the key means nothing here."""
_END: Final = b"-----END PUBLIC KEY-----"


def message(sha256: str, size: int, format: str) -> bytes:  # noqa: A002  (the field's name)
    """What is signed: the digest of the bytes, how many they are, and as what they are opened.

    >>> message("ab" * 32, 7, "onnx")[-8:]
    b'\\n7\\nonnx\\n'
    """
    return b"\n".join([DOMAIN, sha256.encode(), str(size).encode(), format.encode(), b""])


class SigningKey:
    """A private key, read from a PEM file without a password. SettingError where it is none."""

    def __init__(self, path: Path) -> None:
        serialization, ed25519 = _library()
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), None)
        except (OSError, ValueError, TypeError) as error:
            raise SettingError(f"PENSTOCK_SIGNING_KEY: {path} cannot be read: {_short(error)}", _MAKE) from None
        if not isinstance(key, ed25519.Ed25519PrivateKey):
            raise SettingError(f"PENSTOCK_SIGNING_KEY: {path} is no Ed25519 key", _MAKE)
        self._key: Any = key

    def sign(self, sha256: str, size: int, format: str) -> str:  # noqa: A002  (the field's name)
        """The signature, base64. The same bytes give the same."""
        return base64.b64encode(self._key.sign(message(sha256, size, format))).decode()


@dataclass(frozen=True)
class PublicKeys:
    """Raw public keys, 32 bytes each; can be sent to another process."""

    keys: tuple[bytes, ...]

    @classmethod
    def read(cls, path: Path) -> PublicKeys:
        """The keys of a PEM file. SettingError where it has none, or another kind."""
        serialization, ed25519 = _library()
        found = []
        try:
            *parts, _ = path.read_bytes().split(_END)
            for part in parts:
                key = serialization.load_pem_public_key(part + _END + b"\n")
                if not isinstance(key, ed25519.Ed25519PublicKey):
                    raise SettingError(f"PENSTOCK_PUBLIC_KEYS: {path} has a key that is not Ed25519", _MAKE)
                found.append(key.public_bytes_raw())
        except (OSError, ValueError) as error:
            raise SettingError(f"PENSTOCK_PUBLIC_KEYS: {path} cannot be read: {_short(error)}", _MAKE) from None
        if not found:
            raise SettingError(f"PENSTOCK_PUBLIC_KEYS: {path} has no public key", _MAKE)
        return cls(tuple(found))

    def check(self, artefact: Artefact) -> None:
        """PenstockError where none of the keys signed it."""
        from cryptography.exceptions import InvalidSignature

        _, ed25519 = _library()
        said = f"artefact {artefact.uri[:200]}"
        if not artefact.signature:
            raise PenstockError(
                f"{said} is not signed: not opened", "set PENSTOCK_SIGNING_KEY where the trainer runs, and retrain"
            )
        try:
            signature = base64.b64decode(artefact.signature, validate=True)
        except ValueError:
            signature = b""
        for key in self.keys:
            try:
                found = ed25519.Ed25519PublicKey.from_public_bytes(key)
                found.verify(signature, message(artefact.sha256, artefact.size, artefact.format))
            except InvalidSignature:
                continue
            return
        raise PenstockError(
            f"{said} is signed by none of the {len(self.keys)} keys of PENSTOCK_PUBLIC_KEYS: not opened",
            "find out who made it; a key that was replaced stays in the file as long as its models are served",
        )


_MAKE: Final = "openssl genpkey -algorithm ed25519 -out signing.pem; openssl pkey -in signing.pem -pubout -out public.pem"


def _library() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise SettingError(
            "signatures need the package cryptography, which is not installed", 'pip install "penstock[signing]"'
        ) from None
    return serialization, ed25519


def _short(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error).partition("\n")[0] or type(error).__name__)[:120]
