"""What was synced to a spill is there after any crash, in order; what a crash tore is cut, and costs nothing before it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import SettingError
from penstock.log import Partition, Send
from penstock.services.inference.gateway.spill import Full, Spill

PLACE = Partition("answers", 0)
sends = st.builds(
    Send,
    st.sampled_from(["answers", "others"]),
    st.none() | st.binary(max_size=20),
    st.none() | st.binary(max_size=200),
    st.lists(st.tuples(st.text(max_size=5), st.binary(max_size=5)), max_size=3).map(tuple),
    st.none() | st.integers(0, 255),
)


def drained(spill: Spill, most: int = 3) -> list[Send]:
    found = []
    while not spill.empty:
        records, after = spill.read(most)
        found += records
        spill.mark(after, {})
    return found


def some(*numbers: int) -> list[Send]:
    return [Send("answers", b"%d" % n, b"{}", (("ce_id", b"%d" % n),)) for n in numbers]


@settings(max_examples=50, deadline=None)  # a disk has its days
@given(batches=st.lists(st.lists(sends, min_size=1, max_size=5), max_size=6), most=st.integers(1, 4))
def test_records_come_out_as_they_went_in(tmp_path_factory: pytest.TempPathFactory, batches: list[list[Send]], most: int) -> None:
    spill = Spill(tmp_path_factory.mktemp("spill"), 1 << 20)
    for batch in batches:
        spill.append(batch)
    assert drained(spill, most) == [send for batch in batches for send in batch]
    assert (spill.empty, spill.size) == (True, 0)
    spill.close()


@settings(max_examples=50, deadline=None)  # a disk has its days
@given(data=st.data())
def test_a_tail_torn_at_any_byte_costs_the_torn_batch_alone(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("spill")
    spill = Spill(folder, 1 << 20)
    spill.append(some(1, 2))
    spill.append(some(3))
    whole = spill.size
    spill.append(some(4, 5))
    end = spill.size
    spill.close()
    size = data.draw(st.integers(whole, end - 1))
    garbage = data.draw(st.binary(max_size=40))
    with (folder / "records.spill").open("r+b") as file:
        file.truncate(size)
        file.seek(size)
        file.write(garbage)
    again = Spill(folder, 1 << 20)
    if not garbage:
        assert again.cut == size - whole
    assert again.size in (whole, end)  # the very bytes may have been drawn
    again.append(some(6))
    assert [send.key for send in drained(again)][:3] == [b"1", b"2", b"3"]
    again.close()


def test_a_flipped_bit_ends_what_is_read(tmp_path: Path) -> None:
    spill = Spill(tmp_path, 1 << 20)
    spill.append(some(1))
    whole = spill.size
    spill.append(some(2))
    spill.close()
    data = bytearray((tmp_path / "records.spill").read_bytes())
    data[-1] ^= 1
    (tmp_path / "records.spill").write_bytes(data)
    again = Spill(tmp_path, 1 << 20)
    assert (drained(again), again.cut) == (some(1), len(data) - whole)


def test_what_is_out_stays_out_after_a_restart(tmp_path: Path) -> None:
    spill = Spill(tmp_path, 1 << 20)
    spill.ends = {PLACE: 7}
    spill.append(some(1))
    spill.append(some(2, 3))
    _, after = spill.read(1)
    spill.mark(after, {PLACE: 8})
    spill.close()
    again = Spill(tmp_path, 1 << 20)
    assert again.ends == {PLACE: 8}
    assert drained(again) == some(2, 3)


def test_where_the_log_ended_before_the_first_record_is_kept_with_it(tmp_path: Path) -> None:
    spill = Spill(tmp_path, 1 << 20)
    spill.ends = {PLACE: 7, Partition("others", 3): 0}
    spill.append(some(1))
    spill.close()
    assert Spill(tmp_path, 1 << 20).ends == {PLACE: 7, Partition("others", 3): 0}


def test_a_full_spill_takes_no_more_and_keeps_what_it_has(tmp_path: Path) -> None:
    spill = Spill(tmp_path, 200)
    kept = 0
    with contextlib.suppress(Full):
        while kept < 10:
            spill.append(some(kept))
            kept += 1
    assert 0 < kept < 10
    assert spill.size <= 200
    assert drained(spill) == some(*range(kept))
    spill.append(some(1))  # and there is room again


def test_what_could_not_be_synced_is_taken_back(tmp_path: Path) -> None:
    spill = Spill(tmp_path, 1 << 20)
    spill.append(some(1))
    before = spill.size
    spill.append(some(2))
    spill.cut_back(before)
    assert drained(spill) == some(1)
    spill.cut_back(before)  # all of it came out meanwhile
    assert os.path.getsize(spill.path) == 0


def test_one_process_at_a_time_holds_a_spill(tmp_path: Path) -> None:
    held = Spill(tmp_path, 1 << 20)
    with pytest.raises(SettingError, match="belongs to another process"):
        Spill(tmp_path, 1 << 20)
    held.close()
    Spill(tmp_path, 1 << 20).close()


def test_a_folder_that_cannot_be_made_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(SettingError, match="cannot be written: "):
        Spill(tmp_path / "data" / "spill", 1 << 20)
