"""A dataset is made again byte for byte from the versions that it pins, whatever happens to the tables since; or it says why
it cannot be."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
import pyarrow.parquet as pq
import pytest
from tests.services.chargebacks import (
    START,
    Card,
    Chargeback,
    Machine,
    Payment,
    Report,
    chargeback,
    fraud,
    judging,
    payment,
    report,
    shop,
    shopping,
)  # fmt: skip
from typer.testing import CliRunner

import penstock as ps
from penstock.cli import app
from penstock.event import to_micros
from penstock.frames import dataset
from penstock.frames.manifest import identified, keep, listed, load
from penstock.frames.training import Query
from penstock.offline import Tables
from penstock.offline.upkeep import compact, vacuum
from penstock.records import Quarantine

LINES = sorted(
    [payment(i, i, float(i), "c") for i in range(9)] + [chargeback(i, i + 1.5, i % 2 == 0) for i in range(6)],
    key=lambda said: said.get("paid_at") or said["reported_at"],
)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return shopping(tmp_path, LINES, to_micros(START + timedelta(hours=12)))


def later(machine: Machine) -> None:
    """More payments and labels, some late; then the tables are written together."""
    import asyncio

    asyncio.run(machine.publish([payment(20, 2.5, 99.0), chargeback(7, 9), payment(21, 20), chargeback(0, 30, False)]))
    for name in machine.tables.names():
        compact(machine.tables, name)


@pytest.mark.parametrize("as_known_now", [False, True])
def test_a_dataset_is_the_same_after_more_events_and_a_compaction(machine: Machine, as_known_now: bool) -> None:
    _, frame = dataset.create(machine.tables, shop, fraud, "may", as_known_now=as_known_now)
    later(machine)
    again = dataset.checkout(machine.tables, shop, "may")
    pd.testing.assert_frame_equal(again, frame, check_exact=True)
    assert len(ps.training_set(fraud, machine.tables)) > len(frame)


def test_vacuum_leaves_what_a_dataset_needs(machine: Machine) -> None:
    _, frame = dataset.create(machine.tables, shop, fraud, "may")
    later(machine)
    for name in machine.tables.names():
        vacuum(machine.tables, name, timedelta(0))
    pd.testing.assert_frame_equal(dataset.checkout(machine.tables, shop, "may"), frame, check_exact=True)


def test_a_dataset_outlives_what_the_log_says_of_its_versions(machine: Machine) -> None:
    """Years later the entries of old versions have been cleaned away: the files in the manifest are enough."""
    manifest, frame = dataset.create(machine.tables, shop, fraud, "may")
    later(machine)
    for pin in manifest.tables:
        table = machine.tables.table(pin.name)
        table.delta.create_checkpoint()
        log = Path(machine.tables.location.uri(pin.name), "_delta_log")
        for entry in sorted(log.glob("*.json"))[:-1]:
            entry.unlink()
        if table.version > pin.version:
            with pytest.raises(ps.PenstockError):
                table.at(version=pin.version)
    pd.testing.assert_frame_equal(dataset.checkout(machine.tables, shop, "may"), frame, check_exact=True)


@pytest.mark.parametrize("again", ["may", ""])
def test_datasets_lie_in_a_bucket_as_in_a_folder(machine: Machine, s3: str, again: str) -> None:
    tables = Tables(s3)
    for path in Path(machine.tables.location.root).rglob("*.*"):
        if path.is_file():
            with tables.location.files.open_output_stream(str(path.relative_to(machine.tables.location.root))) as file:
                file.write(path.read_bytes())
    manifest, frame = dataset.create(tables, shop, fraud, again)
    assert dataset.create(machine.tables, shop, fraud)[0].sha256 == manifest.sha256
    pd.testing.assert_frame_equal(dataset.checkout(tables, shop, again or manifest.id), frame, check_exact=True)
    with pytest.raises(ps.PenstockError, match="already, and it is another"):
        dataset.create(tables, shop, fraud, again or manifest.id, as_known_now=True)


def test_files_that_are_gone_are_named_with_what_to_do(machine: Machine) -> None:
    manifest, _ = dataset.create(machine.tables, shop, fraud, "may")
    pin = next(pin for pin in manifest.tables if pin.name == "payments")
    Path(machine.tables.location.uri(pin.name), pin.files[0]).unlink()
    with pytest.raises(
        ps.PenstockError, match=r"dataset may needs version \d+ of payments, and 1 of its \d files are gone"
    ) as error:
        dataset.checkout(machine.tables, shop, "may")
    assert "backup" in error.value.fix and "penstock dataset create" in error.value.fix


def test_files_that_were_altered_are_found_out(machine: Machine) -> None:
    manifest, _ = dataset.create(machine.tables, shop, fraud, "may")
    pin = next(pin for pin in manifest.tables if pin.name == "payments")
    for file in pin.files:
        path = Path(machine.tables.location.uri(pin.name), file)
        table = pq.ParquetFile(path).read()
        at = table.schema.names.index("amount")
        pq.write_table(table.set_column(at, "amount", [[1.5] * len(table)]), path)
    with pytest.raises(ps.PenstockError, match=r"had content \w{16} and now has \w{16}.*the code of penstock or the files"):
        dataset.checkout(machine.tables, shop, "may")


def test_the_same_again_is_the_same_dataset_and_a_name_is_never_taken_twice(machine: Machine) -> None:
    first, _ = dataset.create(machine.tables, shop, fraud)
    again, _ = dataset.create(machine.tables, shop, fraud)
    named, _ = dataset.create(machine.tables, shop, fraud, "may")
    assert (
        first == again == named and set(listed(machine.tables)) == {"may", first.id} and load(machine.tables, first.id) == first
    )
    with pytest.raises(ps.PenstockError, match="there is a dataset may already, and it is another"):
        dataset.create(machine.tables, shop, fraud, "may", as_known_now=True)
    assert load(machine.tables, "may") == named
    for name in ("a/b", "../up", "", "."):
        if name:
            with pytest.raises(ps.PenstockError, match="is not a name of a dataset"):
                dataset.create(machine.tables, shop, fraud, name)


def test_a_manifest_that_was_changed_or_is_none_is_refused(machine: Machine) -> None:
    dataset.create(machine.tables, shop, fraud, "may")
    path = Path(machine.tables.location.root, "datasets", "may.json")
    said = json.loads(path.read_text())
    path.write_text(json.dumps(said | {"rows": 1}))
    with pytest.raises(ps.PenstockError, match=r"may\.json was changed: its id is"):
        load(machine.tables, "may")
    path.write_text("{")
    with pytest.raises(ps.PenstockError, match=r"may\.json is not a manifest of a dataset"):
        listed(machine.tables)
    path.unlink()
    with pytest.raises(ps.PenstockError, match="no dataset 'may'"):
        load(machine.tables, "may")


def declared(view: type, within: str = "6h") -> tuple[ps.Project, Any]:
    label = ps.label(Chargeback.fraudulent, within=within, otherwise=False)  # type: ignore[arg-type]

    @ps.model(scores=Payment, features=[Payment.amount, Payment.offset, view], label=label)
    def fraud() -> ps.Learner:
        raise NotImplementedError

    return ps.Project("shop", [fraud]), fraud


def other_card() -> type:
    @ps.features(by=Payment.card)
    class Card:
        payments_1h = ps.count(Payment, over="2h")  # the name says otherwise
        spend_24h = ps.sum(Payment.amount, over="24h")

        @ps.derived
        def surge(self, now: Payment) -> float:
            return now.amount / (self.payments_1h + 1.0)

    return Card


@pytest.mark.parametrize(
    ("change", "as_known_now", "said"),
    [
        (lambda: declared(Card, "7h"), False, r"the label of fraud is .*within 25200000000.*, and was .*within 21600000000"),
        (lambda: declared(other_card()), True, r"view Card is \w{12}, and was \w{12}"),
    ],
)
def test_other_definitions_are_named_and_not_computed_with(
    machine: Machine, change: Callable[[], tuple[ps.Project, Any]], as_known_now: bool, said: str
) -> None:
    dataset.create(machine.tables, shop, fraud, "may", as_known_now=as_known_now)
    with pytest.raises(ps.PenstockError, match=f"made under other definitions: {said}") as error:
        dataset.checkout(machine.tables, change()[0], "may")
    assert shop.fingerprint[:16] in error.value.fix


def test_a_dataset_of_before_labels_waited_is_made_again_as_it_was(machine: Machine) -> None:
    made, frame = dataset.create(machine.tables, shop, fraud, "may")
    hasty = Query(fraud, shop.topology, waits=False).run(Query(fraud, shop.topology).tables(machine.tables, "shop"))
    assert hasty["label"].count() > frame["label"].count(), "it has labels whose horizon had not passed"
    query = msgspec.structs.replace(made.query, waits=False)
    old = identified(msgspec.structs.replace(made, query=query, sha256=dataset.content(hasty)))
    assert b"waits" in msgspec.json.encode(made) and b"waits" not in msgspec.json.encode(old)
    keep(machine.tables.location, "old", old)
    later(machine)
    pd.testing.assert_frame_equal(dataset.checkout(machine.tables, shop, "old"), hasty, check_exact=True)
    pd.testing.assert_frame_equal(dataset.checkout(machine.tables, shop, "may"), frame, check_exact=True)
    assert dataset.differences(old, made)["query.waits"] == (False, True)


def test_a_dataset_pins_who_may_label_and_how_much_of_it_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [payment(i, i) for i in range(9)] + [report(i, i + 0.5, True, "bank" if i % 2 else "shop") for i in range(8)]
    lines.sort(key=lambda said: said.get("paid_at") or said["reported_at"])
    project = judging()
    machine = shopping(tmp_path, lines, to_micros(START + timedelta(days=1)), project)
    _, frame = dataset.create(machine.tables, project, project.model("judged"), "may")
    assert set(frame["source"][frame["label"].isna()]) >= {"shop"}
    pd.testing.assert_frame_equal(dataset.checkout(machine.tables, project, "may"), frame, check_exact=True)
    monkeypatch.setenv("PENSTOCK_TABLES", machine.tables.location.root)
    monkeypatch.setenv("PENSTOCK_PROJECT", "tests.services.chargebacks")
    monkeypatch.setattr("tests.services.chargebacks.project", project)
    said = CliRunner().invoke(app, ["dataset", "create", "judged", "--name", "june"])
    left = (frame["label"].isna() & (frame["source"] == "shop")).sum()
    assert f"beyond the caps of their sources are left out: shop {left}" in said.stderr, said.output
    assert "silence means False, sources bank 1, shop 0.3, others 0.2" in said.stdout
    for caps in ({"bank": 1, "shop": 0.5}, {"shop": 0.3, "bank": 1}):  # another cap, another order of trust
        other = judging(ps.sources(Report.reporter, caps, others=0.2))
        with pytest.raises(
            ps.PenstockError, match=r"the label of judged is .*caps .*, and was .*caps \[\['bank', 1\], \['shop', 0.3\]"
        ):
            dataset.checkout(machine.tables, other, "may")


def test_features_that_were_served_are_read_whatever_the_view_means_today(machine: Machine) -> None:
    _, frame = dataset.create(machine.tables, shop, fraud, "may")
    again = dataset.checkout(machine.tables, declared(other_card())[0], "may")
    pd.testing.assert_frame_equal(again, frame, check_exact=True)


def test_the_content_hash_is_about_values_and_nothing_else() -> None:
    frame = pd.DataFrame(
        {
            "n": [1.0, float("nan")], "i": pd.array([1, None], "Int64"), "t": ["é", None], "b": pd.array([True, None], "boolean"),
            "at": pd.Series([START, None], dtype="datetime64[us, UTC]"),
        }
    )  # fmt: skip
    same = frame.set_axis([5, 5]).astype({"t": object, "at": "datetime64[ns, Europe/Paris]", "i": "float64"})
    assert dataset.content(frame) == dataset.content(same)
    others = [
        frame[::-1],
        frame.assign(n=[1.0, 0.0]),
        frame.rename(columns={"n": "m"}),
        frame.assign(t=pd.Series(["", None])),
        frame[:1],
    ]
    others += [
        frame[["i", "n", "t", "b", "at"]],
        frame.assign(b=pd.array([True, False], "boolean")),
        frame.assign(n=[-1.0, float("nan")]),
    ]
    assert len({dataset.content(other) for other in [frame, *others]}) == 9
    glued = pd.DataFrame({"t": ["ab", "c"]}), pd.DataFrame({"t": ["a", "bc"]})
    assert dataset.content(glued[0]) != dataset.content(glued[1])


# --- the command ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PENSTOCK_TABLES", machine.tables.location.root)
    monkeypatch.setenv("PENSTOCK_PROJECT", "tests.services.chargebacks")

    def call(*words: str, code: int = 0) -> Any:
        said = CliRunner().invoke(app, ["dataset", *words])
        assert said.exit_code == code, said.output + str(said.exception)
        return said

    return call


def test_a_dataset_from_the_command_line(run: Callable[..., Any], machine: Machine, tmp_path: Path) -> None:
    made = json.loads(run("create", "fraud", "--name", "may", "--known-before", "2026-03-01T06:00Z", "--json").stdout)
    assert made["rows"] == 6 and made["dataset"] == "may" and made["query"]["known_before"] == "2026-03-01T06:00:00+00:00"
    run("create", "fraud", "--name", "june", "--out", "june.parquet")
    assert "may" in run("list").stdout and "2 datasets" in run("list").stdout
    shown = run("show", "may").stdout
    assert "table payments" in shown and "silence means False" in shown and made["sha256"] in shown
    later(machine)
    run("checkout", "june", "--out", "again.parquet")
    assert (tmp_path / "again.parquet").read_bytes() == (tmp_path / "june.parquet").read_bytes()
    assert pq.read_table("again.parquet").to_pandas()["id"].tolist() == [f"p{i:03}" for i in range(9)]
    run("create", "fraud", "--name", "july", "--as-known-now")
    different = json.loads(run("diff", "june", "july", "--data", "--json").stdout)["differences"]
    assert different["query.as_known_now"] == [False, True] and different["rows that the other has not"] == [0, 2]
    assert different["rows"] == [9, 11] and different["values of Card.spend_24h"] == [6, 6]
    assert "are the same" in run("diff", "june", "june", "--data").stdout


def test_the_command_line_says_what_is_wrong(run: Callable[..., Any], tmp_path: Path) -> None:
    run("create", "fraud", "--name", "may")
    for words, said in (
        (("create", "frod"), "no model 'frod'"),
        (("create", "fraud", "--start", "monday"), "start is 'monday', not a moment with a time zone"),
        (("show", "mai"), "no dataset 'mai'"),
    ):
        found = run(*words, code=2 if "frod" in words else 1)
        assert said in found.output
    (tmp_path / "may.parquet").write_text("mine")
    assert "is there already" in run("checkout", "may", code=1).output
    assert (tmp_path / "may.parquet").read_text() == "mine"


def test_a_dataset_without_rows_is_told_with_the_likely_reason(run: Callable[..., Any]) -> None:
    said = run("create", "fraud", "--name", "future", "--start", "2030-01-01T00:00Z").output
    assert "0 rows: no scored event is inside --start 2030-01-01T00:00:00+00:00; look:  penstock tables show payments" in said


def test_no_tables_are_no_datasets(tmp_path: Path) -> None:
    assert listed(Tables(tmp_path / "nowhere")) == {}


def test_what_is_in_quarantine_is_left_out_and_the_dataset_remembers_it_when_it_is_lifted(machine: Machine) -> None:
    said = quarantine(key="c", until=START + timedelta(hours=3))
    manifest, frame = dataset.create(machine.tables, shop, fraud, "may", quarantines=[said])
    whole = ps.training_set(fraud, machine.tables)
    assert 0 < len(frame) < len(whole) and (frame["time"] >= START + timedelta(hours=3)).all()
    assert load(machine.tables, "may").query.quarantines == [said] and manifest.rows == len(frame)
    pd.testing.assert_frame_equal(dataset.checkout(machine.tables, shop, "may"), frame, check_exact=True)
    lifted = msgspec.structs.replace(said, lifted=START + timedelta(hours=6))
    for moment, rows in (("2020-01-01T00:00Z", 0), (None, len(whole))):
        found = ps.training_set(fraud, machine.tables, known_before=moment, quarantines=[lifted])
        assert len(found) == rows
    other = quarantine(model="another", key="c")
    assert len(ps.training_set(fraud, machine.tables, quarantines=[other])) == len(whole)


def quarantine(model: str = "fraud", **what: Any) -> Quarantine:
    return Quarantine(id="q1", model=model, at=START, actor="ada", **what)
