"""A worker: the process in which a Python function runs, started by `process` as `python -m penstock.scoring.worker FD`.

It has the end of one socket and nothing else of its server's: no other open files, no environment beyond how to find Python
packages, no way to get more rights than it has, so much memory and no more. It is not a wall against code that means harm: it
reads the files and the network that its user may. When its server goes, so does it; a call that takes far too long it ends
itself.
"""

from __future__ import annotations

import contextlib
import linecache
import math
import os
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from ..errors import PenstockError
from ..fingerprint import fingerprint
from ..function import Declared, declared
from .signature import DATATYPES, Array, Tensor
from .wire import Call, Fault, Gave, Message, Ready, Refusal, Source, packed, receive, send, unpacked

__all__ = ["main", "work"]

_SAID = 500
"""Characters of a function's own words that are passed on."""


def main() -> None:
    """Work for whoever holds the other end of the socket, until it is closed."""
    with socket.socket(fileno=int(sys.argv[1])) as server, contextlib.suppress(EOFError, ConnectionError, KeyboardInterrupt):
        work(server)


def work(server: socket.socket) -> None:
    """Load the function that the first message names, then answer calls. EOFError when the server is gone."""
    source = receive(server)
    assert isinstance(source, Source)
    _bounded(source.memory)
    seconds = math.ceil(2 * source.seconds) + 1
    function, said = _loaded(source)
    send(server, said)
    if function is None:
        return
    tensors = declared(function)
    while True:
        call = receive(server)
        assert isinstance(call, Call)
        signal.alarm(seconds)  # the server has given up by then, or is no more
        answer = _called(source, function, tensors, call)
        signal.alarm(0)
        try:
            send(server, answer)
        except (ValueError, MemoryError) as error:  # too large, or a text that is no Unicode
            cause = str(error) or f"it needs more than the {source.memory >> 20} MiB that it has"
            send(server, Fault(f"{source.name} gave what cannot be passed on: {cause}"[:_SAID]))


def _loaded(source: Source) -> tuple[Callable[..., Any] | None, Message]:
    try:
        function = _found(source)
        tensors, code = declared(function), fingerprint(function)
    except PenstockError as error:
        return None, Fault(f"{error}; {error.fix}" if error.fix else str(error))
    except BaseException as error:
        return None, Fault(f"{source.file} does not load: {_told(error)}", traceback.format_exc())
    return function, Ready(tensors.takes, tensors.gives, tensors.batched, code)


def _found(source: Source) -> Any:
    """Run the text as a module; the function of that name in it."""
    module = ModuleType(source.module)
    module.__file__, module.__package__ = source.file, source.module.rpartition(".")[0]
    sys.modules[source.module] = module
    sys.path[:] = source.path if module.__package__ else [os.path.dirname(source.file), *source.path]
    lines = source.text.decode(errors="replace").splitlines(keepends=True)
    linecache.cache[source.file] = len(source.text), None, lines, source.file  # the file may be another by now
    exec(compile(source.text, source.file, "exec", dont_inherit=True), vars(module))
    found = getattr(module, source.name, None)
    if not callable(found):
        raise PenstockError(f"{source.file} has no function {source.name}", "write FILE.py:FUNCTION")
    return found


def _called(source: Source, function: Callable[..., Any], tensors: Declared, call: Call) -> Gave | Refusal | Fault:
    name = source.name
    try:
        given = unpacked(call.arrays)
        found = function(**given)
        return Gave(packed(_checked(name, found, tensors), {output: kind for output, (kind, _) in tensors.gives.items()}))
    except PenstockError as error:
        return Refusal(f"{name}: {error}"[:_SAID])
    except MemoryError:
        return Fault(f"{name} needs more than the {source.memory >> 20} MiB that it has", traceback.format_exc())
    except _Wrong as error:
        return Fault(str(error)[:_SAID])
    except BaseException as error:
        return Fault(
            f"{name} failed with {type(error).__name__}; the server's log says why",
            traceback.format_exc(),
            f"{name} failed with {_raised(error)[:_SAID]}{_line(error, source.file)}",
        )


def _raised(error: BaseException) -> str:
    """Its name and message on a line; an error whose message cannot be asked for is told all the same."""
    return " ".join("".join(traceback.format_exception_only(error)).split())


def _line(error: BaseException, file: str) -> str:
    """The last line of the file that led to an error."""
    there = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f" ({os.path.basename(file)}, line {there[-1]})" if there else ""


class _Wrong(Exception):
    """What a function gave is not what it declared."""


def _checked(name: str, found: Any, tensors: Declared) -> dict[str, Array]:
    """What a function gave, in the order declared; _Wrong where it is something else. Nothing is coerced."""
    if not isinstance(found, Mapping) or set(found) != set(tensors.gives):
        if isinstance(found, Mapping):
            given, todo = ", ".join(map(str, found)) or "nothing", ""
        else:
            each = ", ".join(f'"{output}": ...' for output in tensors.gives)
            given, todo = type(found).__name__, f"; return a dict: {{{each}}}"
        raise _Wrong(f"{name} gave {given}, where it declares {', '.join(tensors.gives)}{todo}")
    for output, (datatype, shape) in tensors.gives.items():
        array = found[output]
        if not isinstance(array, np.ndarray):
            raise _Wrong(f"{name} gave {output} as {type(array).__name__}, not as an array")
        texts = datatype == "BYTES" and (array.dtype.kind == "U" or all(isinstance(value, str) for value in array.flat))
        if not (texts or (datatype != "BYTES" and array.dtype == DATATYPES[datatype])):
            raise _Wrong(f"{name} gave {output} as {array.dtype}, where it declares {datatype}")
        if not Tensor(output, datatype, shape).fits(array.shape):
            raise _Wrong(f"{name} gave {output} of shape {list(array.shape)}, where it declares {shape}".replace("-1", "*"))
    return {output: found[output] for output in tensors.gives}


def _bounded(memory: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, AttributeError, ImportError):
        import ctypes

        ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS: no setuid program gives it more rights


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:_SAID]


if __name__ == "__main__":
    main()
