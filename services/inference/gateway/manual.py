"""The gateway's description as OpenAPI: what FastAPI says of its own routes, and what is answered ahead of it by `predict`,
`ingest` and `protocol`."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from penstock.contributions.explainer import LOG_ODDS, LOG_RATIO, NUMBER, PROBABILITY
from penstock.doors.described import secured
from penstock.event import Event
from penstock.project import Project

from ..open_inference import described
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
in binary, structured or batched mode, or the bare JSON of an event or of a list. The path says which event it is: a `type` of the
producer's own goes on as it came, and one that names another event of the project is refused. All are validated first: one
that is none refuses the whole with its index and reason, and nothing is published. 503 with Retry-After while Kafka does not
keep up."""

_FLAG: Final = """Say that an answer is wrong: reviewers look at it, and what they decide becomes a label. `says` is what would be
right. Who has a key speaks in its name; where none is asked for, `by` says who it is."""
_REVIEW: Final = """Say what is true of an answer that waits for reviewers (`penstock review list`). What does not count, such as
the word of who has flagged it, or a second one, is told on the topic of reviewed answers."""

_ENVELOPE: Final[Json] = {"specversion": "1.0", "id": "1", "source": "/example"}
_ANSWER: Final[Json] = {
    "id": "1", "score": 0.2, "version": "3", "variant": "champion", "scores": {"3": 0.2}, "features_status": {}, "trace": "",
}  # fmt: skip
_SAID: Final[Json] = {"prediction": "1", "says": False, "why": "paid in cash", "by": "ada"}
_HEARD: Final[Json] = {"prediction": "1", "model": "model", "by": "ada"}
_POSITIONS: Final[Json] = {"positions": [{"topic": "events", "partition": 0, "offset": 17}]}


def describe(app: FastAPI, project: Project) -> None:
    """Have the application describe all that it answers, with the project's own events as examples."""
    own = app.openapi

    def whole() -> Json:
        said = own()
        said["paths"] |= _paths(project) | described.paths([model.name for model in project.models])
        schemas = {"Answer": _answer(), "Positions": _positions(), "CloudEvent": _cloudevent()}
        said.setdefault("components", {}).setdefault("schemas", {}).update(described.schemas() | schemas)
        return secured(said)

    app.openapi = whole  # type: ignore[method-assign]


def _record(required: Json, **optional: Json) -> Json:
    return {"type": "object", "required": list(required), "properties": {**required, **optional}}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _list(of: Json) -> Json:
    return {"type": "array", "items": of, "maxItems": 1000}


def _answer() -> Json:
    share = _record({"input": _TEXT, "value": {"type": ["number", "null"]}, "contribution": _NUMBER}, error=_NUMBER)
    scale = {
        "scale": {**_TEXT, "enum": [LOG_ODDS, LOG_RATIO, PROBABILITY, NUMBER]},
        "base": _NUMBER,
        "total": _NUMBER,
        "probability": _NUMBER,
    }
    explanation = _record({"version": _TEXT, "kind": _TEXT, **scale, "contributions": _list(share)}, answer=_TEXT)
    return _record(
        {
            "id": _TEXT, "score": _NUMBER, "version": _TEXT, "variant": _TEXT,
            "scores": {"type": "object", "additionalProperties": _NUMBER},
            "features_status": {"type": "object", "additionalProperties": _TEXT},
            "trace": {"type": "string", "description": "Id of the trace, empty where there is none."},
        },
        explanation=explanation, also=_list(explanation), unexplained=_TEXT,
        weights={"type": "object", "additionalProperties": _NUMBER},
        answer={**_TEXT, "description": "The class, where the label is one of several; score is its probability."},
        probabilities={"type": "object", "additionalProperties": _NUMBER},
    )  # fmt: skip


def _positions() -> Json:
    place = _record({"topic": _TEXT, "partition": {"type": "integer"}, "offset": {"type": ["integer", "null"]}})
    return _record({"positions": _list(place)})


def _cloudevent() -> Json:
    text = {**_TEXT, "minLength": 1}
    return _record(
        {"specversion": {**_TEXT, "enum": ["1.0"]}, "id": text, "source": text, "type": text},
        time=_TEXT, datacontenttype=_TEXT, data=_EVENT, data_base64=_TEXT,
    )  # fmt: skip


def example(event: Event) -> Json:
    """An event as its JSON may look."""
    plain = {str: "{name}-1", int: 1, float: 0.5, bool: True, datetime: "2026-01-02T12:00:00Z"}
    found = {name: plain[column.type] for name, column in event.columns.items()}
    return {name: value.format(name=name) if isinstance(value, str) else value for name, value in found.items()}


def _paths(project: Project) -> Json:
    asked = {model.name: example(model.scores) for model in project.models}
    sent = {event.topic: example(event) for event in project.events}
    one_or_many = {"oneOf": [_EVENT, _list(_EVENT)]}
    answers = {"oneOf": [_ref("Answer"), _list({"oneOf": [_ref("Answer"), _ERROR]})]}
    wrapped = {name: {**_ENVELOPE, "type": f"{project.name}.{name}", "data": data} for name, data in sent.items()}
    cloud = {
        "application/json": {"schema": one_or_many, "examples": _named(sent)},
        "application/cloudevents+json": {"schema": _ref("CloudEvent"), "examples": _named(wrapped)},
        "application/cloudevents-batch+json": {
            "schema": _list(_ref("CloudEvent")),
            "examples": _named({name: [data] for name, data in wrapped.items()}),
        },
    }
    body = {"application/json": {"schema": one_or_many, "examples": _named(asked)}}
    options = [
        _parameter(
            "query", "explain", {"type": "boolean"}, "Also what contributed most to the answer: 501 where its version cannot say."
        ),
        _parameter("query", "variant", {**_TEXT, "enum": list(VARIANTS)}, "What it would answer alone; for administrators."),
    ]
    predict = _operation("predict", "Answer events.", _PREDICT, body, "200", answers, _ANSWER)
    publish = _operation("publish", "Publish events.", _PUBLISH, cloud, "202", _ref("Positions"), _POSITIONS)
    return _hearing(project) | {
        "/predict/{model}": {
            "post": {**predict, "parameters": [_parameter("path", "model", _one_of(asked), "Its name."), *options]}
        },
        "/events/{event}": {"post": {**publish, "parameters": [_parameter("path", "event", _one_of(sent), "Its topic.")]}},
    }


def _hearing(project: Project) -> Json:
    """What people may say of answers, where any are reviewed."""
    models = [model.name for model in project.models if model.review is not None]
    found = {}
    for name, path, summary, said in (
        ("flag", "/flags/{model}", "Say that an answer is wrong.", _FLAG),
        ("review", "/reviews/{model}", "Decide on an answer.", _REVIEW),
    ):
        whole = _record({"prediction": _TEXT}, says={"type": ["boolean", "null"]}, why=_TEXT, by=_TEXT)
        body = {"application/json": {"schema": whole, "examples": _named({name: _SAID})}}
        heard = _record({"prediction": _TEXT, "model": _TEXT, "by": _TEXT})
        operation = _operation(name, summary, said, body, "202", heard, _HEARD)
        found[path] = {"post": {**operation, "parameters": [_parameter("path", "model", _one_of(models), "Its name.")]}}
    return found if models else {}


def _parameter(place: str, name: str, schema: Json, said: str) -> Json:
    return {"name": name, "in": place, "required": place == "path", "schema": schema, "description": said}


def _one_of(names: Iterable[str]) -> Json:
    return {**_TEXT, "enum": found} if (found := list(names)) else _TEXT


def _named(examples: Json) -> Json:
    return {name: {"value": value} for name, value in examples.items()}


def _operation(name: str, summary: str, said: str, body: Json, status: str, given: Json, example: Json) -> Json:
    refused = "Refused, in one sentence: 400 bad input, 404 no such thing, 409 another content, 413 too large, 503 not now."
    return {
        "operationId": name,
        "summary": summary,
        "description": said,
        "tags": ["events"],
        "requestBody": {"required": True, "content": body},
        "responses": {
            status: {"description": "Done.", "content": {"application/json": {"schema": given, "example": example}}},
            "default": {"description": refused, "content": {"application/json": {"schema": _ERROR}}},
        },
    }
