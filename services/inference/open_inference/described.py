"""The Open Inference Protocol v2 as OpenAPI says it: the paths that `protocol` answers, with what they take and give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from penstock.doors.described import secured

from .datatypes import DATATYPES

__all__ = ["document", "paths", "schemas"]

Json = dict[str, Any]

_TEXT: Final[Json] = {"type": "string"}
_FLAG: Final[Json] = {"type": "boolean"}
_COUNT: Final[Json] = {"type": "integer", "minimum": 0}
_PARAMETERS: Final[Json] = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}
_DATATYPE: Final[Json] = {"type": "string", "enum": list(DATATYPES)}
_SHAPE: Final[Json] = {"type": "array", "items": _COUNT}
_DATA: Final[Json] = {
    "type": "array",
    "description": "Row by row, flat or nested by the shape; null is NaN.",
    "items": {"type": ["number", "boolean", "string", "array", "null"]},
}


def _record(required: dict[str, Json], optional: dict[str, Json] | None = None) -> Json:
    return {"type": "object", "required": list(required), "properties": {**required, **(optional or {})}}


def _list(of: Json) -> Json:
    return {"type": "array", "items": of}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


_TENSOR: Final = _record(
    {"name": _TEXT, "datatype": _DATATYPE, "shape": {"type": "array", "items": {"type": "integer", "minimum": -1}}}
)
_INPUT: Final = _record({"name": _TEXT, "shape": _SHAPE, "datatype": _DATATYPE}, {"parameters": _PARAMETERS, "data": _DATA})
_WANTED: Final = _record({"name": _TEXT}, {"parameters": _PARAMETERS})


def schemas() -> Json:
    """The components that the paths refer to."""
    return {
        "InferRequest": _record({"inputs": _list(_INPUT)}, {"id": _TEXT, "parameters": _PARAMETERS, "outputs": _list(_WANTED)}),
        "InferAnswer": _record({"model_name": _TEXT, "outputs": _list(_INPUT)}, {"model_version": _TEXT, "id": _TEXT}),
        "ServerMetadata": _record({"name": _TEXT, "version": _TEXT, "extensions": _list(_TEXT)}),
        "ModelMetadata": _record(
            {"name": _TEXT, "versions": _list(_TEXT), "platform": _TEXT, "inputs": _list(_TENSOR), "outputs": _list(_TENSOR)},
            {"parameters": _PARAMETERS},
        ),
        "Statistics": _record({"model_stats": _list(_record({"name": _TEXT, "version": _TEXT, "inference_count": _COUNT}))}),
        "RepositoryEntry": _record({"name": _TEXT, "version": _TEXT, "state": _TEXT, "reason": _TEXT}),
    }


_ROW: Final[Json] = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [0.5, 1.0, 2.0]}
_SCORE: Final[Json] = {"name": "probabilities", "shape": [1, 2], "datatype": "FP32", "data": [0.8, 0.2]}
_INFER: Final[Json] = {"id": "1", "inputs": [_ROW]}
_ANSWER: Final[Json] = {"model_name": "late", "model_version": "3", "id": "1", "outputs": [_SCORE]}
_ABOUT: Final[Json] = {
    "name": "late", "versions": ["3"], "platform": "onnx_onnxv1",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}],
    "outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]}],
}  # fmt: skip
_COUNTED: Final[Json] = {"model_stats": [{"name": "late", "version": "3", "inference_count": 1200}]}
_READY: Final[Json] = {"name": "late", "ready": True}
EXAMPLES: Final[dict[str, Any]] = {
    "server_metadata": {"name": "penstock", "version": "2", "extensions": ["binary_tensor_data", "statistics"]},
    "server_live": {"live": True},
    "server_ready": {"ready": True, "live": True},
    "all_statistics": _COUNTED,
    "repository_index": [{"name": "late", "version": "3", "state": "READY", "reason": ""}],
    "repository_load": {},
    "repository_unload": {},
    **dict.fromkeys(("model_metadata", "version_metadata"), _ABOUT),
    **dict.fromkeys(("model_ready", "version_ready"), _READY),
    **dict.fromkeys(("model_statistics", "version_statistics"), _COUNTED),
    **dict.fromkeys(("infer", "version_infer"), _ANSWER),
    "healthz": {"live": True},
    "readyz": {"ready": True},
}
"""What each operation may answer."""


def paths(models: Sequence[str] = ()) -> Json:
    """Path -> operations; `models` are named where they are known and stay."""
    infer = {
        "requestBody": {"required": True, "content": {"application/json": {"schema": _ref("InferRequest"), "example": _INFER}}},
        "description": "Answer tensors. They have no event id that a label could answer; a project's gateway records its answers "
        "on <project>.inferences. Binary tensors: the header Inference-Header-Content-Length says where the JSON ends and the "
        "raw inputs begin.",
    }
    found = {
        "/v2": _get("server_metadata", "The server and its extensions.", _ref("ServerMetadata")),
        "/v2/health/live": _get("server_live", "The server answers.", _record({"live": _FLAG})),
        "/v2/health/ready": _get("server_ready", "All models can be asked; else 503.", _record({"ready": _FLAG, "live": _FLAG})),
        "/v2/models/stats": _get("all_statistics", "Counts and times of all models.", _ref("Statistics")),
    }
    for prefix, path in (("", "/v2/models/{model}"), ("version_", "/v2/models/{model}/versions/{version}")):
        found |= {
            path: _get(f"{prefix or 'model_'}metadata", "What it takes and gives.", _ref("ModelMetadata")),
            f"{path}/ready": _get(
                f"{prefix or 'model_'}ready", "It can be asked; else 503.", _record({"name": _TEXT, "ready": _FLAG})
            ),
            f"{path}/stats": _get(f"{prefix or 'model_'}statistics", "Counts and times.", _ref("Statistics")),
            f"{path}/infer": {"post": _operation(f"{prefix}infer", "Answer tensors.", _ref("InferAnswer")) | infer},
        }
    changed = {"requestBody": {"required": False, "content": {"application/json": {"schema": {"type": "object"}, "example": {}}}}}
    for path, call, said, given in (
        ("/v2/repository/index", "repository_index", "All there is, and its state.", _list(_ref("RepositoryEntry"))),
        ("/v2/repository/models/{model}/load", "repository_load", "Open it anew.", {"type": "object"}),
        ("/v2/repository/models/{model}/unload", "repository_unload", "Answer no more by it.", {"type": "object"}),
    ):
        found[path] = {"post": _operation(call, f"{said} For administrators.", given) | changed}
    kinds = {"model": {**_TEXT, "enum": list(models)}} if models else {}
    for path, operations in found.items():
        names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
        for operation in operations.values():
            if names:
                operation["parameters"] = [
                    {"name": n, "in": "path", "required": True, "schema": kinds.get(n, _TEXT)} for n in names
                ]
    return found


def document(title: str, version: str, models: Sequence[str]) -> Json:
    """The whole description, of a server that answers nothing else."""
    metrics = _operation("metrics", "Prometheus text format.", _TEXT)
    shown = {"text/plain": {"schema": _TEXT, "example": 'penstock_models_ready{model="late"} 1.0\n'}}
    metrics["responses"]["200"]["content"] = shown
    health = {
        "/healthz": _get("healthz", "The process answers.", _record({"live": _FLAG})),
        "/readyz": _get("readyz", "All models can be asked; else 503.", _record({"ready": _FLAG})),
        "/metrics": {"get": metrics},
    }
    for operation in (operation for operations in health.values() for operation in operations.values()):
        operation["tags"] = ["health"]
    return secured(
        {
            "openapi": "3.1.0",
            "info": {"title": title, "version": version},
            "paths": {**health, **paths(models)},
            "components": {"schemas": schemas()},
        }
    )


def _example(call: str) -> Json:
    return {"example": EXAMPLES[call]} if call in EXAMPLES else {}


def _get(call: str, said: str, given: Json) -> Json:
    return {"get": _operation(call, said, given)}


def _operation(call: str, said: str, given: Json) -> Json:
    error = _record({"error": _TEXT})
    return {
        "operationId": call,
        "summary": said,
        "tags": ["open inference protocol"],
        "responses": {
            "200": {"description": "Answered.", "content": {"application/json": {"schema": given, **_example(call)}}},
            "default": {
                "description": "Refused, in one sentence: 400 bad input, 404 no such thing, 413 too large, 503 not now.",
                "content": {"application/json": {"schema": error}},
            },
        },
    }
