"""However often a partition is read again, and in whatever order its records are applied, each is applied once."""

from __future__ import annotations

import random

import msgspec
import pytest

from penstock.log import Headers
from penstock.runtime.lane import FROM, SEQUENCE
from penstock.services.monitoring.answers.track import SavedTrack, Track


def partition(rng: random.Random, n: int) -> list[Headers]:
    """Three numbering writers, one of them repeating itself, and one that numbers nothing."""
    sent: dict[str, int] = {}
    found: list[Headers] = []
    for _ in range(n):
        writer = rng.choice(["inference.0", "inference.1", "inference.2", ""])
        if not writer:
            found.append(rng.choice([(), (("ce_id", b"x"),)]))
            continue
        number = sent.get(writer, -1) + 1
        if number and rng.random() < 0.3:
            number -= rng.randrange(1, min(number, 4) + 1)
        sent[writer] = max(sent.get(writer, -1), number)
        found.append((("ce_type", b"x"), (FROM, writer.encode()), (SEQUENCE, b"%d" % number)))
    return found


@pytest.mark.parametrize("seed", range(60))
def test_every_record_is_applied_once_over_any_restarts(seed: int) -> None:
    rng = random.Random(seed)
    records = partition(rng, 80)
    first = {headers[-2:]: offset for offset, headers in reversed(list(enumerate(records))) if len(headers) > 1}
    wanted = {offset for offset, headers in enumerate(records) if len(headers) < 2 or first[headers[-2:]] == offset}
    track, saved, committed, pending = Track(SavedTrack()), SavedTrack(), list[int](), list[int]()
    applied: list[int] = []
    while track.next < len(records) or pending:
        if rng.random() < 0.08:  # a crash: what was not saved is undone
            track, applied, pending = Track(saved), list(committed), []
            assert track.next == saved.position
        for _ in range(rng.randrange(8)):
            if track.next < len(records) and track.read(track.next, records[track.next]):
                pending.append(track.next - 1)
        rng.shuffle(pending)
        for _ in range(rng.randrange(4)):
            if pending:
                applied.append(pending.pop())
                track.apply(applied[-1])
        if rng.random() < 0.5:
            saved = msgspec.msgpack.decode(msgspec.msgpack.encode(track.saved()), type=SavedTrack)
            committed = list(applied)
    assert sorted(applied) == sorted(wanted)
    assert track.position == len(records)
    assert track.saved().applied == []
