"""Snapshots of River learners: a pickle that is never given to `pickle`.

`load_river` is a machine that knows the few instructions that a snapshot of a linear pipeline needs, and builds only
the classes listed here, by exact name. The list belongs to the program, never to the snapshot. (Prefix rules fail:
`river.datasets.base` with the name `os.getcwd` ran. Nor is a list enough: BUILD can alter the classes on it.)
"""

from __future__ import annotations

import collections
import importlib
import pickle
import pickletools
from collections.abc import Callable
from typing import Any

from .errors import PenstockError

__all__ = ["ALLOWED", "dump_river", "load_river"]

RIVER_BYTES = 2 << 20
"""A linear pipeline takes about 100 bytes an input; what is larger is no such thing."""

_OPTIMIZERS = {
    "ada_bound": "AdaBound", "ada_delta": "AdaDelta", "ada_grad": "AdaGrad", "ada_max": "AdaMax", "adam": "Adam",
    "ams_grad": "AMSGrad", "momentum": "Momentum", "nadam": "Nadam", "rms_prop": "RMSProp", "sgd": "SGD",
}  # fmt: skip
MODELS = frozenset({("river.compose.pipeline", "Pipeline"), ("river.linear_model.log_reg", "LogisticRegression")})
"""What a snapshot may be."""
OBJECTS = frozenset(
    {
        *MODELS,
        ("river.preprocessing.scale", "StandardScaler"),
        ("river.optim.losses", "Log"),
        ("river.optim.initializers", "Zeros"),
        ("river.optim.schedulers", "Constant"),
        ("river.optim.schedulers", "InverseScaling"),
        ("river.optim.schedulers", "Optimal"),
        *((f"river.optim.{module}", name) for module, name in _OPTIMIZERS.items()),
    }
)
"""Made empty (`cls.__new__(cls)`) and filled with attributes; nothing of theirs is called while loading."""
CALLS = frozenset(
    {
        ("collections", "OrderedDict"),
        ("collections", "Counter"),
        ("collections", "defaultdict"),
        ("river._river_rust.vectordict", "VectorDict"),
    }
)
"""Called, with containers and plain values only."""
FACTORIES = frozenset({("builtins", "float"), ("builtins", "int")})
"""Named as the default of a defaultdict; never called while loading."""
ALLOWED = OBJECTS | CALLS | FACTORIES


def dump_river(model: Any) -> bytes:
    """A snapshot (pickle, protocol 5) of a River model.

    PenstockError where `load_river` would refuse it, so that whoever makes it finds out."""
    data = pickle.dumps(model, protocol=5)
    load_river(data)
    return data


def load_river(data: bytes) -> Any:
    """The model in a snapshot: LogisticRegression, or a Pipeline with StandardScaler before it.

    PenstockError names what else the bytes ask for."""
    if len(data) > RIVER_BYTES:
        raise _refused(f"has {len(data)} bytes, more than {RIVER_BYTES}")
    try:
        model = _Machine().run(data)
    except PenstockError:
        raise
    except Exception as error:  # truncated, unbalanced, wrong arguments: whatever it is, it is not a snapshot
        raise _refused(f"is damaged ({type(error).__name__})") from None
    kind = type(model)
    if (kind.__module__, kind.__qualname__) not in MODELS:
        raise _refused(f"holds a {kind.__qualname__}, not a model")
    return model


def _refused(what: str) -> PenstockError:
    return PenstockError(
        f"the River snapshot {what}: not loaded",
        "an online learner is LogisticRegression, with or without StandardScaler; see penstock.snapshot.ALLOWED",
    )


def _kind(thing: object) -> str:
    """What something is, said without running any of its code."""
    return f"the class {thing.__qualname__}" if isinstance(thing, type) else f"a {type(thing).__qualname__}"


_MARK = object()
_PLAIN = (bool, int, float, str, type(None))
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple,
}  # fmt: skip
_LITERALS = {"SHORT_BINUNICODE", "BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2}
_DICTS = (dict, collections.OrderedDict, collections.Counter, collections.defaultdict)


class _Machine:
    """Runs the instructions of a pickle, one by one (`pickletools` decodes them). Keys and members of sets are text, so
    nothing deep is ever hashed; only objects made here receive attributes, so no class can be altered; and a container that is
    copied again and again (a few bytes each time) is refused before it takes hours."""

    def __init__(self) -> None:
        self._copies = 0
        self._stack: list[Any] = []
        self._memo: list[Any] = []
        self._names: dict[int, tuple[str, str]] = {}
        self._made: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        stack, self._copies = self._stack, len(data)
        given: Any
        for code, given, _ in pickletools.genops(data):
            name = code.name
            if name in _LITERALS:
                stack.append(given)
            elif name in _CONSTANTS:
                stack.append(_CONSTANTS[name]())
            elif name == "MEMOIZE":
                self._memo.append(stack[-1])
            elif name in ("BINGET", "LONG_BINGET"):
                stack.append(self._memo[given])
            elif name == "MARK":
                stack.append(_MARK)
            elif name in _TUPLES:
                stack[-_TUPLES[name] :] = [tuple(stack[-_TUPLES[name] :])]
            elif name == "STOP":
                (result,) = stack
                return result
            elif name not in ("PROTO", "FRAME"):
                handler: Callable[[_Machine], None] | None = _HANDLERS.get(name)
                if handler is None:
                    raise _refused(f"uses the instruction {name}")
                handler(self)
        raise _refused("has no end")

    def _marked(self) -> list[Any]:
        """What was pushed since the last mark."""
        stack = self._stack
        at = len(stack) - 1
        while stack[at] is not _MARK:
            at -= 1
        found = stack[at + 1 :]
        del stack[at:]
        return found

    def named(self) -> None:
        """STACK_GLOBAL: a class from the list."""
        qualname, module = self._stack.pop(), self._stack.pop()
        if (module, qualname) not in ALLOWED:
            raise _refused(f"names {module}.{qualname}, which is not on the list")
        found = getattr(importlib.import_module(module), qualname)
        if not isinstance(found, type):
            raise _refused(f"names {module}.{qualname}, which is not a class here")
        self._names[id(found)] = (module, qualname)
        self._stack.append(found)

    def made(self) -> None:
        """NEWOBJ: an empty object."""
        args, cls = self._stack.pop(), self._stack.pop()
        if self._names.get(id(cls)) not in OBJECTS or type(args) is not tuple or args:
            raise _refused(f"makes {_kind(cls)} with arguments")
        found = cls.__new__(cls)
        self._made[id(found)] = found
        self._stack.append(found)

    def called(self) -> None:
        """REDUCE: a container from its contents."""
        args, function = self._stack.pop(), self._stack.pop()
        if self._names.get(id(function)) not in CALLS or type(args) is not tuple:
            raise _refused(f"calls {_kind(function)}")
        for arg in args:
            made = id(arg) in self._made and function.__name__ == "VectorDict"  # its initializer
            if type(arg) not in (*_PLAIN, *_DICTS) and not made and self._names.get(id(arg)) not in FACTORIES:
                raise _refused(f"calls {_kind(function)} with {_kind(arg)}")
            self._copied(arg)
        self._stack.append(function(*args))

    def built(self) -> None:
        """BUILD: the attributes of an object made here."""
        state, target = self._stack.pop(), self._stack[-1]
        if id(target) not in self._made or type(state) is not dict:
            raise _refused(f"alters {_kind(target)}")
        self._copied(state)
        target.__dict__.update(state)

    def _copied(self, what: Any) -> None:
        """Each item of a snapshot takes more than a byte, and is copied once."""
        self._copies -= len(what) if isinstance(what, _DICTS) else 0
        if self._copies < 0:
            raise _refused("copies the same things again and again")

    def put(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) not in _DICTS:
            raise _refused(f"sets items of {_kind(target)}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) is not str:
                raise _refused(f"uses {_kind(key)} as a key")
            target[key] = value

    def put_one(self) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self.put([key, value])

    def frozen(self) -> None:
        """FROZENSET: names."""
        items = self._marked()
        if not all(type(item) is str for item in items):
            raise _refused("keeps something other than text in a set")
        self._stack.append(frozenset(items))


_HANDLERS: dict[str, Callable[[_Machine], None]] = {
    "STACK_GLOBAL": _Machine.named,
    "NEWOBJ": _Machine.made,
    "REDUCE": _Machine.called,
    "BUILD": _Machine.built,
    "SETITEM": _Machine.put_one,
    "SETITEMS": lambda m: m.put(m._marked()),
    "FROZENSET": _Machine.frozen,
    "TUPLE": lambda m: m._stack.append(tuple(m._marked())),
}
"""Everything that is not a value, and all that snapshots use: no GLOBAL, INST, OBJ, EXT, PERSID, NEWOBJ_EX, no lists."""
