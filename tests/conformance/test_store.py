"""What every store must do, in memory and on Redis alike."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import given as random_input
from hypothesis import strategies as st
from tests.conftest import missing

from penstock.local.process import LocalError
from penstock.local.redis import LocalRedis
from penstock.store import Change, Fenced, Saved, Store, StoreError
from penstock.store.memory import MemoryStore
from penstock.store.redis import RedisReader, RedisStore

STORY_SECONDS = 30.0


class Given:
    """A store to play a story on, of a project that no other test uses."""

    def __init__(self, url: str | None) -> None:
        self.url = url

    def store(self, project: str) -> Store:
        return MemoryStore() if self.url is None else RedisStore(self.url, project)

    def play(self, story: Callable[[Store], Awaitable[None]]) -> None:
        async def staged() -> None:
            store = self.store("p" + uuid.uuid4().hex[:12])
            try:
                await asyncio.wait_for(story(store), STORY_SECONDS)
                await store.wipe()
            finally:
                await store.close()

        asyncio.run(staged())


@pytest.fixture(params=["memory", "redis"])
def given(request: pytest.FixtureRequest) -> Given:
    return Given(None if request.param == "memory" else request.getfixturevalue("redis_url"))


def test_a_shard_that_never_wrote_is_empty(given: Given) -> None:
    async def story(store: Store) -> None:
        assert await store.open("s.0") == Saved(0, b"", b"", {})
        assert await store.read("s.0", [b"a", b"b"]) == [(b"", b""), (b"", b"")]
        assert await store.read("s.0", []) == []

    given.play(story)


def test_a_write_is_found_again_when_the_shard_opens(given: Given) -> None:
    async def story(store: Store) -> None:
        change = Change(b"at 7", b"owed", {b"f": b"1", b"g": b""}, {b"JFK": b"head"}, {b"JFK": b"tail"})
        assert await store.write("s.0", 0, change) == 1
        assert await store.open("s.0") == Saved(1, b"at 7", b"owed", {b"f": b"1", b"g": b""})
        assert await store.read("s.0", [b"LGA", b"JFK"]) == [(b"", b""), (b"head", b"tail")]

    given.play(story)


def test_the_outbox_is_what_the_last_write_said(given: Given) -> None:
    async def story(store: Store) -> None:
        await store.write("s.0", 0, Change(b"1", b"owed"))
        await store.write("s.0", 1, Change(b"2"))
        assert await store.open("s.0") == Saved(2, b"2", b"", {})

    given.play(story)


def test_heads_replace_and_tails_grow_until_they_are_cut(given: Given) -> None:
    async def story(store: Store) -> None:
        await store.write("s.0", 0, Change(b"1", heads={b"a": b"1", b"b": b"1"}, tails={b"a": b"x", b"b": b"x"}))
        await store.write("s.0", 1, Change(b"2", heads={b"a": b"22"}, tails={b"a": b"yy", b"c": b"z"}))
        assert await store.read("s.0", [b"a", b"b", b"c"]) == [(b"22", b"xyy"), (b"1", b"x"), (b"", b"z")]
        await store.write("s.0", 2, Change(b"3", tails={b"a": b"new"}, cut=[b"a", b"b", b"never there"]))
        assert await store.read("s.0", [b"a", b"b", b"c"]) == [(b"22", b"new"), (b"1", b""), (b"", b"z")]

    given.play(story)


def test_what_is_dropped_is_gone_unless_the_same_write_puts_it_back(given: Given) -> None:
    async def story(store: Store) -> None:
        keys = [b"a", b"b", b"c", b"d"]
        await store.write("s.0", 0, Change(b"1", heads=dict.fromkeys(keys, b"h"), tails=dict.fromkeys(keys, b"t")))
        await store.write("s.1", 0, Change(b"1", heads={b"a": b"h"}, tails={b"a": b"t"}))
        again = Change(b"2", heads={b"b": b"new"}, tails={b"c": b"new"}, drops=[b"a", b"b", b"c", b"never there"])
        await store.write("s.0", 1, again)
        assert await store.read("s.0", keys) == [(b"", b""), (b"new", b""), (b"", b"new"), (b"h", b"t")]
        assert await store.read("s.1", [b"a"]) == [(b"h", b"t")]

    given.play(story)


def test_places_of_any_shards_are_gathered_in_the_order_asked_for(given: Given) -> None:
    async def story(store: Store) -> None:
        for shard in ("s.0", "s.1", "s.2"):
            name = shard.encode()
            await store.write(
                shard, 0, Change(b"1", heads={b"%d" % n: name + b"h%d" % n for n in range(900)}, tails={b"1": name})
            )
        assert await store.gather([], 0) == ([], [])
        places = [("s.1", b"1"), ("s.0", b"1"), ("s.9", b"1"), ("s.1", b"none"), ("s.1", b"1"), ("s.2", b"7")]
        heads, tails = await store.gather(places, 4)
        assert heads == [b"s.1h1", b"s.0h1", b"", b"", b"s.1h1", b"s.2h7"]
        assert tails == [b"s.1", b"s.0", b"", b""]
        many = [(f"s.{n % 3}", b"%d" % (n % 900)) for n in range(5_000)]  # more than goes into one command
        for tailed in (0, 1_500, 5_000):
            heads, tails = await store.gather(many, tailed)
            assert heads == [shard.encode() + b"h" + key for shard, key in many]
            assert tails == [shard.encode() if key == b"1" else b"" for shard, key in many[:tailed]]

    given.play(story)


def test_none_deletes_a_field_of_the_table(given: Given) -> None:
    async def story(store: Store) -> None:
        await store.write("s.0", 0, Change(b"1", table={b"a": b"1", b"b": b"2"}))
        await store.write("s.0", 1, Change(b"2", table={b"a": None, b"never there": None, b"c": b"3"}))
        assert (await store.open("s.0")).table == {b"b": b"2", b"c": b"3"}
        await store.write("s.0", 2, Change(b"3", table={b"b": None, b"c": None}))
        assert (await store.open("s.0")).table == {}

    given.play(story)


def test_a_writer_that_has_been_replaced_changes_nothing(given: Given) -> None:
    async def story(store: Store) -> None:
        await store.write("s.0", 0, Change(b"1", b"out", {b"f": b"1"}, {b"a": b"head"}, {b"a": b"tail"}))
        before = await store.open("s.0"), await store.read("s.0", [b"a", b"z"])
        stale = Change(b"X", b"X", {b"f": None, b"z": b"X"}, {b"a": b"X", b"z": b"X"}, {b"a": b"X"}, [b"a"])
        for seen in (0, 2, 7):
            with pytest.raises(Fenced, match=f"version 1, this writer saw {seen}"):
                await store.write("s.0", seen, stale)
        assert (await store.open("s.0"), await store.read("s.0", [b"a", b"z"])) == before

    given.play(story)


def test_a_write_may_leave_versions_out(given: Given) -> None:
    async def story(store: Store) -> None:
        assert await store.write("s.0", 0, Change(b"1", version=7)) == 7
        assert await store.write("s.0", 7, Change(b"2", version=3)) == 8, "it is raised all the same"
        assert (await store.open("s.0")).version == 8
        with pytest.raises(Fenced, match="version 8, this writer saw 2"):
            await store.write("s.0", 2, Change(b"X", version=9))

    given.play(story)


def test_of_two_writers_that_saw_the_same_one_wins(given: Given) -> None:
    async def story(store: Store) -> None:
        changes = [Change(b"%d" % n, heads={b"a": b"%d" % n}, table={b"f": b"%d" % n}) for n in range(8)]
        results = await asyncio.gather(*(store.write("s.0", 0, c) for c in changes), return_exceptions=True)
        winners = [n for n, result in enumerate(results) if result == 1]
        assert len(winners) == 1
        assert sum(isinstance(result, Fenced) for result in results) == 7, results
        won = b"%d" % winners[0]
        assert await store.open("s.0") == Saved(1, won, b"", {b"f": won})
        assert await store.read("s.0", [b"a"]) == [(won, b"")]

    given.play(story)


def test_any_bytes_are_fit_for_keys_fields_and_values(given: Given) -> None:
    async def story(store: Store) -> None:
        odd = [
            b"",
            b"\x00",
            b"a\x00b",
            b":h:",
            b"}:t:{",
            "Zürich ☃".encode(),
            b"\xff\xfe",
            b"\r\n",
            b"*",
            b"k" * 65_536,
        ]
        every = bytes(range(256))
        change = Change(every, every, {k: every + k for k in odd}, {k: k + b"h" for k in odd}, {k: k + b"t" for k in odd})
        await store.write("s.0", 0, change)
        assert await store.open("s.0") == Saved(1, every, every, {k: every + k for k in odd})
        assert await store.read("s.0", odd) == [(k + b"h", k + b"t") for k in odd]
        await store.write("s.0", 1, Change(b"", table=dict.fromkeys(odd), cut=odd))
        assert (await store.open("s.0")).table == {}
        assert await store.read("s.0", odd) == [(k + b"h", b"") for k in odd]

    given.play(story)


def test_shards_do_not_see_each_other(given: Given) -> None:
    async def story(store: Store) -> None:
        shards = ["s.1", "s.11", "s", "s.1.h", "t-s.1"]
        for shard in shards:
            name = shard.encode()
            await store.write(shard, 0, Change(name, table={b"f": name}, heads={b"1:h:a": name, b"a": name}))
        for shard in shards:
            name = shard.encode()
            assert await store.open(shard) == Saved(1, name, b"", {b"f": name})
            assert await store.read(shard, [b"a", b"h:a"]) == [(name, b""), (b"", b"")]

    given.play(story)


def test_a_wiped_project_begins_anew(given: Given) -> None:
    async def story(store: Store) -> None:
        keys = [b"%d" % n for n in range(3_000)]  # more than one round of the scan
        for shard in ("s.0", "s.1"):
            await store.write(shard, 0, Change(b"1", b"o", {b"f": b"1"}, dict.fromkeys(keys, b"h"), {b"0": b"t"}))
        await store.wipe()
        for shard in ("s.0", "s.1"):
            assert await store.open(shard) == Saved()
            assert set(await store.read(shard, keys)) == {(b"", b"")}
            assert await store.write(shard, 0, Change(b"1")) == 1

    given.play(story)


def test_a_large_write_is_one_write(given: Given) -> None:
    async def story(store: Store) -> None:
        heads = {b"entity %d" % n: b"h" * 150 for n in range(20_000)}
        table = {b"f%d" % n: b"v" for n in range(9_000)}
        await store.write("s.0", 0, Change(b"1", table=table, heads=heads, tails=heads, cut=list(heads)))
        assert (await store.open("s.0")).table == table
        assert set(await store.read("s.0", list(heads))) == {(b"h" * 150, b"h" * 150)}

    given.play(story)


@dataclass
class Model:
    """The naive twin: one dict for everything."""

    version: int = 0
    position: bytes = b""
    outbox: bytes = b""
    table: dict[bytes, bytes] = field(default_factory=dict)
    records: dict[bytes, tuple[bytes, bytes]] = field(default_factory=dict)

    def apply(self, change: Change) -> None:
        self.version, self.position, self.outbox = self.version + 1, change.position, change.outbox
        self.table = {k: v for k, v in {**self.table, **change.table}.items() if v is not None}
        self.records = {k: v for k, v in self.records.items() if k not in change.drops}
        for key in {*change.heads, *change.tails, *change.cut}:
            head, tail = self.records.get(key, (b"", b""))
            kept = b"" if key in change.cut else tail
            self.records[key] = change.heads.get(key, head), kept + change.tails.get(key, b"")


KEYS = st.sampled_from([b"a", b"b", b"\x00", b"a:b", b""])
BYTES = st.binary(max_size=6)
CHANGES = st.builds(
    Change,
    position=BYTES,
    outbox=BYTES,
    table=st.dictionaries(KEYS, st.none() | BYTES),
    heads=st.dictionaries(KEYS, BYTES),
    tails=st.dictionaries(KEYS, BYTES),
    cut=st.lists(KEYS),
    drops=st.lists(KEYS),
)
WRITES = st.lists(st.tuples(st.sampled_from(["s.0", "s.1"]), st.sampled_from([0, 0, 0, -1, 1]), CHANGES), max_size=12)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@random_input(writes=WRITES)
def test_any_writes_leave_what_a_dict_would_hold(given: Given, writes: list[tuple[str, int, Change]]) -> None:
    async def story(store: Store) -> None:
        models = {"s.0": Model(), "s.1": Model()}
        for shard, off, change in writes:
            model = models[shard]
            if off:
                with pytest.raises(Fenced):
                    await store.write(shard, model.version + off, change)
            else:
                assert await store.write(shard, model.version, change) == model.version + 1
                model.apply(change)
        keys = [b"a", b"b", b"\x00", b"a:b", b""]
        for shard, model in models.items():
            assert await store.open(shard) == Saved(model.version, model.position, model.outbox, model.table)
            assert await store.read(shard, keys) == [model.records.get(key, (b"", b"")) for key in keys]
        places = [(shard, key) for key in keys for shard in models]
        found = [models[shard].records.get(key, (b"", b"")) for shard, key in places]
        assert await store.gather(places, 7) == ([head for head, _ in found], [tail for _, tail in found[:7]])

    given.play(story)


def test_what_redis_holds_outlives_the_client_and_ends_with_its_project(redis_url: str) -> None:
    async def story() -> None:
        names = ["p" + uuid.uuid4().hex[:12]] * 2
        names[1] += "-2"  # the first name is a prefix of the second
        first, second = (RedisStore(redis_url, name) for name in names)
        await first.write("s.0", 0, Change(b"1", heads={b"a": b"first"}))
        await second.write("s.0", 0, Change(b"2", heads={b"a": b"second"}))
        await first.close()
        again = RedisStore(redis_url, names[0])
        assert (await again.open("s.0")).position == b"1"
        await again.wipe()
        assert (await again.open("s.0")).version == 0
        assert await second.read("s.0", [b"a"]) == [(b"second", b"")]
        await second.wipe()
        await again.close()
        await second.close()

    asyncio.run(story())


@pytest.fixture
def cluster_url(tmp_path: Path) -> Iterator[str]:
    """A Redis cluster of one node, which holds every slot and refuses commands over several."""

    class Clustered(LocalRedis):
        def _command(self) -> list[str]:
            return [*super()._command(), "--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"]

    server = Clustered(tmp_path)
    try:
        server.start()
    except LocalError as error:
        missing("Redis", str(error))
    with redis.Redis.from_url(server.url) as client:
        client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
        while client.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
            time.sleep(0.01)
    yield server.url
    server.kill()


def test_on_a_cluster_places_of_several_shards_are_gathered_too(cluster_url: str) -> None:
    async def story() -> None:
        store, reader = RedisStore(cluster_url, "p"), RedisReader(cluster_url, "p")
        for shard in ("s.0", "s.1", "s.2"):
            name = shard.encode()
            await store.write(shard, 0, Change(name, heads={b"%d" % n: name + b"%d" % n for n in range(600)}, tails={b"1": b"t"}))
        for places in ([(f"s.{n % 3}", b"1") for n in range(7)], [(f"s.{n % 3}", b"%d" % (n % 600)) for n in range(2_500)]):
            heads = [shard.encode() + key for shard, key in places]
            want = heads, [b"t" if key == b"1" else b"" for _, key in places[:5]]
            assert await store.gather(places, 5) == want
            assert await RedisStore(cluster_url, "p").gather(places, 5) == want
            assert reader.fetch(places, 5) == want
        assert reader.position("s.1") == await store.position("s.1") == b"s.1"
        assert await store.position("never") == b""
        await store.close()
        reader.close()

    asyncio.run(story())


@pytest.mark.parametrize("kind", ["memory", "redis"])
def test_shards_that_are_forgotten_are_as_if_they_had_never_been(kind: str, request: pytest.FixtureRequest) -> None:
    async def story() -> None:
        project = "p" + uuid.uuid4().hex[:12]
        store: Store = MemoryStore() if kind == "memory" else RedisStore(request.getfixturevalue("redis_url"), project)
        for shard in ("s.0", "s.1", "s.10"):
            await store.write(shard, 0, Change(b"1", heads={b"a": b"x"}, tails={b"a": b"y"}, table={b"f": b"g"}))
        await store.wipe(["s.0", "s.1", "never"])
        assert [(await store.open(shard)).version for shard in ("s.0", "s.1", "s.10")] == [0, 0, 1]
        assert await store.read("s.1", [b"a"]) == [(b"", b"")]
        assert await store.read("s.10", [b"a"]) == [(b"x", b"y")]
        await store.wipe()
        assert (await store.open("s.10")).version == 0
        await store.close()

    asyncio.run(story())


def test_a_writer_whose_connection_was_cut_writes_on_over_another(redis_url: str) -> None:
    async def story() -> None:
        store, other = (RedisStore(redis_url, project) for project in ["p" + uuid.uuid4().hex[:12]] * 2)
        assert await store.write("s.0", 0, Change(b"1")) == 1
        with redis.Redis.from_url(redis_url) as client:
            client.client_kill_filter(_type="normal", skipme=True)
        with contextlib.suppress(StoreError):  # as the end of a connection may be seen only when it is used: then repeat
            await store.write("s.0", 1, Change(b"2"))
        if (await other.open("s.0")).version == 1:
            assert await store.write("s.0", 1, Change(b"2")) == 2
        assert await other.write("s.0", 2, Change(b"3")) == 3
        with pytest.raises(Fenced, match="version 3, this writer saw 2"):
            await store.write("s.0", 2, Change(b"4"))
        assert await store.write("s.0", 3, Change(b"4")) == 4  # as after opening it anew
        assert (await other.open("s.0")).position == b"4"
        await store.wipe()
        await store.close()
        await other.close()

    asyncio.run(story())


def test_what_redis_refuses_of_a_write_changes_nothing(tmp_path: Path) -> None:
    async def story(url: str) -> None:
        store = RedisStore(url, "p")
        assert await store.write("s.0", 0, Change(b"1", heads={b"a": b"before"})) == 1
        with redis.Redis.from_url(url) as client:
            client.config_set("maxmemory", 1)
        with pytest.raises(StoreError, match=r"used memory.*penstock doctor"):
            await store.write("s.0", 1, Change(b"2", heads={b"a": b"after"}, tails={b"a": b"after"}))
        with redis.Redis.from_url(url) as client:
            client.config_set("maxmemory", 0)
        assert (await store.open("s.0")).position == b"1"
        assert await store.read("s.0", [b"a"]) == [(b"before", b"")]
        assert await store.write("s.0", 1, Change(b"2", heads={b"a": b"after"})) == 2
        await store.close()

    server = LocalRedis(tmp_path)
    try:
        server.start()
    except LocalError as error:
        missing("Redis", str(error))
    try:
        asyncio.run(story(server.url))
    finally:
        server.kill()


def test_a_write_of_which_redis_could_not_do_all_is_never_called_done(redis_url: str) -> None:
    """A transaction goes on past a command that fails in it: here somebody else has put a list where a tail should be."""

    async def story() -> None:
        project = "p" + uuid.uuid4().hex[:12]
        store = RedisStore(redis_url, project)
        assert await store.write("s.0", 0, Change(b"1")) == 1
        with redis.Redis.from_url(redis_url) as client:
            client.rpush(f"penstock:{project}:{{s.0}}:t:a", "strange")
        with pytest.raises(StoreError, match="WRONGTYPE"):
            await store.write("s.0", 1, Change(b"2", heads={b"a": b"head"}, tails={b"a": b"tail"}))
        await store.wipe()
        await store.close()

    asyncio.run(story())


def test_a_redis_that_is_not_there_is_said_without_the_password() -> None:
    async def story() -> None:
        store = RedisStore("redis://user:secret@127.0.0.1:1/0", "p")
        for attempt in (
            store.open("s.0"),
            store.read("s.0", [b"a"]),
            store.write("s.0", 0, Change(b"")),
            store.wipe(),
        ):
            with pytest.raises(StoreError, match=r"127\.0\.0\.1:1.*penstock doctor") as caught:
                await asyncio.wait_for(attempt, 10)
            assert "secret" not in str(caught.value)
        await store.close()

    asyncio.run(story())


@pytest.mark.parametrize("name", ["", "a}b", "a:b", "a b", "a*"])
def test_names_that_could_meet_others_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no name for a project or shard"):
        RedisStore("redis://127.0.0.1:1/0", name)

    async def story() -> None:
        store = RedisStore("redis://127.0.0.1:1/0", "p")
        with pytest.raises(ValueError, match="no name for a project or shard"):
            await store.open(name)
        await store.close()

    asyncio.run(story())
