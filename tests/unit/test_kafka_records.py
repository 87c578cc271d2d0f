"""Our record batches are, byte for byte, what aiokafka's own builder makes of the same records; but ours is only compressed where
that makes it smaller."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from aiokafka.codec import has_snappy
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from hypothesis import given
from hypothesis import strategies as st

from penstock.log import Headers, Numbered, Numbers, Send
from penstock.log._kafka_records import HEAD, Bodies, Records, bodies
from penstock.log._kafka_send import deal

STAMP = 1_794_960_000_000
SNAPPY = 2 if has_snappy() else 0
texts = st.one_of(st.none(), st.binary(max_size=300))
kinds = st.lists(st.lists(st.tuples(st.text(max_size=9), st.binary(max_size=150)), max_size=4).map(tuple), min_size=1, max_size=3)


def theirs(records: Sequence[Send]) -> bytes:
    """aiokafka's batch, compressed or not, whichever is smaller."""
    made = []
    for compression in (0, SNAPPY):
        builder = DefaultRecordBatchBuilder(2, compression, 0, 77, 3, 1234, 1 << 30)
        for at, (_, key, value, headers, _) in enumerate(records):
            assert builder.append(at, STAMP, key, value, list(headers)) is not None
        made.append(bytes(builder.build()))
    return min(made, key=len)


def ours(found: Bodies) -> bytes:
    batch = Records(found, STAMP)
    batch._set_producer_state(77, 3, 1234)
    assert batch.record_count() == len(found.sizes)
    return bytes(batch._build())


@given(
    st.lists(st.tuples(texts, texts, st.integers(0, 2)), min_size=1, max_size=200), kinds, st.integers(0, 1 << 60), st.booleans()
)
def test_a_batch_is_what_aiokafka_makes_of_it(
    drawn: list[tuple[bytes | None, bytes | None, int]], headers: list[Headers], first: int, numbered: bool
) -> None:
    sends = [Send("rows", key, value, headers[kind % len(headers)], 0) for key, value, kind in drawn]
    numbers = Numbers(("ce_source", b"feature_store.3"), "ce_id", first)
    lanes = deal(Numbered(sends, numbers) if numbered else sends, {"rows": 1}, {"rows": 1 << 20})
    assert ours(lanes["rows", 0]) == theirs(list(Numbered(sends, numbers)) if numbered else sends)


@pytest.mark.parametrize("size", [0, 1, 63, 64, 8_191, 8_192, 1 << 20])
def test_lengths_of_any_width_are_written(size: int) -> None:
    sends = [Send("rows", b"k" * size, bytes(size), (("h", bytes(size)),), 0)]
    assert ours(bodies(sends, None, [0])) == theirs(sends)


@given(st.lists(st.integers(0, 400), min_size=1, max_size=60), st.integers(HEAD, 1_500))
def test_parts_keep_all_in_order_and_within_the_limit_unless_one_record_alone_is_above_it(sizes: list[int], limit: int) -> None:
    values = [bytes([at % 256]) * size for at, size in enumerate(sizes)]
    found = bodies([Send("rows", b"", value) for value in values], None, range(len(values)))
    parts = list(found.parts(limit))
    assert [value for part in parts for value in part.values] == values
    for part in parts:
        assert part.sizes and (Records(part, STAMP).size() <= limit or len(part.sizes) == 1)
    assert Records.size_of(found.sizes[0]) == Records(found.take(slice(1)), STAMP).size()


def test_records_find_their_partitions_in_order_with_the_numbers_of_their_places() -> None:
    sends = [Send(topic, key, b"%d" % at, (), number) for at, (topic, key, number) in enumerate(
        [("a", b"1", 0), ("a", b"1", 1), ("b", b"21", None), ("a", None, None), ("a", b"1", 0), ("b", b"21", None)]
    )]  # fmt: skip
    numbers = Numbers(("from", b"s"), "number", 5)
    lanes = deal(Numbered(sends, numbers), {"a": 2, "b": 1}, {"a": 1 << 20, "b": 1 << 20})
    whole = list(Numbered(sends, numbers))
    assert {
        place: theirs([whole[at] for at in ats]) for place, ats in {("a", 0): [0, 3, 4], ("a", 1): [1], ("b", 0): [2, 5]}.items()
    } == {place: ours(found) for place, found in lanes.items()}
