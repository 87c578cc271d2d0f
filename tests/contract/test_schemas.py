"""The committed contracts: what the code says, what AsyncAPI allows, and what may not change within a version."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator, Draft202012Validator  # type: ignore[import-untyped]
from tests.services.clinic import clinic
from typer.testing import CliRunner

from penstock import records
from penstock.artefact import Artefacts
from penstock.cli import app
from penstock.event import Event
from penstock.project import load
from penstock.records import Flag, Queued, Review, Reviewed
from penstock.schemas import breaks, contract_schema, files, schema_name
from penstock.schemas import yaml as to_yaml
from penstock.settings import Settings
from penstock.topics import Contract, Topics

ROOT = Path(__file__).parents[2]
SCHEMAS = ROOT / "schemas"
GOLDEN = Path(__file__).parent / "golden"
TOPICS = Topics(load("penstock.examples.flights"), Settings.model_fields["partitions"].default)
CONTRACTS = [c for c in TOPICS.contracts() if c.record is not None]
OURS = [c for c in CONTRACTS if not isinstance(c.record, Event)]
ASYNCAPI: dict[str, Any] = yaml.safe_load((SCHEMAS / "asyncapi.yaml").read_text(encoding="utf-8"))


REVIEWS = [c for c in clinic().contracts() if c.record in (Flag, Queued, Review, Reviewed)]
"""The example has none of these."""


def _name(contract: Contract) -> str:
    return contract.topic.name


def _golden(contract: Contract) -> bytes:
    assert isinstance(contract.record, type)
    return (GOLDEN / f"{contract.record.__name__.lower()}.v1.json").read_bytes()


def test_the_committed_files_are_what_the_code_says() -> None:
    said = CliRunner().invoke(app, ["schemas", "check", "--to", str(SCHEMAS), "--project", "penstock.examples.flights"])
    assert said.exit_code == 0, said.output


@pytest.mark.parametrize("contract", [*OURS, *REVIEWS], ids=_name)
def test_every_record_has_a_golden_message_that_decodes_and_encodes_unchanged(contract: Contract) -> None:
    assert isinstance(contract.record, type)
    old = _golden(contract)
    decoded = msgspec.json.decode(old, type=contract.record)
    again = json.loads(msgspec.json.encode(decoded))
    kept = json.loads(old)
    assert {name: again[name] for name in kept} == kept  # a field that was removed would be missing here


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.*.v1.json")), ids=lambda path: path.name)
def test_golden_messages_of_one_kind_more_decode_encode_unchanged_and_fit(path: Path) -> None:
    named = path.name.partition(".")[0]
    contract = next(c for c in [*OURS, *REVIEWS] if isinstance(c.record, type) and c.record.__name__.lower() == named)
    kept = json.loads(path.read_bytes())
    assert isinstance(contract.record, type)
    again = json.loads(msgspec.json.encode(msgspec.json.decode(path.read_bytes(), type=contract.record)))
    assert {name: again[name] for name in kept} == kept
    assert [error.message for error in Draft202012Validator(contract_schema(contract)).iter_errors(kept)] == []


def test_every_field_of_every_record_is_in_some_golden_message() -> None:
    kinds: dict[str, Any] = {name.lower(): getattr(records, name) for name in records.__all__}
    found = {"Described.correlation"}  # of profiles of tables; a day of events has no label

    def look(value: Any, message: Any) -> None:
        if isinstance(value, msgspec.Struct):
            for name in value.__struct_fields__:
                if message.get(name) not in (None, "", [], {}):
                    found.add(f"{type(value).__name__}.{name}")
                    look(getattr(value, name), message[name])
        elif isinstance(value, dict):
            for key, inner in value.items():
                look(inner, message[str(key)])
        elif isinstance(value, list):
            for inner, said in zip(value, message, strict=True):
                look(inner, said)

    for path in GOLDEN.glob("*.json"):
        look(msgspec.json.decode(path.read_bytes(), type=kinds[path.name.partition(".")[0]]), json.loads(path.read_bytes()))
    fields = {f"{kind.__name__}.{name}" for kind in kinds.values() for name in kind.__struct_fields__}
    assert fields - found == set()


@pytest.mark.parametrize("contract", OURS, ids=_name)
def test_a_golden_message_fits_its_committed_schema(contract: Contract) -> None:
    schema = json.loads((SCHEMAS / str(schema_name(TOPICS, contract))).read_text(encoding="utf-8"))
    checker = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    assert [error.message for error in checker.iter_errors(json.loads(_golden(contract)))] == []


@pytest.mark.parametrize("contract", CONTRACTS, ids=_name)
def test_every_schema_is_a_json_schema_with_a_description(contract: Contract) -> None:
    schema = contract_schema(contract)
    Draft202012Validator.check_schema(schema)
    main = schema["$defs"][schema["$ref"].removeprefix("#/$defs/")]
    assert main["title"]
    assert isinstance(contract.record, Event) or main["description"]


@pytest.mark.parametrize("contract", REVIEWS, ids=_name)
def test_a_golden_message_of_what_the_example_has_not_fits_the_schema_that_others_export(contract: Contract) -> None:
    schema = contract_schema(contract)
    Draft202012Validator.check_schema(schema)
    assert [error.message for error in Draft202012Validator(schema).iter_errors(json.loads(_golden(contract)))] == []


def test_times_are_known_as_times_and_fields_explain_themselves() -> None:
    schema = contract_schema(next(c for c in CONTRACTS if _name(c) == "flights.predictions.late"))
    fields = schema["$defs"]["Prediction"]["properties"]
    assert fields["time"]["format"] == "date-time"
    assert fields["latency"]["description"] == "Seconds from reading the row to the answer."


def test_an_event_s_schema_says_which_field_is_key_id_and_time() -> None:
    schema = contract_schema(next(c for c in CONTRACTS if _name(c) == "arrived"))
    fields = schema["$defs"]["Arrived"]["properties"]
    assert list(fields)[:2] == ["flight_id", "origin"]
    assert "key" in fields["flight_id"]["description"]
    assert fields["arrived_at"] == {"description": "When it happened.", "type": "string", "format": "date-time"}
    assert "aircraft" not in schema["$defs"]["Arrived"]["required"]


# -- AsyncAPI ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def specification() -> Draft7Validator:
    """The AsyncAPI initiative's own schema of 3.0.0, bindings included (see asyncapi-3.0.0.NOTICE)."""
    return Draft7Validator(json.loads((Path(__file__).parent / "asyncapi-3.0.0.json").read_text(encoding="utf-8")))


def test_asyncapi_is_valid(specification: Draft7Validator) -> None:
    assert [error.message for error in specification.iter_errors(ASYNCAPI)] == []


@pytest.mark.parametrize(
    ("place", "wrong"), [("partitions", "six"), ("replicas", 0), ("topicConfiguration", {"retention.ms": "long"})]
)
def test_the_validation_sees_a_wrong_kafka_binding(specification: Draft7Validator, place: str, wrong: object) -> None:
    broken = copy.deepcopy(ASYNCAPI)
    broken["channels"]["scheduled"]["bindings"]["kafka"][place] = wrong
    assert list(specification.iter_errors(broken))


def test_asyncapi_has_every_topic_with_its_partitions_compaction_and_largest_record() -> None:
    found = {
        name: (
            channel["bindings"]["kafka"]["partitions"],
            channel["bindings"]["kafka"]["topicConfiguration"]["cleanup.policy"] == ["compact"],
            channel["bindings"]["kafka"]["topicConfiguration"]["max.message.bytes"],
        )
        for name, channel in ASYNCAPI["channels"].items()
    }
    assert found == {t.name: (t.partitions, t.compacted, t.max_bytes) for t in TOPICS.all()}


def test_every_reference_of_asyncapi_leads_somewhere() -> None:
    def references(node: Any) -> list[str]:
        if isinstance(node, dict):
            return [node["$ref"]] if "$ref" in node else [r for value in node.values() for r in references(value)]
        return [r for value in node for r in references(value)] if isinstance(node, list) else []

    for reference in references(ASYNCAPI):
        if reference.startswith("#/"):
            node = ASYNCAPI
            for part in reference[2:].split("/"):
                node = node[part]
        else:
            assert (SCHEMAS / reference).is_file(), reference


def test_lag_is_that_of_the_groups_which_services_really_join() -> None:
    from penstock.log.memory import MemoryLog
    from penstock.services.registry.service import Registry
    from penstock.services.trainer.service import Trainer

    controls = {"trainer": Trainer(TOPICS, MemoryLog(), Artefacts(Path())), "registry": Registry(TOPICS)}
    found, contracts = TOPICS.groups(), TOPICS.contracts()
    for name, control in controls.items():
        assert set(found[f"{TOPICS.prefix}.{name}"]) == set(control.reads), f"what {name} commits positions of"
        assert {*control.reads, *control.follows} <= {c.topic.name for c in contracts if name in c.reads}


def test_asyncapi_names_the_groups_that_the_data_services_really_join(tmp_path: Path) -> None:
    from penstock.log.memory import MemoryLog
    from penstock.runtime.lane import Lane
    from penstock.services.feature_store import quality
    from penstock.services.feature_store import service as feature_store
    from penstock.services.feature_store.archive import Archive
    from penstock.services.inference import service as inference
    from penstock.services.inference.meters import Meters
    from penstock.services.inference.sessions import Sessions
    from penstock.services.monitoring import service as monitoring
    from penstock.store.memory import MemoryStore

    log, store, meters = MemoryLog(), MemoryStore(), Meters()
    lanes: dict[str, list[Lane]] = {
        "feature_store": feature_store.lanes(TOPICS, log, store),
        "inference": inference.lanes(TOPICS, log, store, Sessions(Artefacts(tmp_path), meters), meters),
        "monitoring": monitoring.lanes(TOPICS.project, TOPICS, log, store),
    }
    joined = {(service, lane._group, topic) for service, own in lanes.items() for lane in own for topic in lane._shared}
    said = {
        (name.partition(".")[0], group["const"], operation["channel"]["$ref"].removeprefix("#/channels/"))
        for name, operation in ASYNCAPI["operations"].items()
        if operation["action"] == "receive" and (group := operation["bindings"]["kafka"].get("groupId"))
    }
    assert {found for found in said if found[0] in lanes} == joined
    archived = {topic for whole in (False, True) for topic in Archive(TOPICS, log, tmp_path, whole=whole).reads}
    apart = {topic for lane in quality.lanes(TOPICS, log, store) for topic in (*lane._shared, *lane._follows)}
    for service, own in lanes.items():
        read = {topic for lane in own for topic in (*lane._shared, *lane._follows)}
        contracts = {c.topic.name for c in TOPICS.contracts() if service in c.reads}
        beside = {"feature_store": apart | archived, "monitoring": {TOPICS.notices}}.get(service, set())
        assert contracts == read | beside, f"what {service} reads"


def test_the_yaml_that_we_write_is_read_back_as_it_was() -> None:
    from penstock.schemas import asyncapi

    document = asyncapi(TOPICS)
    assert yaml.safe_load(to_yaml(document)) == document


_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="ascii", exclude_categories=["Cc"]))
)
_NAMES = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1)


@settings(suppress_health_check=[HealthCheck.too_slow])  # the first text of all waits for a table of all characters
@example(1e-9)
@given(st.recursive(_SCALARS, lambda inner: st.lists(inner) | st.dictionaries(_NAMES, inner), max_leaves=12))
def test_any_document_survives_our_yaml(document: Any) -> None:
    assert yaml.safe_load(to_yaml(document)) == document


# -- compatibility -----------------------------------------------------------------------------------------------------


def _object(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"$ref": "#/$defs/R", "$defs": {"R": {"type": "object", "properties": properties, "required": required}}}


TEXT, NUMBER = {"type": "string"}, {"type": "number"}
MAYBE = {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}
TIME = {"type": "string", "format": "date-time"}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (_object({"a": TEXT}, ["a"]), _object({"a": TEXT, "b": MAYBE}, ["a"]), []),
        (_object({"a": TEXT, "b": TEXT}, ["a"]), _object({"b": {**TEXT, "description": "new words"}, "a": TEXT}, ["a"]), []),
        (_object({"a": TEXT, "b": TEXT}, ["a"]), _object({"a": TEXT}, ["a"]), ["b: was removed"]),
        (_object({"a": TEXT}, ["a"]), _object({"a": NUMBER}, ["a"]), ["a: was string, is number"]),
        (_object({"a": TEXT}, ["a"]), _object({"a": MAYBE}, ["a"]), ["a: was string, is null or string"]),
        (_object({"a": TIME}, ["a"]), _object({"a": TEXT}, ["a"]), ["a: was string (date-time), is string"]),
        (_object({"a": TEXT}, ["a"]), _object({"a": TEXT, "b": TEXT}, ["a", "b"]), ["b: is newly required"]),
        (_object({"a": TEXT}, []), _object({"a": TEXT}, ["a"]), ["a: is newly required"]),
        (_object({"a": TEXT}, ["a"]), _object({"a": TEXT}, []), ["a: is no longer always there"]),
        (_object({"a": {}}, ["a"]), _object({"a": TEXT}, ["a"]), ["a: was anything, is string"]),
        (
            _object({"a": {"type": "array", "items": NUMBER}}, ["a"]),
            _object({"a": {"type": "array", "items": TEXT}}, ["a"]),
            ["a[]: was number, is string"],
        ),
        (
            _object({"a": {"type": "object", "additionalProperties": NUMBER}}, ["a"]),
            _object({"a": {"type": "object", "additionalProperties": TEXT}}, ["a"]),
            ["a{}: was number, is string"],
        ),
        (
            _object({"a": {**TEXT, "maxLength": 9}}, ["a"]),
            _object({"a": {**TEXT, "maxLength": 8}}, ["a"]),
            ["a: maxLength is 8, was 9"],
        ),
        (_object({"a": {**TEXT, "maxLength": 8}}, ["a"]), _object({"a": {**TEXT, "maxLength": 9}}, ["a"]), []),
    ],
)
def test_what_a_change_breaks(old: dict[str, Any], new: dict[str, Any], said: list[str]) -> None:
    assert breaks(old, new) == said


@pytest.mark.parametrize("contract", CONTRACTS, ids=_name)
def test_for_every_field_of_every_record_removing_retyping_and_requiring_is_a_break(contract: Contract) -> None:
    old = contract_schema(contract)
    assert breaks(old, old) == []
    for record in old["$defs"]:
        for field in old["$defs"][record]["properties"]:
            for change in (_removed, _retyped):
                new = copy.deepcopy(old)
                change(new["$defs"][record], field)
                assert any(field in words for words in breaks(old, new)), (record, field, change.__name__)
        new = copy.deepcopy(old)
        new["$defs"][record]["properties"]["newcomer"] = MAYBE
        assert breaks(old, new) == []
        new["$defs"][record]["required"] = [*new["$defs"][record]["required"], "newcomer"]
        assert any("newcomer: is newly required" in words for words in breaks(old, new))


def _removed(definition: dict[str, Any], field: str) -> None:
    del definition["properties"][field]
    definition["required"] = [name for name in definition["required"] if name != field]


def _retyped(definition: dict[str, Any], field: str) -> None:
    definition["properties"][field] = (
        {"type": "boolean"} if definition["properties"][field].get("type") != "boolean" else {"type": "string"}
    )


# -- export and check --------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in files(TOPICS).items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    for described in SCHEMAS.glob("openapi*.json"):
        (tmp_path / described.name).write_bytes(described.read_bytes())
    return tmp_path


def _run(*words: str) -> Any:
    return CliRunner().invoke(app, ["schemas", *words, "--project", "penstock.examples.flights"])


def test_check_names_the_file_that_differs_and_what_to_type(folder: Path) -> None:
    path = folder / "penstock.alarms.v1.json"
    path.write_text(path.read_text(encoding="utf-8").replace("raised", "RAISED"), encoding="utf-8")
    said = _run("check", "--to", str(folder))
    assert said.exit_code == 1
    assert f"{path} differs from the code" in said.stdout
    assert "penstock schemas export" in said.stderr


def test_a_field_that_the_committed_schema_has_and_the_code_lost_is_breaking(folder: Path) -> None:
    path = folder / "penstock.alarms.v1.json"
    old = json.loads(path.read_text(encoding="utf-8"))
    old["$defs"]["Alarm"]["properties"]["severity"] = {"type": "string"}
    path.write_text(json.dumps(old), encoding="utf-8")
    said = _run("check", "--to", str(folder))
    assert said.exit_code == 1
    assert "penstock.alarms.v1.json severity: was removed" in said.stdout

    refused = _run("export", "--to", str(folder))
    assert refused.exit_code == 1
    assert "severity" in path.read_text(encoding="utf-8")
    assert _run("export", "--to", str(folder), "--breaking").exit_code == 0
    assert _run("check", "--to", str(folder)).exit_code == 0


def test_export_writes_only_what_changed_and_removes_what_nothing_generates(folder: Path) -> None:
    (folder / "departed.v1.json").unlink()
    (folder / "gone.v1.json").write_text("{}", encoding="utf-8")
    assert "is of no topic any more" in _run("check", "--to", str(folder)).stdout
    said = json.loads(_run("export", "--to", str(folder), "--json").stdout)
    assert said["written"] == ["departed.v1.json"]
    assert said["removed"] == ["gone.v1.json"]
    assert json.loads(_run("check", "--to", str(folder), "--json").stdout) == {
        "folder": str(folder),
        "files": said["files"],
        "differing": [],
        "breaking": [],
    }
