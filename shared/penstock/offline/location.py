"""Where the offline tables are: a folder, or a bucket of S3 or of anything that speaks it.

Credentials, region and endpoint of a bucket are the standard variables: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_SESSION_TOKEN, AWS_REGION, AWS_ENDPOINT_URL. A commit is one conditional PUT (If-None-Match), which S3 has had since 2024;
a store that ignores the condition would let two writers overwrite each other.
"""

from __future__ import annotations

import os
import re
from functools import cached_property
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from ..errors import SettingError, Unreachable

__all__ = ["Location", "spoken"]

REGION: Final = "us-east-1"
"""What servers other than Amazon's take for an answer when AWS_REGION is not set."""


class Location:
    """A folder or `s3://bucket/prefix`. `files` is a file system rooted there; `options` is what deltalake wants to know.

    >>> Location("s3://lake/cabs/").uri("rides")
    's3://lake/cabs/rides'
    >>> Location("gs://lake")
    Traceback (most recent call last):
        ...
    penstock.errors.SettingError: offline tables cannot be in gs://lake
    """

    def __init__(self, root: str | Path) -> None:
        text = str(root)
        scheme, found, rest = text.partition("://")
        self.remote = bool(found)
        if found and (scheme != "s3" or not rest.strip("/")):
            raise SettingError(f"offline tables cannot be in {text}", "set PENSTOCK_TABLES to a folder or s3://bucket/prefix")
        if found and not re.fullmatch(r"[\w.\-/]+", rest, re.ASCII):
            raise SettingError(f"offline tables cannot be in {text}", "use letters, digits and . _ - / in a bucket's prefix")
        self.root = text.rstrip("/") if found else str(Path(text).absolute())

    def __repr__(self) -> str:
        return self.root

    @property
    def endpoint(self) -> str:
        """The server of a bucket, where it is not Amazon's: a URL; else empty."""
        return _endpoint() if self.remote else ""

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the endpoint; ValueError where it is no URL."""
        parts = urlsplit(self.endpoint if "://" in self.endpoint else f"https://{self.endpoint}")
        if not parts.hostname:
            raise ValueError("AWS_ENDPOINT_URL is no URL")
        return parts.hostname, parts.port or (80 if parts.scheme == "http" else 443)

    def uri(self, name: str) -> str:
        """Where one table is."""
        return f"{self.root}/{name}"

    @property
    def options(self) -> dict[str, str]:
        """Storage options for deltalake, beside what it reads from the environment itself."""
        if not self.remote:
            return {}
        return {"aws_region": _region(), **({"allow_http": "true"} if _endpoint().startswith("http://") else {})}

    @cached_property
    def files(self) -> Any:
        """The `pyarrow.fs.FileSystem` rooted here."""
        from pyarrow import fs

        if not self.remote:
            return fs.SubTreeFileSystem(self.root, fs.LocalFileSystem())
        scheme, _, host = _endpoint().rpartition("://")
        there = fs.S3FileSystem(region=_region(), **({"scheme": scheme or "https", "endpoint_override": host} if host else {}))
        return fs.SubTreeFileSystem(self.root.removeprefix("s3://"), there)

    def folders(self, under: str = "") -> list[str]:
        """The names of the folders below one, sorted."""
        return sorted(found.base_name for found in self._listed(under) if found.type.name == "Directory")

    def listed(self, under: str, deep: bool = False) -> list[str]:
        """The paths of the files in a folder (`deep`: and in those below), sorted; none where it does not exist."""
        return sorted(found.path for found in self._listed(under, deep) if found.is_file)

    def read(self, path: str) -> bytes | None:
        """A whole file; None where there is none."""
        try:
            with self.files.open_input_stream(path) as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self.away(error) from error

    def delete(self, path: str) -> None:
        """Remove a file; nothing happens where it is gone already."""
        try:
            self.files.delete_file(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise self.away(error) from error

    def _listed(self, under: str, deep: bool = False) -> list[Any]:
        from pyarrow import fs

        try:
            return list(self.files.get_file_info(fs.FileSelector(under, allow_not_found=True, recursive=deep)))
        except OSError as error:
            raise self.away(error) from error

    def away(self, error: Exception) -> Unreachable:
        """What a storage error means to a person."""
        fix = "check AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and the bucket" if self.remote else f"look with:  ls -la {self.root}"
        return Unreachable(f"the offline tables in {self.root} cannot be read: {spoken(error)}", fix)


def spoken(error: Exception) -> str:
    """What the storage says, on one line: without the tree that it is drawn as, and cut where it repeats itself.

    >>> spoken(OSError("Generic error\\n  \\x1b[31m↳\\x1b[0m No space left on device"))
    'Generic error: No space left on device'
    """
    parts = (" ".join(part.split()) for part in re.split(r"(?:\x1b\[\d*m)*↳(?:\x1b\[\d*m)*", str(error)))
    return ": ".join(parts)[:300]


def _endpoint() -> str:
    return (os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "").rstrip("/")


def _region() -> str:
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or REGION
