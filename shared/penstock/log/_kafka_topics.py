"""Topic ids, which brokers give since Kafka 2.8 and aiokafka 0.14 does not ask for: one request, spoken with its types.

Metadata request and response version 12 as in Kafka's `MetadataRequest.json` and `MetadataResponse.json`.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from io import BytesIO
from typing import Any, ClassVar

from aiokafka.errors import UnknownTopicOrPartitionError, for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import AbstractType, Boolean, CompactArray, CompactString, Int16, Int32, Schema, TaggedFields

from . import LogError

__all__ = ["MetadataRequest", "ids_of"]

_NOBODY = bytes(16)
"""The id of a request by name, and of a topic that a broker without ids tells of."""


class _Uuid(AbstractType[bytes]):  # type: ignore[misc]  # untyped for mypy
    @classmethod
    def encode(cls, value: bytes) -> bytes:
        return value

    @classmethod
    def decode(cls, data: BytesIO) -> bytes:
        return data.read(16)


class _Answer(Response):  # type: ignore[misc]  # untyped for mypy
    API_KEY = 3
    API_VERSION = 12
    SCHEMA: ClassVar[Any] = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32), ("host", CompactString()), ("port", Int32), ("rack", CompactString()), ("tags", TaggedFields)
            ),
        ),
        ("cluster_id", CompactString()),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", CompactString()),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("number", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("in_sync", CompactArray(Int32)),
                        ("offline", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _Question(RequestStruct):  # type: ignore[misc]  # untyped for mypy
    API_KEY = 3
    API_VERSION = 12
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _Answer
    SCHEMA: ClassVar[Any] = Schema(
        ("topics", CompactArray(("topic_id", _Uuid), ("name", CompactString()), ("tags", TaggedFields))),
        ("create", Boolean),
        ("operations", Boolean),
        ("tags", TaggedFields),
    )


class MetadataRequest(Request[_Question]):  # type: ignore[misc]  # untyped for mypy
    """Asks about topics by name; never creates one."""

    API_KEY = 3

    def __init__(self, topics: Sequence[str]) -> None:
        self._topics = topics

    def build(self, request_struct_class: type[_Question]) -> _Question:
        return request_struct_class([(_NOBODY, name, {}) for name in self._topics], False, False, {})


def ids_of(answer: Any) -> dict[str, str]:
    """Topic name -> id, written as Kafka's tools write it; LogError where one has none."""
    found = {}
    for code, name, raw, *_ in answer.topics:
        if code == UnknownTopicOrPartitionError.errno:
            raise LogError(f"topic {name} does not exist; create it with: penstock topics apply")
        if code:
            raise LogError(f"topic {name}: Kafka says {for_code(code).__name__}; look with: penstock topics list")
        if raw == _NOBODY:
            raise LogError(f"topic {name} has no id: the brokers are older than Kafka 2.8; look with: penstock doctor")
        found[name] = base64.urlsafe_b64encode(raw).decode().rstrip("=")
    return found
