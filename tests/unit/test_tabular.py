"""Files of rows: what cannot be read is said in a sentence, and no cell moves to another column."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from penstock.errors import PenstockError
from penstock.frames.tabular import Bad, frame_of

WHOLE = gzip.compress("\n".join(["a,b", *(f"{i * 7919 % 10_007},{i}" for i in range(9_000))]).encode())
BROKEN = {
    "half.csv.gz": WHOLE[: len(WHOLE) // 2],
    "garbled.csv.gz": WHOLE[:200] + b"\x00\xff\x13" * 30 + WHOLE[290:],
    "no.csv.zip": b"PK",
    "no.csv.xz": b"PK",
    "no.csv.zst": b"PK",
    "no.parquet": b"PAR1",
    "empty.csv": b"",
    "no text.csv": b"a\n\xff\xfe\n",
    "more cells than names.csv": b"a,b\nx,1,2\ny,3,4\n",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_cannot_be_read_is_told_in_a_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(BROKEN[name])
    with pytest.raises(PenstockError, match="cannot be read"):
        frame_of(tmp_path / name)


def test_a_bad_cell_among_integers_of_any_size_is_one_bad_cell(tmp_path: Path) -> None:
    (tmp_path / "ids.csv").write_text("a\n" + "".join(f"{2**63 + i}\n" for i in range(20)) + "oops\n")
    bad: list[Bad] = []
    frame = frame_of(tmp_path / "ids.csv", bad)
    assert [str(each) for each in bad] == ["a: 1 cell no number, counted as missing (row 21: 'oops')"]
    assert frame["a"].isna().tolist() == [False] * 20 + [True]
