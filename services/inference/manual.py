"""The gateway's description as OpenAPI: what FastAPI says of its own routes, and what is answered ahead of it by `predict`,
`ingest` and `protocol`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from . import described
from .predictor import VARIANTS

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["describe"]

Json = dict[str, Any]

_TEXT: Final[Json] = {"type": "string"}
_NUMBER: Final[Json] = {"type": "number"}
_EVENT: Final[Json] = {"type": "object", "description": "An event: its JSON as on its topic."}
_ERROR: Final[Json] = {"type": "object", "required": ["error"], "properties": {"error": _TEXT, "status": {"type": "integer"}}}
_PREDICT: Final = """Answer one event, or each of a list (at most 1,000; 1 MiB). An answer leaves when its record is on the
predictions topic, or safe in a spill while Kafka is away. The same id asked again with the same content gets the first answer;
with another content 409 (remembered: the newest 10,000 ids of this process).

`features_status` says of each view that the model reads how it stands: fresh, stale (older than the view promises) or expired
(than its ttl), newer (windows end at the entity's newest event, which lies after this one), missing (nothing is known, or the
online store is away), rebuilding (the store has lost writes, and is not yet what it had been) or unpromised (the view promises
nothing). While no version is in charge there is no answer, but a 503."""
_PUBLISH: Final = """Publish one event or many (at most 1,000; 1 MiB) to its topic, keyed to the right partition. CloudEvents 1.0
in binary, structured or batched mode, or the bare JSON of an event or of a list. All are validated first: one that is none
refuses the whole with its index and reason, and nothing is published. 503 with Retry-After while Kafka does not keep up."""


def describe(app: FastAPI) -> None:
    """Have the application describe all that it answers."""
    own = app.openapi

    def whole() -> Json:
        said = own()
        said["paths"] |= _paths() | described.paths()
        schemas = {"Answer": _answer(), "Positions": _positions(), "CloudEvent": _cloudevent()}
        said.setdefault("components", {}).setdefault("schemas", {}).update(described.schemas() | schemas)
        return said

    app.openapi = whole  # type: ignore[method-assign]


def _record(required: Json, **optional: Json) -> Json:
    return {"type": "object", "required": list(required), "properties": {**required, **optional}}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _list(of: Json) -> Json:
    return {"type": "array", "items": of, "maxItems": 1000}


def _answer() -> Json:
    share = _record({"input": _TEXT, "value": {"type": ["number", "null"]}, "contribution": _NUMBER})
    return _record(
        {
            "id": _TEXT, "score": _NUMBER, "version": _TEXT, "variant": _TEXT,
            "scores": {"type": "object", "additionalProperties": _NUMBER},
            "features_status": {"type": "object", "additionalProperties": _TEXT},
            "trace": {"type": "string", "description": "Id of the trace, empty where there is none."},
        },
        explanation=_list(share),
    )  # fmt: skip


def _positions() -> Json:
    place = _record({"topic": _TEXT, "partition": {"type": "integer"}, "offset": {"type": "integer"}})
    return _record({"positions": _list(place)})


def _cloudevent() -> Json:
    text = {**_TEXT, "minLength": 1}
    return _record(
        {"specversion": {**_TEXT, "enum": ["1.0"]}, "id": text, "source": text, "type": text},
        time=_TEXT, datacontenttype=_TEXT, data=_EVENT, data_base64=_TEXT,
    )  # fmt: skip


def _paths() -> Json:
    one_or_many = {"oneOf": [_EVENT, _list(_EVENT)]}
    answers = {"oneOf": [_ref("Answer"), _list({"oneOf": [_ref("Answer"), _ERROR]})]}
    cloud = {
        "application/json": {"schema": one_or_many},
        "application/cloudevents+json": {"schema": _ref("CloudEvent")},
        "application/cloudevents-batch+json": {"schema": _list(_ref("CloudEvent"))},
    }
    options = [
        _parameter("query", "explain", {"type": "boolean"}, "Also what contributed most to the answer."),
        _parameter("query", "variant", {**_TEXT, "enum": list(VARIANTS)}, "What it would answer alone; for administrators."),
    ]
    predict = _operation("predict", "Answer events.", _PREDICT, {"application/json": {"schema": one_or_many}}, "200", answers)
    publish = _operation("publish", "Publish events.", _PUBLISH, cloud, "202", _ref("Positions"))
    return {
        "/predict/{model}": {"post": {**predict, "parameters": [_parameter("path", "model", _TEXT, "Its name."), *options]}},
        "/events/{event}": {"post": {**publish, "parameters": [_parameter("path", "event", _TEXT, "Its topic.")]}},
    }


def _parameter(place: str, name: str, schema: Json, said: str) -> Json:
    return {"name": name, "in": place, "required": place == "path", "schema": schema, "description": said}


def _operation(name: str, summary: str, said: str, body: Json, status: str, given: Json) -> Json:
    refused = "Refused, in one sentence: 400 bad input, 404 no such thing, 409 another content, 413 too large, 503 not now."
    return {
        "operationId": name,
        "summary": summary,
        "description": said,
        "tags": ["events"],
        "requestBody": {"required": True, "content": body},
        "responses": {
            status: {"description": "Done.", "content": {"application/json": {"schema": given}}},
            "default": {"description": refused, "content": {"application/json": {"schema": _ERROR}}},
        },
    }
