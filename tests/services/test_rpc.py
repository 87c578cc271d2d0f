"""The Open Inference Protocol over gRPC, as tritonclient speaks it: the models, answers and sentences of HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tests.services import graphs
from tests.services.air import TOPICS, Door
from tests.services.served import ROWS, asking, put, word

from penstock.errors import PenstockError, SettingError
from penstock.log.memory import MemoryLog
from penstock.services.__main__ import Machine, inference
from penstock.services.inference.open_inference.datatypes import DATATYPES
from penstock.services.inference.open_inference.protocol import Limits, OpenInference
from penstock.services.inference.open_inference.repository import Repository, named
from penstock.services.inference.open_inference.rpc_port import rpc_port
from penstock.services.inference.open_inference.serve import Serve
from penstock.settings import load as load_settings

grpc = pytest.importorskip("grpc")
triton = pytest.importorskip("tritonclient.grpc.aio")
messages = pytest.importorskip("penstock.services.inference.open_inference.messages")

Talk = Callable[[Any, Repository, httpx.AsyncClient], Awaitable[None]]
ARRAY = np.array(ROWS, np.float32)


def run(words: list[str], talk: Talk, admin: bool = False, limits: Limits = Limits(), **options: Any) -> None:
    """A repository behind gRPC and HTTP at once."""

    async def whole() -> None:
        repository = Repository([named(one) for one in words], **options)
        await repository.open()
        app = Serve(repository, limits, admin)
        async with rpc_port(app.protocol, "127.0.0.1", 0) as place:
            transport = httpx.ASGITransport(app)
            async with (
                triton.InferenceServerClient(place) as client,
                httpx.AsyncClient(transport=transport, base_url="http://p") as http,
            ):
                await talk(client, repository, http)

    asyncio.run(whole())


def input_of(array: Any, name: str = "x", datatype: str = "FP32") -> Any:
    made = triton.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array)
    return made


async def refused(call: Awaitable[Any], status: str) -> str:
    """The sentence of a refusal."""
    with pytest.raises(triton.InferenceServerException) as caught:
        await call
    assert caught.value.status() == f"StatusCode.{status}", caught.value
    return str(caught.value.message())


def test_the_messages_are_those_of_the_protocol() -> None:
    from tritonclient.grpc import service_pb2

    theirs: dict[str, Any] = {}

    def known(types: Any) -> None:
        for name, of in types.items():
            theirs[name] = of
            known(of.nested_types_by_name)

    known(service_pb2.DESCRIPTOR.message_types_by_name)
    renamed = {"Parameter": "ParametersEntry", "InferTensor": "InferInputTensor", "RequestedOutput": "InferRequestedOutputTensor"}
    names = {ours: renamed.get(ours, ours) for ours in messages.MESSAGES}
    for ours, name in names.items():
        fields = {field.name: field for field in theirs[name].fields}
        for field in messages.MESSAGES[ours].DESCRIPTOR.fields:
            same = fields[field.name]
            assert (field.number, field.type, field.is_repeated) == (same.number, same.type, same.is_repeated), (ours, field.name)
    calls = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    assert set(messages.CALLS) <= set(calls)
    assert service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name == messages.SERVICE


def test_every_call_answers_as_over_http(tmp_path: Path) -> None:
    async def talk(client: Any, repository: Repository, http: httpx.AsyncClient) -> None:
        assert await client.is_server_live() and await client.is_server_ready()
        assert await client.is_model_ready("double") and await client.is_model_ready("double", "1")
        server, same = await client.get_server_metadata(as_json=True), (await http.get("/v2")).json()
        assert server == same
        model, same = await client.get_model_metadata("double", as_json=True), (await http.get("/v2/models/double")).json()
        del same["parameters"]
        for tensor in (*model["inputs"], *model["outputs"]):
            tensor["shape"] = [int(size) for size in tensor["shape"]]
        assert model == same
        outputs = [triton.InferRequestedOutput("y")]
        answer = await client.infer("double", [input_of(ARRAY)], "1", outputs=outputs, request_id="7")
        found = answer.get_response()
        assert (found.id, found.model_name, found.model_version) == ("7", "double", "1")
        assert (answer.as_numpy("y") == ARRAY * 2).all()
        (statistics,) = (await client.get_inference_statistics("double", as_json=True))["model_stats"]
        assert (statistics["name"], statistics["inference_count"], statistics["execution_count"]) == ("double", "2", "1")
        (same,) = (await http.get("/v2/models/double/stats")).json()["model_stats"]
        assert int(statistics["inference_stats"]["success"]["ns"]) == same["inference_stats"]["success"]["ns"] > 0
        assert len((await client.get_inference_statistics(as_json=True))["model_stats"]) == 1

    run([word(tmp_path, "double/1", graphs.scaled(2.0))], talk)


def test_every_datatype_comes_back_raw_and_in_contents(tmp_path: Path) -> None:
    request, tensor = messages.MESSAGES["ModelInferRequest"], messages.MESSAGES["InferTensor"]
    fields = {
        "BOOL": "bool", "UINT8": "uint", "UINT16": "uint", "UINT32": "uint", "UINT64": "uint64", "INT8": "int", "INT16": "int",
        "INT32": "int", "INT64": "int64", "FP32": "fp32", "FP64": "fp64", "BYTES": "bytes",
    }  # fmt: skip

    def value(name: str) -> Any:
        if name == "BYTES":
            return np.array([["ä".encode(), b""], [b"b", b"c"]], object)
        return np.array([[1, 0], [1, 1]] if name == "BOOL" else [[1, 0], [3, 4]], DATATYPES[name])

    async def talk(client: Any, repository: Repository, http: httpx.AsyncClient) -> None:
        answer = await client.infer("echo", [input_of(value(name), name, name) for name in DATATYPES])
        for name in DATATYPES:
            assert (answer.as_numpy(f"{name}_back") == value(name)).all()
        ask = client._channel.unary_unary(
            f"/{messages.SERVICE}/ModelInfer", request.SerializeToString, messages.MESSAGES["ModelInferResponse"].FromString
        )
        whole = request(model_name="typed")
        for name, field in fields.items():
            one = tensor(name=name, datatype=name, shape=[2, 2])
            getattr(one.contents, f"{field}_contents").extend(value(name).ravel().tolist())
            whole.inputs.append(one)
        found = await ask(whole)
        assert not found.raw_output_contents
        for output in found.outputs:
            back = getattr(output.contents, f"{fields[output.datatype]}_contents")
            assert list(back) == value(output.datatype).ravel().tolist(), output.name

    half = [name for name in graphs.TYPES if name != "FP16"]
    run([word(tmp_path, "echo", graphs.echo()), word(tmp_path, "typed", graphs.echo(half))], talk)


def test_refusals_have_a_code_and_the_sentence_of_http(tmp_path: Path) -> None:
    async def talk(client: Any, repository: Repository, http: httpx.AsyncClient) -> None:
        said = await refused(client.infer("treble", [input_of(ARRAY)]), "NOT_FOUND")
        assert said == (await http.post("/v2/models/treble/infer", json=asking())).json()["error"]
        said = await refused(client.infer("double", [input_of(ARRAY)], "9"), "NOT_FOUND")
        assert said == (await http.get("/v2/models/double/versions/9")).json()["error"]
        for call in (client.get_model_metadata("treble"), client.is_model_ready("treble")):
            await refused(call, "NOT_FOUND")
        wide = np.ones((2, 4), np.float32)
        said = await refused(client.infer("double", [input_of(wide)]), "INVALID_ARGUMENT")
        body = asking({"name": "x", "shape": [2, 4], "datatype": "FP32", "data": [1.0] * 8})
        assert said == (await http.post("/v2/models/double/infer", json=body)).json()["error"]
        assert "no input 'z'" in await refused(client.infer("double", [input_of(ARRAY, "z")]), "INVALID_ARGUMENT")
        assert "one each of 'x'" in await refused(client.infer("double", []), "INVALID_ARGUMENT")
        twice = await refused(client.infer("double", [input_of(ARRAY), input_of(ARRAY)]), "INVALID_ARGUMENT")
        assert "one each of 'x'" in twice
        wrong = [triton.InferRequestedOutput("z")]
        assert "no output 'z'" in await refused(client.infer("double", [input_of(ARRAY)], outputs=wrong), "INVALID_ARGUMENT")
        classes = [triton.InferRequestedOutput("y", class_count=2)]
        said = await refused(client.infer("double", [input_of(ARRAY)], outputs=classes), "INVALID_ARGUMENT")
        assert "classification" in said
        many = await refused(client.infer("double", [input_of(np.ones((11, 3), np.float32))]), "RESOURCE_EXHAUSTED")
        assert many == "11 rows are more than 10 in one request"
        large = np.ones((30_000, 3), np.float32)
        await refused(client.infer("double", [input_of(large)]), "RESOURCE_EXHAUSTED")
        await refused(client.get_model_repository_index(), "PERMISSION_DENIED")
        assert (await client.infer("double", [input_of(ARRAY)])).as_numpy("y")[1, 2] == 12.0

    run([word(tmp_path, "double/1", graphs.scaled(2.0))], talk, limits=Limits(body=100_000, rows=10))


def test_a_compressed_message_is_not_unpacked(tmp_path: Path) -> None:
    async def talk(client: Any, repository: Repository, http: httpx.AsyncClient) -> None:
        with pytest.raises(triton.InferenceServerException) as caught:
            await client.infer("double", [input_of(np.zeros((10_000, 3), np.float32))], compression_algorithm="gzip")
        assert caught.value.status() in ("StatusCode.UNIMPLEMENTED", "StatusCode.INTERNAL"), caught.value
        assert (await client.infer("double", [input_of(ARRAY)])).as_numpy("y")[0, 0] == 2.0

    run([word(tmp_path, "double", graphs.scaled(2.0))], talk)


BAD: dict[str, Callable[[Any], Any]] = {
    "raw bytes that are too few": lambda m: m.raw_input_contents.append(b"\0" * 20),
    "raw bytes that are too many": lambda m: m.raw_input_contents.append(b"\0" * 28),
    "raw contents for another number of inputs": lambda m: m.raw_input_contents.extend([b"\0" * 24] * 2),
    "raw and typed contents": lambda m: (m.raw_input_contents.append(b"\0" * 24), m.inputs[0].contents.fp32_contents.append(1.0)),
    "contents of another type": lambda m: m.inputs[0].contents.fp64_contents.extend([1.0] * 6),
    "contents that are too few": lambda m: m.inputs[0].contents.fp32_contents.extend([1.0] * 5),
    "no contents": lambda m: None,
    "an unknown datatype": lambda m: setattr(m.inputs[0], "datatype", "BF16"),
    "a negative shape": lambda m: m.inputs[0].shape.__setitem__(0, -2),
    "a huge shape": lambda m: m.inputs[0].shape.__setitem__(0, 2**62),
}


@pytest.mark.parametrize("name", BAD)
def test_a_message_that_lies_is_refused_and_the_next_is_answered(tmp_path: Path, name: str) -> None:
    kind, given = messages.CALLS["ModelInfer"]

    async def talk(client: Any, repository: Repository, http: httpx.AsyncClient) -> None:
        ask = client._channel.unary_unary(f"/{messages.SERVICE}/ModelInfer", kind.SerializeToString, given.FromString)
        message = kind(model_name="double")
        message.inputs.add(name="x", datatype="FP32", shape=[2, 3])
        BAD[name](message)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(message)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, caught.value.details()
        raw = client._channel.unary_unary(f"/{messages.SERVICE}/ModelInfer", lambda data: data, given.FromString)
        with pytest.raises(grpc.aio.AioRpcError):
            await raw(b"\xff" * 40)
        assert (await client.infer("double", [input_of(ARRAY)])).as_numpy("y")[0, 0] == 2.0

    run([word(tmp_path, "double", graphs.scaled(2.0))], talk)


@pytest.mark.parametrize(("datatype", "field", "value"), [("INT8", "int_contents", 128), ("UINT16", "uint_contents", 65_536)])
def test_a_number_that_its_datatype_cannot_hold_is_refused(tmp_path: Path, datatype: str, field: str, value: int) -> None:
    kind, given = messages.CALLS["ModelInfer"]

    async def talk(client: Any, repository: Repository, http: httpx.AsyncClient) -> None:
        ask = client._channel.unary_unary(f"/{messages.SERVICE}/ModelInfer", kind.SerializeToString, given.FromString)
        message = kind(model_name="echo")
        one = message.inputs.add(name=datatype, datatype=datatype, shape=[1, 2])
        getattr(one.contents, field).extend([value, 0])
        with pytest.raises(grpc.aio.AioRpcError, match=f"a value that {datatype} cannot hold"):
            await ask(message)

    run([word(tmp_path, "echo", graphs.echo([datatype]))], talk)


def test_an_administrator_lists_unloads_and_loads(tmp_path: Path) -> None:
    async def talk(client: Any, repository: Repository, http: httpx.AsyncClient) -> None:
        (entry,) = (await client.get_model_repository_index(as_json=True))["models"]
        assert (entry["name"], entry["state"]) == ("double", "READY")
        await client.unload_model("double")
        assert not await client.is_model_ready("double")
        assert "unloaded" in await refused(client.infer("double", [input_of(ARRAY)]), "UNAVAILABLE")
        await client.load_model("double")
        assert await client.is_model_ready("double")
        said = await refused(client.load_model("double", config="{}"), "INVALID_ARGUMENT")
        assert "parameters of load are not supported" in said

    run([word(tmp_path, "double", graphs.scaled(2.0))], talk, admin=True)


def test_requests_of_both_ways_share_batches_and_a_swap_loses_none(tmp_path: Path) -> None:
    place = put(tmp_path / "m.onnx", graphs.scaled(2.0))

    async def talk(client: Any, repository: Repository, http: httpx.AsyncClient) -> None:
        async def ask(n: int) -> float:
            row = np.full((1, 3), n, np.float32)
            if n % 2:
                return float((await client.infer("m", [input_of(row)])).as_numpy("y")[0, 0])
            body = asking({"name": "x", "shape": [1, 3], "datatype": "FP32", "data": row.ravel().tolist()})
            return float((await http.post("/v2/models/m/infer", json=body)).json()["outputs"][0]["data"][0])

        first = [asyncio.create_task(ask(n)) for n in range(100)]
        put(place, graphs.scaled(3.0))
        await repository.look()
        await repository.look()
        second = await asyncio.gather(*(ask(n) for n in range(100)))
        assert all(found in (2.0 * n, 3.0 * n) for n, found in enumerate(await asyncio.gather(*first)))
        assert second == [3.0 * n for n in range(100)]

    run([f"m={place}"], talk)


def test_a_port_that_cannot_be_is_refused_in_words(tmp_path: Path) -> None:
    repository = Repository([named(word(tmp_path, "double", graphs.scaled(2.0)))])
    protocol = OpenInference(repository)

    async def opened(host: str, port: int) -> None:
        async with rpc_port(protocol, host, port) as place, rpc_port(protocol, host, int(place.rpartition(":")[2])):
            pass

    with pytest.raises(PenstockError, match="cannot be listened on for gRPC"):
        asyncio.run(opened("127.0.0.1", 0))
    with pytest.raises(PenstockError, match=r"gRPC on 0\.0\.0\.0 would let in anyone"):
        asyncio.run(opened("0.0.0.0", 0))


def test_where_http_asks_for_keys_the_gateway_does_not_answer_grpc_which_asks_for_none(tmp_path: Path) -> None:
    settings = load_settings(
        REDIS_URL="redis://127.0.0.1:1", data=tmp_path, http_keys=str(tmp_path / "keys.json"), inference_grpc_port=8809
    )
    machine: Any = Machine("inference", settings, TOPICS, MemoryLog())
    with pytest.raises(SettingError, match="gRPC asks for no keys, which HTTP here does"):
        inference(machine)


def test_without_the_extra_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "grpc", None)
    monkeypatch.delitem(sys.modules, "penstock.services.inference.open_inference.rpc", raising=False)
    protocol = OpenInference(Repository([named(word(tmp_path, "double", graphs.scaled(2.0)))]))

    async def opened() -> None:
        async with rpc_port(protocol, "127.0.0.1", 0):
            pass

    with pytest.raises(PenstockError, match="gRPC needs the package grpc, which is not installed") as caught:
        asyncio.run(opened())
    assert caught.value.fix == 'pip install "penstock[grpc]"'


def test_the_gateway_answers_by_grpc_with_who_is_on_duty(door: Door) -> None:
    async def whole() -> None:
        app, rows = door.app(), np.array([[3.0, 2.5, 100.5, 1, 200], [0, np.nan, -7.5, 0, np.nan]], np.float32)
        decisions = [door.said("champion", "v1"), door.said("challenger", "v2", "canary", 0.99)]
        async with (
            door.opened(*decisions, app=app) as http,
            rpc_port(app.state.open_inference, "127.0.0.1", 0) as place,
            triton.InferenceServerClient(place) as client,
        ):
            answer = await client.infer("late", [input_of(rows, "X")])
            assert answer.get_response().model_version == "v1"
            expected = [door.world.answer("v1", [None if value != value else value for value in row]) for row in rows.tolist()]
            assert answer.as_numpy("score") == pytest.approx(expected, abs=1e-6)
            said = await refused(client.infer("late", [input_of(rows, "X")], "v9"), "NOT_FOUND")
            assert said == (await http.get("/v2/models/late/versions/v9")).json()["error"]
            await refused(client.load_model("late"), "PERMISSION_DENIED")

    asyncio.run(whole())
