"""Python functions served: in a process of their own, which may fail, hang or die, before and after a model."""

from __future__ import annotations

import asyncio
import gc
import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from tests.services import graphs
from tests.services.air import late
from tests.services.test_serving import put, run

from penstock.errors import PenstockError, Refused
from penstock.scoring import process, wire
from penstock.scoring.graph import Graph
from penstock.scoring.process import Bounds, Function, FunctionFailed
from penstock.services.inference.gateway import onduty
from penstock.services.inference.open_inference.repository import Repository

PREPARE = '''
import os
import subprocess
import sys
import time

import numpy as np

import penstock as ps

print("a function may print")


@ps.function(takes={"amount": "FP64[*]", "country": "BYTES[*]"}, gives={"x": "FP32[*, 3]"})
def prepare(amount, country):
    if (country == "??").any():
        raise ps.PenstockError("nobody knows the country ??")
    amount[np.isnan(amount)] = -1  # its own copy
    return {"x": np.stack([amount, country == "NL", np.full(len(amount), len(amount))], axis=1).astype(np.float32)}


@ps.function(takes={"y": "FP32[*, 3]", "country": "BYTES[*]"}, gives={"total": "FP64[*]", "said": "BYTES[*]"})
def finish(y, country):
    total = y[:, :2].sum(axis=1, dtype=np.float64)
    return {"total": total, "said": np.array([f"{c} {t:g}" for c, t in zip(country, total)], object)}


@ps.function(takes={"do": "BYTES[*]"}, gives={"pid": "INT64[*]"})
def obey(do):
    """Does what the rows say."""
    for word in do:
        if word == "raise":
            raise ValueError("secret inner words")
        if word == "hang":
            time.sleep(60)
        if word == "spin":
            while True:
                pass
        if word == "die":
            os.kill(os.getpid(), 9)
        if word == "exit":
            os._exit(3)
        if word == "leave":
            sys.exit("farewell")
        if word == "hoard":
            np.ones(1 << 40)
        if word == "float":
            return {"pid": np.zeros(len(do))}
        if word == "short":
            return {"pid": np.zeros(len(do) + 1, np.int64)}
        if word == "deep":
            return {"pid": np.zeros((len(do), 1), np.int64)}
        if word == "list":
            return {"pid": [1] * len(do)}
        if word == "other":
            return {"other": np.zeros(len(do), np.int64)}
        if word == "none":
            return None
        if word == "bare":
            return np.zeros(len(do), np.int64)
    return {"pid": np.full(len(do), os.getpid())}


@ps.function(takes={"do": "BYTES[*]"}, gives={"said": "BYTES[*]"})
def say(do):
    """Says what cannot be said, or leaves it to another process."""
    if do[0] == "half":
        return {"said": np.array(["\\ud800"], object)}
    if do[0] == "refuse":
        raise ps.PenstockError("\\ud800")
    if do[0] == "delegate":
        with open(do[1], "w") as place:
            place.write(str(subprocess.Popen(["sleep", "60"]).pid))
        time.sleep(60)
    return {"said": do}


@ps.function(takes={"n": "INT64[1]"}, gives={"names": "BYTES[*]"})
def environment(n):
    return {"names": np.array(sorted(os.environ) + os.listdir("/proc/self/fd"), object)}
'''


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("functions") / "steps.py"
    place.write_text(PREPARE)
    return place


@pytest.fixture(scope="module")
def obey(file: Path) -> Iterator[Function]:
    function = Function(file, "obey", Bounds(seconds=0.5, memory=1 << 30))
    yield function
    function.close()


def words(*said: str) -> dict[str, Any]:
    return {"do": np.array(said, object)}


def texts(name: str, *values: str) -> dict[str, Any]:
    return {"name": name, "shape": [len(values)], "datatype": "BYTES", "data": list(values)}


def payments(*amounts: float | None, country: str = "NL", **more: Any) -> dict[str, Any]:
    amount = {"name": "amount", "shape": [len(amounts)], "datatype": "FP64", "data": list(amounts)}
    return {"inputs": [amount, texts("country", *[country] * len(amounts))], **more}


def test_it_runs_in_a_process_of_its_own(obey: Function) -> None:
    (found,) = obey.run(["pid"], words("", ""))
    assert found.tolist() == [obey.pid] * 2
    assert obey.pid != os.getpid()


@pytest.mark.parametrize(
    ("word", "cause"),
    [
        ("raise", "obey failed with ValueError; the server's log says why"),
        ("leave", "obey failed with SystemExit; the server's log says why"),
        ("hoard", "obey needs more than the 1024 MiB that it has"),
        ("hang", "obey did not answer within 0.5 s"),
        ("spin", "obey did not answer within 0.5 s"),
        ("die", "obey died of these values: its process was killed by SIGKILL"),
        ("exit", "obey died of these values: its process ended with exit code 3"),
        ("float", "obey gave pid as float64, where it declares INT64"),
        ("short", "obey gave 3 rows for 2"),
        ("deep", r"obey gave pid of shape \[2, 1\], where it declares \[\*\]"),
        ("list", "obey gave pid as list, not as an array"),
        ("other", "obey gave other, where it declares pid"),
        ("none", "obey gave NoneType, where it declares pid"),
        ("bare", r'obey gave ndarray, where it declares pid; return a dict: {"pid": \.\.\.}'),
    ],
)
def test_what_goes_wrong_is_said_and_the_next_call_is_answered(obey: Function, word: str, cause: str) -> None:
    with pytest.raises(FunctionFailed, match=cause) as raised:
        obey.run(["pid"], words("", word))
    assert raised.value.status == 500
    assert "secret" not in str(raised.value)
    assert obey.run(["pid"], words(""))[0].tolist() == [obey.pid]


def test_a_process_that_is_killed_from_outside_is_missed_by_nobody(obey: Function) -> None:
    for _ in range(3):
        (before,) = obey.run(["pid"], words(""))[0].tolist()
        os.kill(before, signal.SIGKILL)
        (after,) = obey.run(["pid"], words(""))[0].tolist()
        assert after != before


@pytest.mark.parametrize("word", ["half", "refuse"])
def test_what_it_says_in_no_unicode_is_its_fault_and_not_its_death(file: Path, word: str) -> None:
    function = Function(file, "say")
    pid = function.pid
    with pytest.raises(FunctionFailed, match=r"say gave what cannot be passed on: .*surrogates"):
        function.run(["said"], words(word))
    assert function.pid == pid


def test_what_is_too_large_for_it_is_said_and_its_process_lives(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    function = Function(file, "say")
    pid = function.pid
    monkeypatch.setattr(wire, "LARGEST", 1 << 20)
    with pytest.raises(FunctionFailed, match="say cannot be given these values: 2 MiB are more than the 1 of a message"):
        function.run(["said"], words("x" * (2 << 20)))
    assert function.run(["said"], words("x"))[0].tolist() == ["x"] and function.pid == pid


def test_what_cannot_be_started_again_fails_and_its_words_are_for_the_log(tmp_path: Path) -> None:
    file, spoilt = tmp_path / "steps.py", tmp_path / "spoilt"
    head = f"import os\nif os.path.exists({str(spoilt)!r}):\n    raise ValueError('secret inner words')\n"
    file.write_text(head + PREPARE)
    function = Function(file, "say")
    spoilt.touch()
    os.kill(function.pid or 0, signal.SIGKILL)
    with pytest.raises(FunctionFailed, match="say cannot be started again") as raised:
        function.run(["said"], words("x"))
    assert "secret" not in str(raised.value)
    spoilt.unlink()
    assert function.run(["said"], words("x"))[0].tolist() == ["x"]


def test_what_it_started_ends_with_it(file: Path, tmp_path: Path) -> None:
    function, place = Function(file, "say", Bounds(seconds=1.0)), tmp_path / "pid"
    with pytest.raises(FunctionFailed, match="did not answer"):
        function.run(["said"], words("delegate", str(place)))
    assert ends(int(place.read_text()))


def ends(pid: int, within: float = 5.0) -> bool:
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([watched], [], [], within)[0])
    finally:
        os.close(watched)


def test_it_refuses_in_its_own_words(file: Path) -> None:
    function = Function(file, "prepare")
    with pytest.raises(Refused, match=r"prepare: nobody knows the country \?\?"):
        function.run(["x"], {"amount": np.zeros(1), "country": np.array(["??"], object)})


def test_it_sees_none_of_our_secrets_and_none_of_our_files(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("PENSTOCK_KAFKA_SASL_PASSWORD", "secret")
    with open(file) as other:
        os.set_inheritable(other.fileno(), True)
        found = set(Function(file, "environment").run(["names"], {"n": np.zeros(1, np.int64)})[0].tolist())
    assert {name for name in found if not name.isdigit()} <= {
        "PATH", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR",
        "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS",
    }  # fmt: skip
    assert len([name for name in found if name.isdigit()]) <= 5  # 0, 1, 2, the socket, the folder that was listed


def test_its_process_ends_when_nobody_holds_it(file: Path) -> None:
    function = Function(file, "prepare")
    pid = function.pid
    assert pid is not None
    del function
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("def f(:", "does not load: SyntaxError"),
        ("import nothing_like_it", "does not load: ModuleNotFoundError"),
        ("raise SystemExit(2)", "does not load: SystemExit: 2"),
        ("import os; os._exit(7)", "died while it was opened: its process ended with exit code 7"),
        ("g = 1", "has no function f"),
        ("def f(x): return {}", "f does not say which tensors it takes; decorate it"),
        ("import time; time.sleep(60)", "was not open after 1 s"),
    ],
)
def test_a_file_that_gives_no_function_is_not_served(text: str, cause: str, tmp_path: Path) -> None:
    file = tmp_path / "wrong.py"
    file.write_text(text)
    with pytest.raises(PenstockError, match=cause):
        Function(file, "f", Bounds(opening=1.0 if "sleep" in text else 60.0))


def test_a_process_that_takes_the_place_of_another_runs_the_same_text(tmp_path: Path, file: Path) -> None:
    copy = tmp_path / "copy.py"
    copy.write_text(PREPARE)
    function = Function(copy, "prepare")
    copy.write_text("nonsense")
    assert function.pid
    os.kill(function.pid, signal.SIGKILL)
    (found,) = function.run(["x"], {"amount": np.array([2.0]), "country": np.array(["NL"], object)})
    assert found.tolist() == [[2.0, 1.0, 1.0]]


def test_it_finds_what_lies_beside_its_file(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("BY = 3.0")
    file = tmp_path / "steps.py"
    file.write_text(
        "import beside\nimport penstock as ps\n"
        "@ps.function(takes={'x': 'FP64[*]'}, gives={'y': 'FP64[*]'})\ndef f(x):\n    return {'y': x * beside.BY}\n"
    )
    assert Function(file, "f").run(["y"], {"x": np.ones(1)})[0].tolist() == [3.0]


def test_a_chain_is_asked_as_one_model(file: Path, tmp_path: Path) -> None:
    model = put(tmp_path / "double.onnx", graphs.scaled(2.0))

    async def talk(client: httpx.AsyncClient, repository: Repository) -> None:
        about = (await client.get("/v2/models/paid")).json()
        assert [(t["name"], t["datatype"], t["shape"]) for t in about["inputs"]] == [
            ("amount", "FP64", [-1]),
            ("country", "BYTES", [-1]),
        ]
        assert [t["name"] for t in about["outputs"]] == ["total", "said"]
        assert about["platform"] == "ensemble"
        assert about["parameters"]["batched"]
        given = (await client.post("/v2/models/paid/infer", json=payments(1.5, None, id="7"))).json()
        assert given["id"] == "7"
        assert {o["name"]: o["data"] for o in given["outputs"]} == {"total": [5.0, 0.0], "said": ["NL 5", "NL 0"]}
        alone = (await client.post("/v2/models/prepare/infer", json=payments(1.5))).json()["outputs"][0]
        assert (alone["shape"], alone["data"]) == ([1, 3], [1.5, 1.0, 1.0])
        answer = await client.post("/v2/models/paid/infer", json=payments(1.0, country="??"))
        assert (answer.status_code, answer.json()) == (400, {"error": "prepare: nobody knows the country ??"})

    run([f"paid={file}:prepare+{model}+{file}:finish", f"{file}:prepare"], talk)


def test_those_who_ask_together_are_one_call_and_a_bad_one_fails_alone(file: Path) -> None:
    async def talk(client: httpx.AsyncClient, repository: Repository) -> None:
        asked = [payments(1.0, country="??" if n == 3 else "NL") for n in range(8)]
        answers = await asyncio.gather(*[client.post("/v2/models/prepare/infer", json=one) for one in asked])
        assert [answer.status_code for answer in answers] == [200, 200, 200, 400, 200, 200, 200, 200]
        calm = await asyncio.gather(*[client.post("/v2/models/prepare/infer", json=payments(1.0)) for _ in range(8)])
        assert max(answer.json()["outputs"][0]["data"][2] for answer in calm) > 1  # it was called with rows of several

    run([f"{file}:prepare"], talk)


def test_killed_again_and_again_under_load_it_fails_no_request(file: Path) -> None:
    async def talk(client: httpx.AsyncClient, repository: Repository) -> None:
        killed, going = set[int](), True

        async def kill() -> None:
            while going:
                answer = await client.post("/v2/models/obey/infer", json={"inputs": [texts("do", "")]})
                pid = answer.json()["outputs"][0]["data"][0]
                if pid not in killed and len(killed) < 3:
                    killed.add(pid)
                    os.kill(pid, signal.SIGKILL)

        async def ask() -> list[int]:
            found = list[int]()
            while len(killed) < 3 or len(found) < 50:
                found.append((await client.post("/v2/models/obey/infer", json={"inputs": [texts("do", "", "")]})).status_code)
            return found

        killing = asyncio.create_task(kill())
        answered = await asyncio.gather(*[ask() for _ in range(8)])
        going = False
        await killing
        assert {status for statuses in answered for status in statuses} == {200}

    run([f"{file}:obey"], talk, patience=30.0)


def test_while_it_hangs_others_are_answered(file: Path, tmp_path: Path) -> None:
    model = put(tmp_path / "double.onnx", graphs.scaled(2.0))
    row = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}

    async def talk(client: httpx.AsyncClient, repository: Repository) -> None:
        hanging = asyncio.create_task(client.post("/v2/models/obey/infer", json={"inputs": [texts("do", "hang")]}))
        for _ in range(5):
            assert (await client.post("/v2/models/double/infer", json=row)).status_code == 200
        assert not hanging.done()
        answer = await hanging
        assert (answer.status_code, answer.json()) == (500, {"error": "obey did not answer within 1 s"})
        assert (await client.post("/v2/models/obey/infer", json={"inputs": [texts("do", "")]})).status_code == 200

    run([f"{file}:obey", str(model)], talk, bounds=Bounds(seconds=1.0))


def test_two_functions_of_one_file_are_two_versions(tmp_path: Path) -> None:
    text = """
import penstock as ps

@ps.function(takes={"a": "FP32[*, 3]"}, gives={"x": "FP32[*, 3]"})
def one(a):
    return {"x": a}

@ps.function(takes={"a": "FP32[*, 3]"}, gives={"x": "FP32[*, 3]"})
def two(a):
    return {"x": a + a}
"""
    file, model = tmp_path / "steps.py", put(tmp_path / "double.onnx", graphs.scaled(2.0))
    file.write_text(text)

    async def talk(client: httpx.AsyncClient, _: Repository) -> None:
        found = [(await client.get(f"/v2/models/{name}")).json() for name in ("a", "b", "c", "d")]
        assert len({said["parameters"]["sha256"] for said in found}) == 4
        assert len({said["versions"][0] for said in found}) == 4

    run([f"a={file}:one", f"b={file}:two", f"c={file}:one+{model}", f"d={file}:two+{model}"], talk)


def test_a_file_that_changes_takes_over_in_a_process_of_its_own(tmp_path: Path) -> None:
    text = """
import numpy as np
import penstock as ps

@ps.function(takes={"x": "FP32[*]"}, gives={"y": "FP32[*]"})
def f(x):
    return {"y": x * BY}
"""
    file = tmp_path / "steps.py"
    file.write_text(text.replace("BY", "2"))
    row = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1.0]}]}

    async def talk(client: httpx.AsyncClient, repository: Repository) -> None:
        before = (await client.post("/v2/models/f/infer", json=row)).json()
        file.write_text(text.replace("BY", "np.float32(3)"))
        for _ in range(2):
            await repository.look()
        after = (await client.post("/v2/models/f/infer", json=row)).json()
        assert [given["outputs"][0]["data"] for given in (before, after)] == [[2.0], [3.0]]
        assert before["model_version"] != after["model_version"]
        file.write_text("nonsense")
        for _ in range(2):
            await repository.look()
        still = (await client.post("/v2/models/f/infer", json=row)).json()
        assert still["model_version"] == after["model_version"]

    run([f"{file}:f"], talk)


def test_a_chain_that_does_not_fit_any_more_leaves_no_processes_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = "import penstock as ps\n@ps.function(takes={'x': 'FP64[*]'}, gives={'x': 'FP64[*]'})\ndef f(x):\n    return {'x': x}\n"
    first, second = tmp_path / "first.py", tmp_path / "second.py"
    first.write_text(step)
    second.write_text(step)
    opened, begin = list[int](), process._Worker.__init__

    def noted(self: Any, *of: Any) -> None:
        begin(self, *of)
        opened.append(self.pid)

    monkeypatch.setattr(process._Worker, "__init__", noted)

    async def talk(client: httpx.AsyncClient, repository: Repository) -> None:
        second.write_text(step.replace("(x)", "(y)").replace("takes={'x'", "takes={'y'").replace(": x}", ": y}"))
        gc.disable()
        try:
            for _ in range(2):
                await repository.look()
            assert "no later step takes anything" in repository.index()[0]["reason"]
            assert [ends(pid, 0.0) for pid in opened] == [False, False, True, True]
        finally:
            gc.enable()

    run([f"chain={first}:f+{second}:f"], talk)


def test_a_chain_gives_what_its_steps_give_one_by_one(file: Path) -> None:
    """Parity: functions called in this process, and the model by itself, against all of it behind the protocol."""
    drawn = np.random.default_rng(5)
    amounts, countries = drawn.normal(size=40), drawn.choice(np.array(["NL", "BE"], object), 40)
    there: dict[str, Any] = {}
    exec(compile(PREPARE, "steps", "exec"), there)
    x = there["prepare"](amounts.copy(), countries)["x"]
    (y,) = Graph(graphs.scaled(2.0)).run(["y"], {"x": x})
    expected = there["finish"](y, countries)
    model = put(file.parent / "twice.onnx", graphs.scaled(2.0))

    async def talk(client: httpx.AsyncClient, repository: Repository) -> None:
        amount = {"name": "amount", "shape": [40], "datatype": "FP64", "data": amounts.tolist()}
        answer = await client.post("/v2/models/twice/infer", json={"inputs": [amount, texts("country", *countries)]})
        given = {output["name"]: output["data"] for output in answer.json()["outputs"]}
        assert given["total"] == expected["total"].tolist()
        assert given["said"] == expected["said"].tolist()

    run([f"{file}:prepare+{model}+{file}:finish"], talk)


def test_an_import_that_hangs_holds_up_no_end(tmp_path: Path) -> None:
    slow = tmp_path / "slow.py"
    slow.write_text("import time\ntime.sleep(600)\n")
    asked = list[float]()

    def ending() -> bool:
        asked.append(time.monotonic())
        return len(asked) > 1

    with pytest.raises(PenstockError, match="as the server ends"):
        Function(slow, "prepare", ending=ending)
    assert time.monotonic() - asked[-1] < 5.0


def test_a_gateway_that_ends_while_it_opens_its_functions_leaves_none_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go, opened, closed = threading.Event(), threading.Event(), list[str](), list[str]()

    class Slow:
        def __init__(self, _: Path, name: str, module: str, ending: Any) -> None:
            self.name = name
            opened.append(name)
            begun.set()
            assert go.wait(10)

        def close(self) -> None:
            closed.append(self.name)

    def before() -> None: ...

    def after() -> None: ...

    monkeypatch.setattr(onduty, "Function", Slow)
    project: Any = SimpleNamespace(models=[late], chains={"chain": [before, late, after]})
    follower: Any = None
    tensors = onduty.OnDuty(project, follower)
    opening = threading.Thread(target=tensors.open)
    opening.start()
    assert begun.wait(10)
    tensors.close()
    go.set()
    opening.join(10)
    assert opened == closed == ["before"]
