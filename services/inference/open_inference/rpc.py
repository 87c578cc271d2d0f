"""The Open Inference Protocol v2 over gRPC: the calls of `protocol`, by the same models, batches and sentences. Needs `grpcio`.

ServerLive, ServerReady, ServerMetadata, ModelReady, ModelMetadata, ModelInfer, ModelStatistics
RepositoryIndex, RepositoryModelLoad, RepositoryModelUnload                                  for administrators

A refusal is a status code with the sentence that HTTP would give:

    INVALID_ARGUMENT 400   NOT_FOUND 404   PERMISSION_DENIED 403   RESOURCE_EXHAUSTED 413   UNAVAILABLE 503   INTERNAL 500

Raw inputs are answered with raw outputs, typed contents with typed contents (raw ones where an output is FP16, which has none).
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc
import msgspec
import numpy as np
from google.protobuf import json_format

from penstock.errors import PenstockError, Refused
from penstock.runtime.refusals import refusal

from .batching import Overloaded
from .datatypes import DATATYPES, Array, from_binary, to_binary
from .messages import CALLS, MESSAGES, SERVICE
from .protocol import OpenInference, Route, Version
from .tensors import Asked, Parameters, Signature, input_of, outputs_of, rows_of

__all__ = ["served"]

GRACE: Final = 5.0
"""Seconds that calls under way have when the process is to end."""
ENVELOPE: Final = 64 << 10
"""Bytes of a message beside its tensors."""
CONCURRENT: Final = 1_024
"""Calls at once; beyond it gRPC itself answers RESOURCE_EXHAUSTED."""

_CODES: Final = {
    403: grpc.StatusCode.PERMISSION_DENIED, 404: grpc.StatusCode.NOT_FOUND, 413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL, 501: grpc.StatusCode.UNIMPLEMENTED, 503: grpc.StatusCode.UNAVAILABLE,
}  # fmt: skip
_ROUTES: Final[dict[str, Callable[[Any], Route]]] = {
    "ServerLive": lambda _: Route("GET", "live"),
    "ServerReady": lambda _: Route("GET", "ready"),
    "ServerMetadata": lambda _: Route("GET", "server"),
    "ModelReady": lambda asked: Route("GET", "model_ready", asked.name, asked.version or None),
    "ModelMetadata": lambda asked: Route("GET", "metadata", asked.name, asked.version or None),
    "ModelStatistics": lambda asked: (
        Route("GET", "statistics", asked.name, asked.version or None) if asked.name else Route("GET", "all_statistics")
    ),
    "RepositoryIndex": lambda _: Route("POST", "index"),
    "RepositoryModelLoad": lambda asked: Route("POST", "load", asked.model_name),
    "RepositoryModelUnload": lambda asked: Route("POST", "unload", asked.model_name),
}
_CONTENTS: Final = {
    "BOOL": "bool_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip


async def served(protocol: OpenInference, host: str, port: int) -> tuple[Any, int]:
    """A server that has begun to answer, and its port (`port` 0 takes a free one). PenstockError where the port is taken.

    End it with `await server.stop(GRACE)`."""
    most = protocol.limits.body + ENVELOPE
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", most),
            ("grpc.max_send_message_length", -1),
            ("grpc.compression_enabled_algorithms_bitset", 1),  # none: a small message must not become a large one
            ("grpc.so_reuseport", 0),
        ],
        maximum_concurrent_rpcs=CONCURRENT,
    )
    calls = _Calls(protocol)
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(calls.of(name), asked.FromString, given.SerializeToString)
        for name, (asked, given) in CALLS.items()
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        taken = server.add_insecure_port(address)
    except RuntimeError:
        taken = 0
    if not taken:
        raise PenstockError(f"{address} cannot be listened on for gRPC", f"choose another: --grpc-port {port + 1}")
    await server.start()
    return server, taken


class _Calls:
    """Each call as gRPC asks it: a message and a context in, a message out."""

    def __init__(self, protocol: OpenInference) -> None:
        self._protocol = protocol

    def of(self, name: str) -> Callable[[Any, Any], Awaitable[Any]]:
        async def call(asked: Any, context: Any) -> Any:
            try:
                return await (self._infer(asked) if name == "ModelInfer" else self._other(name, asked))
            except Exception as error:
                failed = refusal(error)
            if failed.after is not None:
                context.set_trailing_metadata((("retry-after", str(failed.after)),))
            code = _CODES.get(failed.status, grpc.StatusCode.INVALID_ARGUMENT)
            return await context.abort(code, str(failed))

        return call

    async def _other(self, name: str, asked: Any) -> Any:
        if getattr(asked, "repository_name", ""):
            raise Refused("schema", f"there is no repository {asked.repository_name[:80]!r}; leave the name out")
        options: dict[str, Any] = {"ready": asked.ready} if name == "RepositoryIndex" else {}
        if len(getattr(asked, "parameters", ())):
            options["parameters"] = True
        _, value = await self._protocol.told(_ROUTES[name](asked), msgspec.json.encode(options))
        plain = msgspec.to_builtins(value)
        if name == "RepositoryIndex":
            plain = {"models": plain}
        return json_format.ParseDict(plain, CALLS[name][1](), ignore_unknown_fields=True)

    async def _infer(self, asked: Any) -> Any:
        began = time.perf_counter()
        version = await self._protocol.models.version(asked.model_name, asked.model_version or None)
        tally = version.tally
        try:
            request = _request(asked, version.signature)
            decoded = time.perf_counter()
            found = await self._protocol.ask(version, request, began)
            encoding = time.perf_counter()
            answer = _answer(asked, request, version, found)
        except Overloaded:
            tally.refused += 1
            raise
        except BaseException:
            tally.failed += 1
            tally.lost += time.perf_counter() - began
            raise
        tally.answered(began, decoded - began, encoding)
        return answer


def _request(asked: Any, signature: Signature) -> Asked:
    """The request for a model of this signature. Refused (schema, range) in one sentence."""
    raw = asked.raw_input_contents
    if raw and len(raw) != len(asked.inputs):
        raise Refused("schema", f"{len(raw)} raw_input_contents for {len(asked.inputs)} inputs: there is one for each, or none")
    feeds: dict[str, Array] = {}
    for at, given in enumerate(asked.inputs):
        shape = list(given.shape)
        input_of(given.name, given.datatype, shape, _plain(given.parameters), signature)
        if raw and given.HasField("contents"):
            raise Refused("schema", f"input {given.name!r} has both contents and raw_input_contents")
        data = raw[at] if raw else _raw(given, shape)
        feeds[given.name] = from_binary(given.name, given.datatype, shape, data)
    rows = rows_of([given.name for given in asked.inputs], feeds, signature)
    wanted = outputs_of([(output.name, _plain(output.parameters)) for output in asked.outputs], signature)
    return Asked(feeds, rows, wanted, frozenset(), asked.id or None)


def _raw(given: Any, shape: list[int]) -> bytes:
    """Typed contents as the bytes that they are."""
    name, field = given.name, _CONTENTS.get(given.datatype)
    if field is None:
        raise Refused("schema", f"input {name!r} is {given.datatype}, which gRPC has no contents for: send raw_input_contents")
    filled = [each.name for each, _ in given.contents.ListFields()]
    if any(each != field for each in filled):
        raise Refused("schema", f"input {name!r} is {given.datatype}: its contents are in {field}, not in {filled[0]}")
    values = getattr(given.contents, field)
    if given.datatype == "BYTES":
        return b"".join(part for text in values for part in (len(text).to_bytes(4, "little"), text))
    dtype = DATATYPES[given.datatype]
    wide = np.array(values, dtype if dtype.itemsize > 2 or dtype.kind == "b" else np.int64)
    if dtype.itemsize <= 2 and len(wide) and dtype.kind != "b":
        bounds = np.iinfo(dtype)
        if wide.min() < bounds.min or wide.max() > bounds.max:
            raise Refused("range", f"input {name!r} has a value that {given.datatype} cannot hold")
    return wide.astype(dtype.newbyteorder("<")).tobytes()


def _plain(parameters: Any) -> Parameters:
    """By name, each with the kind of its value: which there are is all that is asked."""
    return {each.key: each.value.WhichOneof("parameter_choice") or "" for each in parameters}


def _answer(asked: Any, request: Asked, version: Version, found: list[Array]) -> Any:
    datatypes = version.signature.datatypes
    raw = bool(asked.raw_input_contents) or any(datatypes[name] not in _CONTENTS for name in request.wanted)
    answer = MESSAGES["ModelInferResponse"](model_name=version.model, model_version=version.name, id=asked.id)
    for name, array in zip(request.wanted, found, strict=True):
        output = answer.outputs.add(name=name, datatype=datatypes[name], shape=array.shape)
        if raw:
            answer.raw_output_contents.append(to_binary(array))
        elif datatypes[name] == "BYTES":
            output.contents.bytes_contents.extend(str(value).encode() for value in array.ravel())
        else:
            getattr(output.contents, _CONTENTS[datatypes[name]]).extend(array.ravel().tolist())
    return answer
