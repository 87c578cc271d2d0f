"""What openapi.json says: stable names of operations, an example on each that its schema takes, and the scope it needs."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from penstock.artefact import Artefacts
from penstock.codec import EventDecoder
from penstock.doors.scopes import OPEN, needed
from penstock.log.memory import MemoryLog
from penstock.project import load
from penstock.runtime import documentation
from penstock.services.feature_store import api as features
from penstock.services.inference.gateway import api as gateway
from penstock.services.inference.gateway import manual
from penstock.services.inference.meters import Meters
from penstock.services.inference.open_inference.described import document
from penstock.services.inference.sessions import Sessions

PROTOCOL = {
    "server_metadata", "server_live", "server_ready", "all_statistics", "model_metadata", "model_ready", "model_statistics",
    "infer",
    "version_metadata", "version_ready", "version_statistics", "version_infer", "repository_index", "repository_load",
    "repository_unload",
}  # fmt: skip
HEALTH = {"healthz", "readyz", "metrics"}


def reviewed() -> dict[str, Any]:
    """The gateway's, of a project whose answers are reviewed."""
    from tests.services.clinic import clinic

    topics, meters = clinic(), Meters()
    look: Any = None  # it only describes itself
    return gateway.gateway(topics, MemoryLog(), Sessions(Artefacts(Path()), meters), meters, look).openapi()


DOCUMENTS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "gateway": (gateway.openapi(), {"predict", "publish"} | PROTOCOL | HEALTH),
    "feature store": (features.openapi(), {"read_features", "query_features", "generation"} | HEALTH),
    "reviewed": (reviewed(), {"predict", "publish", "flag", "review"} | PROTOCOL | HEALTH),
    "serve": (document("penstock serve", "2", ["late"]), PROTOCOL | HEALTH),
}
"""A client is generated from these names: they stay what they are."""


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


@pytest.mark.parametrize("name", DOCUMENTS)
def test_operations_keep_their_names(name: str) -> None:
    said, names = DOCUMENTS[name]
    found = [operation["operationId"] for _, _, operation in operations(said)]
    assert sorted(found) == sorted(names)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_operation_shows_an_example_of_what_it_takes_and_gives_as_its_schema_says(name: str) -> None:
    said, _ = DOCUMENTS[name]
    for _, path, operation in operations(said):
        answers = [answer for status, answer in operation["responses"].items() if status.startswith("2")]
        assert answers, path
        for content in (operation.get("requestBody", {}).get("content", {}), *(answer["content"] for answer in answers)):
            for kind, shown in content.items():
                if shown["schema"].get("format") == "binary":
                    continue
                examples = [shown["example"]] if "example" in shown else [e["value"] for e in shown.get("examples", {}).values()]
                assert examples, (operation["operationId"], kind)
                for example in examples:
                    Draft202012Validator({**shown["schema"], "components": said["components"]}).validate(example)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_operation_says_the_scope_that_the_door_asks_for(name: str) -> None:
    said, _ = DOCUMENTS[name]
    assert set(said["components"]["securitySchemes"]) == {"bearer", "key"}
    for method, path, operation in operations(said):
        need = needed(method, path)
        scopes = {scope for way in operation["security"] for named in way.values() for scope in named}
        assert scopes == ({"publish", "label"} if need == "publish" else set() if need == OPEN else {need}), path


def test_the_example_of_an_event_is_one() -> None:
    for event in load("penstock.examples.flights").events:
        EventDecoder(event).decode(json.dumps(manual.example(event)).encode(), 1.8e9)


def test_the_page_of_the_documents_is_what_its_makers_published() -> None:
    lines = (line.split() for line in (documentation.FOLDER / "README.md").read_text().splitlines() if line[:4] == "    ")
    pinned = {name: digest for digest, name in lines}
    packed = {path.name[:-3]: path for path in documentation.FOLDER.glob("*.gz")}
    assert set(pinned) == set(packed)
    for name, path in packed.items():
        assert hashlib.sha256(gzip.decompress(path.read_bytes())).hexdigest() == pinned[name]
    assert (documentation.FOLDER / "LICENSE").read_text().strip().startswith("Apache License")


def test_every_file_of_the_page_is_there_and_names_no_other_host() -> None:
    for path in documentation.NAMES:
        found = documentation.page(path)
        assert found is not None
        headers = dict(found.headers)
        assert b"http" not in headers[b"content-security-policy"]
        assert int(headers[b"content-length"]) == len(found.body)
    for name in ("index.html", "start.js"):
        assert "//" not in Path(documentation.FOLDER / name).read_text().replace("// else", "")
    assert documentation.page("/docs/../health.py") is None
