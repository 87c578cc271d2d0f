"""Artefacts: models as files, named by what is in them, and opened only when they are what the record says.

    store = Artefacts(Path("artefacts"))
    artefact = store.put(data, "onnx")         # -> records.Artefact, what travels over topics
    store.get(artefact)                        # -> the same bytes, or PenstockError in words

Two formats are models. `onnx` cannot run code when it is loaded; a file that points to further files (external data) is
refused. `river` is a pickle, which can, and has a module of its own that decides what is built (`snapshot`).
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import PenstockError, Unreachable
from .records import Artefact
from .signing import PublicKeys, SigningKey

if TYPE_CHECKING:
    from .settings import Settings

__all__ = ["Artefacts", "inspected"]

_FORMAT = re.compile(r"[a-z][a-z0-9]{0,15}")


class Artefacts:
    """A folder of files by digest. Several processes may use it at once: a file appears whole or not at all.

    >>> store = Artefacts(Path(tempfile.mkdtemp()))
    >>> artefact = store.put(b"bytes", "png")
    >>> store.put(b"bytes", "png") == artefact, store.get(artefact)
    (True, b'bytes')
    """

    def __init__(self, root: Path, signing: SigningKey | None = None, trusted: PublicKeys | None = None) -> None:
        self.root, self.signing, self.trusted = root, signing, trusted

    @classmethod
    def of(cls, settings: Settings) -> Artefacts:
        """Those of a data folder: signed, and refused unsigned, as the settings say. SettingError where a key cannot be read."""
        return cls(
            settings.data / "models",
            SigningKey(Path(settings.signing_key)) if settings.signing_key else None,
            PublicKeys.read(Path(settings.public_keys)) if settings.public_keys else None,
        )

    def put(self, data: bytes, format: str) -> Artefact:  # noqa: A002  (the field's name)
        """Keep bytes and say how to find them. The same bytes give the same artefact; repeats write nothing."""
        if not _FORMAT.fullmatch(format):
            raise PenstockError(f"{format!r} is not a format", 'write lower-case letters and digits, such as "onnx"')
        inspected(data, format)
        digest = hashlib.sha256(data).hexdigest()
        signature = self.signing.sign(digest, len(data), format) if self.signing is not None else ""
        uri = f"{digest[:2]}/{digest}.{format}"
        artefact = Artefact(uri=uri, sha256=digest, size=len(data), format=format, signature=signature)
        path = self.root / artefact.uri
        if not (path.is_file() and path.read_bytes() == data):
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(file.name).replace(path)
        return artefact

    def get(self, artefact: Artefact) -> bytes:
        """The bytes, verified: signature (where keys are `trusted`), size and digest.

        Unreachable when there is no such file (it may yet come), PenstockError when it is not what the record says; in
        both cases a caller goes on with what it has."""
        if self.trusted is not None:
            self.trusted.check(artefact)
        said = f"artefact {artefact.uri[:200]}"
        path = (self.root / artefact.uri).resolve()
        if not path.is_relative_to(self.root.resolve()):
            raise PenstockError(f"{said} lies outside {self.root}", "artefacts are addressed relative to their folder")
        try:
            size = path.stat().st_size
            data = path.read_bytes() if size == artefact.size else b""
        except OSError as error:
            cause = error.strerror or error
            raise Unreachable(f"{said} cannot be read: {cause}", f"does the trainer write to {self.root}?") from None
        if size != artefact.size:
            raise PenstockError(f"{said} has {size} bytes, not {artefact.size} as registered: not opened", _AGAIN)
        digest = hashlib.sha256(data).hexdigest()
        if digest != artefact.sha256:
            known = artefact.sha256[:12]
            raise PenstockError(f"{said} has sha256 {digest[:12]}, not {known} as registered: not opened", _AGAIN)
        return inspected(data, artefact.format)


_AGAIN = "restore the file, or register the version again"


def inspected(data: bytes, format: str) -> bytes:  # noqa: A002  (the field's name)
    """The same bytes; PenstockError when they point to others, which no digest covers."""
    try:
        elsewhere = format == "onnx" and b"location" in data and any(_external(data, "Model"))
    except RecursionError:
        raise PenstockError("the ONNX model has graphs in graphs without end: not opened", "convert it again") from None
    if elsewhere:
        raise PenstockError(
            "the ONNX model keeps tensors in other files (external data), which no digest covers", "save it as one file"
        )
    return data


# --- ONNX: looking for external data ----------------------------------------------------------------------------------

_INSIDE: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "Sparse"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "Sparse", 23: "Sparse"},
    "Sparse": {1: "Tensor", 2: "Tensor"},
    "Tensor": {},
}
"""The fields of onnx.proto through which a TensorProto can be reached."""


def _external(data: bytes, message: str) -> Iterator[bool]:
    """True for each tensor with external data (onnx.proto: TensorProto.external_data 13, data_location 14)."""
    inside = _INSIDE[message]
    for field, value in _fields(data):
        if message == "Tensor" and (field == 13 or (field == 14 and value != 0)):
            yield True
        elif field in inside and isinstance(value, bytes):
            yield from _external(value, inside[field])


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of one protobuf message (wire types 0, 1, 2, 5)."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield tag >> 3, value
            continue
        if kind == 2:
            size, at = _varint(data, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise PenstockError("the ONNX model is not a protobuf message", "convert it again")
        if at + size > len(data):
            raise PenstockError("the ONNX model is truncated", "convert it again")
        yield tag >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise PenstockError("the ONNX model is truncated", "convert it again")
