"""POST /events takes CloudEvents in every mode and bare JSON, publishes all of a request or nothing, and says where it lies."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import httpx
import pytest
from tests.services.air import EVENT, TOPICS, Door, said_wrong

from penstock.log import LogError, Partition, Send
from penstock.publish import Publisher
from penstock.services.inference.gateway import recorder

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
HEADERS = {"ce-specversion": "1.0", "ce-id": "7", "ce-source": "/tills%201/%E2%82%AC", "ce-type": "flight.left"}
CLOUD = {"specversion": "1.0", "id": "7", "source": "/tills 1/€", "type": "flight.left"}
ONE, BATCH = "application/cloudevents+json; charset=UTF-8", "application/cloudevents-batch+json"


def flights(n: int) -> list[dict[str, Any]]:
    return [{**EVENT, "flight": f"f{i}", "origin": f"o{i % 3}"} for i in range(n)]


def wrapped(event: Any, **changes: Any) -> dict[str, Any]:
    return {**CLOUD, "data": event, **changes}


def sent(door: Door) -> list[Send]:
    return [record for record in door.log.sent if record.topic == "flights"]


def taken(record: Send) -> tuple[Any, dict[str, bytes]]:
    return json.loads(record.value or b""), dict(record.headers)


class TestModes:
    def test_binary(self, door: Door) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            headers = {**HEADERS, "ce-time": "2024-01-01T00:00:00Z", "ce-partitionkey": "x", "traceparent": TRACE}
            answer = await client.post("/events/flights", json=EVENT, headers=headers)
            assert (answer.status_code, answer.json()) == (
                202,
                {"positions": [{"topic": "flights", "partition": 0, "offset": 0}]},
            )
            (record,) = sent(door)
            value, found = taken(record)
            assert (value, record.key) == (EVENT, b"JFK")
            assert found == {
                "ce_specversion": b"1.0", "ce_id": b"7", "ce_source": "/tills 1/€".encode(), "ce_type": b"flight.left",
                "ce_time": b"2024-01-01T00:00:00Z", "content-type": b"application/json", "ce_partitionkey": b"JFK",
                "traceparent": TRACE.encode(),
            }  # fmt: skip

        door.run(talk)

    @pytest.mark.parametrize("named", ["arrivals", "Arrival", "{prefix}.arrivals.v1"])
    def test_a_type_that_names_another_event_is_refused_and_any_other_is_the_producers_own(self, door: Door, named: str) -> None:
        named = named.format(prefix=TOPICS.prefix)

        async def talk(client: httpx.AsyncClient) -> None:
            answer = await client.post("/events/flights", json=EVENT, headers={**HEADERS, "ce-type": named})
            assert (answer.status_code, said_wrong(answer)) == (
                400, f"type {named!r} names another event: POST it to /events/arrivals",
            )  # fmt: skip
            assert sent(door) == []
            for own in ("com.example.flight.left", "Flight", "flights", f"{TOPICS.prefix}.flights.v1"):
                answer = await client.post("/events/flights", json=EVENT, headers={**HEADERS, "ce-type": own})
                assert answer.status_code == 202
                assert taken(sent(door)[-1])[1]["ce_type"] == own.encode()

        door.run(talk)

    @pytest.mark.parametrize("data", ["data", "data_base64"])
    def test_structured(self, door: Door, data: str) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            packed = EVENT if data == "data" else base64.b64encode(json.dumps(EVENT).encode()).decode()
            said = {**CLOUD, data: packed, "subject": None, "priority": 3, "urgent": True, "traceparent": TRACE}
            answer = await client.post("/events/flights", content=json.dumps(said), headers={"content-type": ONE})
            assert answer.status_code == 202
            value, found = taken(*sent(door))
            assert value == EVENT
            assert (found["ce_priority"], found["ce_urgent"], found["traceparent"]) == (b"3", b"true", TRACE.encode())
            assert "ce_subject" not in found

        door.run(talk)

    def test_batch(self, door: Door) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            batch = [wrapped(event, id=str(n)) for n, event in enumerate(flights(50))]
            answer = await client.post("/events/flights", content=json.dumps(batch), headers={"content-type": BATCH})
            assert [place["offset"] for place in answer.json()["positions"]] == list(range(50))
            assert [taken(record)[1]["ce_id"] for record in sent(door)] == [b"%d" % n for n in range(50)]

        door.run(talk)

    def test_an_empty_batch_is_taken(self, door: Door) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            answer = await client.post("/events/flights", content="[]", headers={"content-type": BATCH})
            assert (answer.status_code, answer.json()) == (202, {"positions": []})

        door.run(talk)

    @pytest.mark.parametrize("kind", ["application/json", "application/x-www-form-urlencoded", ""])
    def test_bare_json_is_published_as_a_publisher_would(self, door: Door, kind: str) -> None:
        """Also as curl --data sends it."""

        async def talk(client: httpx.AsyncClient) -> None:
            body, headers = json.dumps(EVENT).encode(), {"content-type": kind} if kind else {}
            assert (await client.post("/events/flights", content=body, headers=headers)).status_code == 202
            assert (await client.post("/events/flights", json=flights(3))).status_code == 202
            await Publisher(door.log, TOPICS).send("flights", [(b"JFK", body, 1704067200000000)])
            assert sent(door)[0]._replace(partition=None) == sent(door)[-1]
            assert len(sent(door)) == 5

        door.run(talk)


class TestRefusals:
    @pytest.mark.parametrize(
        ("body", "headers", "status", "words"),
        [
            (EVENT, {**HEADERS, "ce-id": ""}, 400, "without id"),
            (EVENT, {**HEADERS, "ce-specversion": "0.3"}, 400, "is not 1.0"),
            (EVENT, {**HEADERS, "ce-source": "%C0%A0"}, 400, "percent-encoded"),
            (EVENT, {**HEADERS, "ce-my_own": "x"}, 400, "no name of an attribute"),
            (EVENT, {**HEADERS, "ce-long": "x" * 9000}, 413, "at most 8192"),
            (EVENT, {**HEADERS, "ce-evil": "a%0Ab"}, 400, "control character"),
            (EVENT, {**HEADERS, "content-type": "application/avro"}, 415, "events are JSON"),
            (EVENT, {"content-type": "application/cloudevents+avro"}, 415, "is not taken"),
            (EVENT, {"content-type": "application/json; charset=utf-16"}, 415, "is not utf-8"),
            (EVENT, {"content-encoding": "gzip"}, 415, "uncompressed"),
            (wrapped(EVENT, data_base64="e30="), {"content-type": ONE}, 400, "either data or data_base64"),
            (CLOUD, {"content-type": ONE}, 400, "without data"),
            ({**CLOUD, "data_base64": "!"}, {"content-type": ONE}, 400, "not a CloudEvent"),
            ({**CLOUD, "data": EVENT, "source": [1]}, {"content-type": ONE}, 400, "not a CloudEvent"),
            (wrapped(EVENT, datacontenttype="text/xml"), {"content-type": ONE}, 415, "events are JSON"),
            (wrapped(EVENT), {"content-type": BATCH}, 400, "not a list"),
            ({**EVENT, "distance": "far"}, {}, 400, "distance"),
            ({**EVENT, "at": "2999-01-01T00:00:00Z"}, {}, 400, "in the future"),
            ({**EVENT, "more": "x" * (1 << 20)}, {}, 413, "longer than"),
            (flights(1001), {}, 413, "1001 events are more than 1000"),
        ],
    )  # fmt: skip
    def test_what_is_no_event_is_not_published(
        self, door: Door, body: Any, headers: dict[str, str], status: int, words: str
    ) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            answer = await client.post("/events/flights", content=json.dumps(body), headers=headers)
            assert answer.status_code == status
            assert words in said_wrong(answer)
            assert sent(door) == []

        door.run(talk)

    def test_one_bad_event_refuses_the_batch_with_its_index(self, door: Door) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            batch = [wrapped(event) for event in flights(5)]
            batch[2]["data"] = {**EVENT, "night": "perhaps"}
            del batch[4]["type"]
            answer = await client.post("/events/flights", content=json.dumps(batch), headers={"content-type": BATCH})
            assert answer.status_code == 400
            said = said_wrong(answer)
            assert "2 of 5 events cannot be taken, so none was published" in said
            assert "event 2: Flight" in said
            assert "event 4: a CloudEvent without type" in said
            assert sent(door) == []

        door.run(talk)

    def test_what_its_topic_does_not_take_is_too_large_and_not_to_be_sent_again(self, door: Door) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            plain = len(json.dumps({**EVENT, "more": ""}, separators=(",", ":")))
            body = json.dumps({**EVENT, "more": "x" * ((1 << 20) - plain)}, separators=(",", ":"))
            answer = await client.post("/events/flights", content=body)
            assert answer.status_code == 413
            assert "retry-after" not in answer.headers
            assert "takes 1,048,576 bytes" in said_wrong(answer)
            assert sent(door) == [] or (await door.log.ends(["flights"])) == {Partition("flights", 0): 0}

        door.run(talk)

    def test_no_such_event_and_no_such_method(self, door: Door) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            answer = await client.post("/events/trains", json=EVENT)
            assert answer.status_code == 404
            assert "there is: flights, arrivals" in said_wrong(answer)
            answer = await client.post("/events/Flight", json=EVENT)
            assert (answer.status_code, said_wrong(answer)) == (
                404,
                "events go to their topic: that of Flight is /events/flights",
            )
            answer = await client.get("/events/flights")
            assert (answer.status_code, answer.headers["allow"]) == (405, "POST")

        door.run(talk)


class TestPressure:
    def test_a_log_that_is_away_is_said_and_asked_again(self, door: Door) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            door.log.trouble = LogError("the broker is away")
            answer = await client.post("/events/flights", json=EVENT)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert "the broker is away" in said_wrong(answer)
            door.log.trouble = None
            assert (await client.post("/events/flights", json=EVENT)).status_code == 202

        door.run(talk)

    def test_what_finds_no_room_in_the_queue_is_refused_and_nothing_else(
        self, door: Door, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(recorder, "QUEUE", 10)
        monkeypatch.setattr(recorder, "AT_ONCE", 1)

        async def talk(client: httpx.AsyncClient) -> None:
            asked = [client.post("/events/flights", json=flights(4)) for _ in range(40)]
            answers = await asyncio.gather(*asked)
            refused = [answer for answer in answers if answer.status_code == 503]
            assert refused
            assert all(answer.headers["retry-after"] == "1" for answer in refused)
            assert len(sent(door)) == 4 * (len(answers) - len(refused)) > 0

        door.run(talk)

    def test_concurrent_requests_are_told_their_own_positions(self, door: Door) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            async def one(n: int) -> None:
                events = [{**EVENT, "flight": f"{n}-{i}"} for i in range(n % 4 + 1)]
                for event, place in zip(
                    events, (await client.post("/events/flights", json=events)).json()["positions"], strict=True
                ):
                    assert taken(sent(door)[place["offset"]])[0]["flight"] == event["flight"]

            await asyncio.gather(*map(one, range(40)))

        door.run(talk)
