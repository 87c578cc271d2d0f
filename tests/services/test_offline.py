"""The offline tables as people read them: any version, any place that is right."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pyarrow.compute as pc
import pytest
from tests.services.crew import PASSED, ROWS, arrival, grown, places, played, there

from penstock.errors import PenstockError, SettingError, Unreachable
from penstock.offline import Location, Tables


def test_a_table_is_read_as_it_is_and_as_it_was(tmp_path: Path) -> None:
    async def story() -> None:
        harbour = await grown(tmp_path, 3)
        assert harbour.tables.names() == ["arrivals", "arrivals.dlq", PASSED, ROWS]
        now = harbour.tables.table("arrivals")
        assert (now.version, now.rows, now.positions()) == (3, 30, {0: 30})
        then = now.at(version=2)
        assert (then.version, then.rows, then.positions()) == (2, 20, {0: 20})
        assert places(then) == (await there(harbour.log, "arrivals"))[:20]
        await harbour.kept([arrival(30)])
        assert (now.rows, harbour.tables.table("arrivals").rows) == (30, 31), "a table that is held does not change"
        newest = now.arrow(columns=["arrival_id", "depth"], filter=pc.field("offset") >= 28)
        assert newest.sort_by("depth").to_pylist() == [
            {"arrival_id": "a28", "depth": 7.0},
            {"arrival_id": "a29", "depth": 7.25},
        ]

    played(story())


def test_a_moment_means_the_version_that_was_newest_then(tmp_path: Path) -> None:
    async def story() -> None:
        harbour = await grown(tmp_path, 4)
        table = harbour.tables.table("arrivals")
        versions = {v.number: v for v in table.history()}
        assert list(versions) == [4, 3, 2, 1, 0] and [v.rows for v in versions.values()] == [10, 10, 10, 10, None]
        for number, version in versions.items():
            newest = max(n for n, v in versions.items() if v.at <= version.at)
            assert table.at(as_of=version.at).version == newest, f"version {number}"
        assert table.at(as_of=datetime(2100, 1, 1, tzinfo=UTC)).version == 4
        with pytest.raises(PenstockError, match="is not known before"):
            table.at(as_of=datetime(2001, 1, 1, tzinfo=UTC))
        with pytest.raises(PenstockError, match="no time zone"):
            table.at(as_of=datetime(2026, 1, 1))

    played(story())


def test_what_is_not_there_is_said_with_what_is(tmp_path: Path) -> None:
    async def story() -> None:
        harbour = await grown(tmp_path, 1)
        with pytest.raises(PenstockError, match="no table arrival in") as said:
            harbour.tables.table("arrival")
        assert said.value.fix == "did you mean arrivals?"
        with pytest.raises(PenstockError, match="versions 0 to 1, not 7"):
            harbour.tables.table("arrivals").at(version=7)
        with pytest.raises(PenstockError, match="no column 'dept'") as said:
            harbour.tables.table("arrivals").arrow(columns=["dept"])
        assert said.value.fix == "did you mean depth?"

    played(story())
    assert Tables(tmp_path / "none").names() == []
    with pytest.raises(PenstockError, match="no table x"):
        Tables(tmp_path / "none").table("x")


@pytest.mark.parametrize("root", ["gs://bucket/x", "s3://", "hdfs://a/b"])
def test_a_place_of_another_kind_is_refused(root: str) -> None:
    with pytest.raises(SettingError, match="cannot be in"):
        Location(root)


def test_a_bucket_that_does_not_answer_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Unreachable, match="cannot be read") as said:
        Tables("s3://lake").table("arrivals")
    assert "AWS_ENDPOINT_URL" in said.value.fix
