"""A Python function at work: in a process of its own, which may fail, hang or die."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.services.clerk import PREPARE, ends, words

from penstock.errors import PenstockError, Refused
from penstock.scoring import wire
from penstock.scoring.process import Bounds, Function, FunctionFailed


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


def test_its_owner_is_told_what_it_raised_and_where(obey: Function, file: Path) -> None:
    with pytest.raises(FunctionFailed) as raised:
        obey.run(["pid"], words("", "raise"))
    line = next(at for at, text in enumerate(file.read_text().splitlines(), 1) if "raise ValueError" in text)
    assert raised.value.why.startswith("obey failed with ValueError: ")
    assert raised.value.why.endswith(f" (steps.py, line {line})")


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
