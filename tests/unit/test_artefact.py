"""Artefacts are what their record says, and a snapshot builds nothing but what is on the list."""

from __future__ import annotations

import collections
import contextlib
import functools
import importlib
import io
import os
import pickle
import random
import struct
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from river import compose, datasets, linear_model, optim, preprocessing, stats, tree

from penstock import snapshot
from penstock.artefact import Artefacts
from penstock.errors import PenstockError, Unreachable
from penstock.snapshot import dump_river, load_river


def pipeline(optimizer: Any = None, **options: Any) -> Any:
    learner = linear_model.LogisticRegression(optimizer=optimizer or optim.SGD(0.001), **options)
    return compose.Pipeline(preprocessing.StandardScaler(), learner)


def taught(model: Any, n: int = 200) -> Any:
    drawn = random.Random(1)
    for _ in range(n):
        x = {f"V.f{j}": drawn.gauss(0, 1) for j in range(6)}
        model.learn_one(x, x["V.f0"] > x["V.f1"])
    return model


ROW = {f"V.f{j}": 0.3 * j - 1 for j in range(6)}


class TestTheStore:
    def test_the_same_bytes_are_one_artefact_and_come_back(self, tmp_path: Path) -> None:
        store = Artefacts(tmp_path)
        artefact = store.put(b"some bytes", "png")
        assert store.put(b"some bytes", "png") == artefact
        assert Artefacts(tmp_path).get(artefact) == b"some bytes"
        assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == [Path(artefact.uri).name]
        assert not Path(artefact.uri).is_absolute()

    def test_a_changed_byte_is_found_out(self, tmp_path: Path) -> None:
        store = Artefacts(tmp_path)
        artefact = store.put(b"some bytes", "png")
        (tmp_path / artefact.uri).write_bytes(b"some bytez")
        with pytest.raises(PenstockError, match=r"not .* as registered: not opened"):
            store.get(artefact)

    def test_a_missing_end_is_found_out(self, tmp_path: Path) -> None:
        store = Artefacts(tmp_path)
        artefact = store.put(b"some bytes", "png")
        (tmp_path / artefact.uri).write_bytes(b"some")
        with pytest.raises(PenstockError, match="4 bytes, not 10 as registered"):
            store.get(artefact)

    def test_a_damaged_file_is_mended_by_putting_it_again(self, tmp_path: Path) -> None:
        store = Artefacts(tmp_path)
        artefact = store.put(b"some bytes", "png")
        (tmp_path / artefact.uri).write_bytes(b"x")
        store.put(b"some bytes", "png")
        assert store.get(artefact) == b"some bytes"

    def test_a_missing_file_is_unreachable_because_it_may_yet_come(self, tmp_path: Path) -> None:
        store = Artefacts(tmp_path)
        artefact = store.put(b"some bytes", "png")
        (tmp_path / artefact.uri).unlink()
        with pytest.raises(Unreachable, match="cannot be read"):
            store.get(artefact)

    @pytest.mark.parametrize("uri", ["../secret", "/etc/hostname", "a/../../secret"])
    def test_a_record_cannot_point_outside_the_folder(self, tmp_path: Path, uri: str) -> None:
        root = tmp_path / "artefacts"
        artefact = Artefacts(root).put(b"some bytes", "png")
        (tmp_path / "secret").write_bytes(b"some bytes")
        with pytest.raises(PenstockError, match="lies outside"):
            Artefacts(root).get(msgspec.structs.replace(artefact, uri=uri))

    def test_a_format_is_a_plain_word(self, tmp_path: Path) -> None:
        with pytest.raises(PenstockError, match="is not a format"):
            Artefacts(tmp_path).put(b"", "../x")


def onnx_model(external: str = "", name: str = "g") -> bytes:
    weights = numpy_helper.from_array(np.ones((2, 2), np.float32), "W")
    if external:
        weights.ClearField("raw_data")
        weights.data_location = TensorProto.EXTERNAL
        weights.external_data.add(key="location", value=external)
    node = helper.make_node("MatMul", ["X", "W"], ["Y"])
    inner = helper.make_graph([], "inner", [], [], [weights])
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [None, 2]) for n in "XY"]
    if name == "nested":
        constant = helper.make_node("Constant", [], ["W"], value=weights)
        graph = helper.make_graph([constant, node], name, ends[:1], ends[1:])
    elif name == "branch":
        odd = helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner)
        graph = helper.make_graph([odd, node], name, ends[:1], ends[1:])
    else:
        graph = helper.make_graph([node], name, ends[:1], ends[1:], [weights])
    model: bytes = helper.make_model(graph).SerializeToString()
    return model


def varint(value: int) -> bytes:
    found = b""
    while value > 0x7F:
        found, value = found + bytes([value & 0x7F | 0x80]), value >> 7
    return found + bytes([value])


class TestOnnx:
    @pytest.mark.parametrize("name", ["g", "nested", "branch"])
    def test_external_data_is_refused_wherever_it_hides(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(PenstockError, match="external data"):
            Artefacts(tmp_path).put(onnx_model("weights.bin", name), "onnx")

    def test_a_model_that_only_mentions_a_location_is_taken(self, tmp_path: Path) -> None:
        store = Artefacts(tmp_path)
        data = onnx_model(name="late_by_location")
        assert onnx.load_from_string(store.get(store.put(data, "onnx"))).graph.name == "late_by_location"

    def test_bytes_that_are_no_protobuf_are_refused_in_words(self, tmp_path: Path) -> None:
        for data in (b"location\xff\xff\xff", b"\x3a\x7flocation", b"\x0blocation"):
            with pytest.raises(PenstockError, match=r"truncated|not a protobuf"):
                Artefacts(tmp_path).put(data, "onnx")

    def test_graphs_in_graphs_without_end_are_refused_in_words(self, tmp_path: Path) -> None:
        inner = b"location"
        for field in (6, 5, 1) * 1_000:  # an attribute's graph, its nodes, their attributes
            inner = bytes([field << 3 | 2]) + varint(len(inner)) + inner
        with pytest.raises(PenstockError, match="graphs in graphs"):
            Artefacts(tmp_path).put(bytes([7 << 3 | 2]) + varint(len(inner)) + inner, "onnx")


class TestSnapshots:
    @pytest.mark.parametrize("kind", ["SGD", "Adam", "AdaGrad", "AdaMax", "AMSGrad", "Momentum", "RMSProp", "Nadam"])
    @pytest.mark.parametrize("options", [{}, {"l2": 0.1}, {"l1": 0.1}], ids=str)
    def test_a_learner_comes_back_with_the_same_answers_and_goes_on_alike(self, kind: str, options: Any) -> None:
        model = taught(pipeline(getattr(optim, kind)(), **options))
        back = load_river(dump_river(model))
        assert back.predict_proba_one(ROW) == model.predict_proba_one(ROW)
        model.learn_one(ROW, True)
        back.learn_one(ROW, True)
        assert back.predict_proba_one(ROW) == model.predict_proba_one(ROW)

    def test_an_untaught_learner_comes_back(self) -> None:
        assert load_river(dump_river(pipeline())).predict_proba_one(ROW) == pipeline().predict_proba_one(ROW)

    def test_more_than_256_names_come_back(self) -> None:
        model = pipeline()
        wide = {f"V.{'long' * 80}{j}": float(j) for j in range(400)}
        model.learn_one(wide, True)
        assert load_river(dump_river(model)).predict_proba_one(wide) == model.predict_proba_one(wide)

    @pytest.mark.parametrize(
        "model",
        [
            tree.HoeffdingTreeClassifier(),
            preprocessing.StandardScaler(window_size=9) | linear_model.LogisticRegression(),
            stats.Mean(),
        ],
        ids=["tree", "rolling scaler", "statistic"],
    )
    def test_whoever_makes_another_kind_of_snapshot_is_told_at_once(self, model: Any) -> None:
        with pytest.raises(PenstockError, match="not on the list"):
            dump_river(model)

    def test_a_scaler_alone_is_no_model(self) -> None:
        with pytest.raises(PenstockError, match="holds a StandardScaler, not a model"):
            dump_river(preprocessing.StandardScaler())


class Reduced:
    """Pickles as a call."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return self.call


def called(module: str, name: str, *args: str) -> bytes:
    """A pickle that names anything and calls it with text; what no honest pickler writes."""
    said = [b"\x80\x05", text(module), text(name), b"\x93", b"(", *map(text, args), b"tR."]
    return b"".join(said)


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def named(module: str, name: str) -> bytes:
    return text(module) + text(name) + b"\x93"


SCALER = named("river.preprocessing.scale", "StandardScaler")
LEARNER = named("river.linear_model.log_reg", "LogisticRegression")
COUNTER = named("collections", "Counter")

ATTRIBUTE = b"}" + text("predict_proba_one") + named("builtins", "float") + b"s"

MANY = b"}(" + b"".join(text(f"{n:05}") + b"N" for n in range(20_000)) + b"u"

REEXPORTED = (
    ("river.preprocessing", "StandardScaler"), ("river.linear_model", "LogisticRegression"), ("river.compose", "Pipeline"),
    ("river.compose.pipeline", "collections"), ("river.optim.losses", "math"), ("river.optim", "SGD"),
    ("river", "compose.pipeline.Pipeline"), ("river.preprocessing.scale", "StandardScaler.__class__"),
    ("river.preprocessing.scale ", "StandardScaler"), ("river.preprocessing.scale", "StandardScaler\x00"),
    ("river.preprocessing..scale", "StandardScaler"), ("River.preprocessing.scale", "StandardScaler"), ("", "StandardScaler"),
    ("penstock.snapshot", "load_river"), ("__main__", "open"), ("builtins", "float.__init__"), ("builtins", "object"),
    ("builtins", "type"), ("collections", "OrderedDict.__reduce__"), ("collections", "abc"), ("collections", "_sys"),
)  # fmt: skip
"""Names that lead to what is on the list, or lie beside it, and are not the exact names of the list."""

WICKED = {
    **{f"the name {module}:{name!r}": b"\x80\x05" + named(module, name) + b"." for module, name in REEXPORTED},
    "a module that is a class": b"\x80\x05" + SCALER + text("x") + b"\x93.",
    "a name that is no text": b"\x80\x05" + text("collections") + b"K\x01\x93.",
    "a name in a tuple": b"\x80\x05" + text("collections") + text("Counter") + b"\x85\x93.",
    "BUILD of a memo that is a class": b"\x80\x05" + LEARNER + b"\x940h\x00" + ATTRIBUTE + b"b.",
    "BUILD of a memo after its class was put there": b"\x80\x05" + LEARNER + b"\x94)\x81\x940h\x00" + ATTRIBUTE + b"b.",
    "BUILD of a Counter": b"\x80\x05" + COUNTER + b")R" + ATTRIBUTE + b"b.",
    "BUILD with a class as state": b"\x80\x05" + LEARNER + b")\x81" + SCALER + b"b.",
    "BUILD with a Counter as state": b"\x80\x05" + LEARNER + b")\x81" + COUNTER + b")Rb.",
    "the old PUT over a class": b"\x80\x05" + LEARNER + b"q\x00" + ATTRIBUTE + b"b.",
    "a REDUCE of a memo that is made": b"\x80\x05" + LEARNER + b")\x81\x94)R.",
    "a REDUCE of a mark": b"\x80\x05()R.",
    "a REDUCE without a tuple": b"\x80\x05" + COUNTER + b"}R.",
    "a REDUCE of a Counter with text, which it would count": b"\x80\x05" + COUNTER + text("a" * 99) + b"\x85R.",
    "NEWOBJ of a memo that is not on the list of objects": b"\x80\x05" + named("builtins", "float") + b"\x94)\x81.",
    "a dictionary that is copied ten thousand times": (
        b"\x80\x05" + MANY + b"\x94" + COUNTER + b"\x94" + b"h\x01h\x00\x85R" * 10_000
    ),
    "attributes that are set ten thousand times": (
        b"\x80\x05" + MANY + b"\x94" + LEARNER + b")\x81\x94" + b"h\x00b" * 10_000 + b"."
    ),
    "os.system by reduce": pickle.dumps(Reduced(os.system, "touch /tmp/penstock-was-here"), 5),
    "os.getcwd by a dotted name in an innocent module": called("river.datasets.base", "os.getcwd"),
    "os.system by a dotted name in an allowed module": called("river.compose.pipeline", "itertools.os.system", "true"),
    "a dotted name of an allowed class": called("river.preprocessing.scale", "StandardScaler.__init__"),
    "a name beside an allowed class": called("river.preprocessing.scale", "functools"),
    "a dataset, which opens files": pickle.dumps(datasets.Phishing, 5),
    "eval": called("builtins", "eval", "1+1"),
    "exec": called("builtins", "exec", "x=1"),
    "getattr": called("builtins", "getattr", "a", "b"),
    "import": called("builtins", "__import__", "os"),
    "partial of something not allowed": pickle.dumps(functools.partial(os.system, "true"), 5),
    "partial of something allowed": pickle.dumps(functools.partial(collections.Counter), 5),
    "operator.attrgetter": called("operator", "attrgetter", "a"),
    "pickle.loads": called("pickle", "loads", "x"),
    "copyreg._reconstructor": called("copyreg", "_reconstructor"),
    "copyreg.__newobj__": called("copyreg", "__newobj__"),
    "copyreg.pickle, to leave a hook behind": called("copyreg", "pickle", "a", "b"),
    "an extension code": b"\x80\x05\x82\x01.",
    "a persistent id": b"\x80\x05X\x01\x00\x00\x00aQ.",
    "the old GLOBAL": b"cos\nsystem\n.",
    "the old INST": b"(S'true'\nios\nsystem\n.",
    "the old OBJ": b"(cos\nsystem\nS'true'\no.",
    "NEWOBJ_EX": b"\x80\x05" + SCALER + b")}\x92.",
    "a call of a class that is only made empty": b"\x80\x05" + SCALER + b")R.",
    "a call of float": called("builtins", "float", "1"),
    "a new object with arguments": b"\x80\x05" + SCALER + text("a") + b"\x85\x81.",
    "a new object of a callable": b"\x80\x05" + COUNTER + b")\x81.",
    "attributes of a class": b"\x80\x05" + LEARNER + ATTRIBUTE + b"b.",
    "attributes by slots": b"\x80\x05" + LEARNER + b")\x81N}" + text("__class__") + SCALER + b"s\x86b.",
    "items of a class": b"\x80\x05" + LEARNER + text("a") + text("b") + b"s.",
    "a factory that is a class of River": b"\x80\x05" + named("collections", "defaultdict") + LEARNER + b"\x85R.",
    "a Counter of an object": b"\x80\x05" + COUNTER + LEARNER + b")\x81\x85R.",
    "a key nested a million deep": b"\x80\x05})" + b"\x85" * 1_000_000 + b"Ns.",
    "a set of tuples": b"\x80\x05\x8f()\x90.",
    "a frozenset of tuples": b"\x80\x05()\x91.",
    "unhashable keys": b"\x80\x05}]Ns.",
    "appending to a class": b"\x80\x05" + LEARNER + b"Na.",
    "an unknown memo": b"\x80\x05h\x07.",
    "an empty stack": b"\x80\x05.",
    "no mark": b"\x80\x05u.",
    "no end": b"\x80\x05N",
    "nothing": b"",
    "a text": b"hello",
    "two values": b"\x80\x05NN.",
    "too large": b"\x80\x05" + b"N" * (snapshot.RIVER_BYTES + 1),
    "not a model": pickle.dumps({"a": 1}, 5),
    "a long that lies about its length": b"\x80\x05\x8a\xff\x01.",
}  # fmt: skip


PROGRAM = [
    *(named(*names) for names in sorted(snapshot.ALLOWED)), *(named(*names) for names in REEXPORTED),
    named("os", "system"), text("a"), text("__dict__"), text("__class__"), text("os"), text("system"),
    *(bytes([n]) for n in b"NR()}tbsu02adeo]QlM"),
    *(bytes([n]) for n in range(0x80, 0x99)), b"K\x01", b"G" + bytes(8), b"\x94", b"\x81", b"\x85", b"\x93", b"\x91",
    b"cos\nsystem\n", b"(S'true'\nios\nsystem\n", b"Va\n", b"I1\n", b"Pos\n", b"\x8a\x02\x01\x01", b"C\x01a",
]  # fmt: skip
"""Pieces of pickles: every instruction, with operands that matter."""


class TestAttacks:
    @pytest.mark.parametrize("data", WICKED.values(), ids=WICKED)
    def test_is_refused_in_words(self, data: bytes) -> None:
        Path("/tmp/penstock-was-here").unlink(missing_ok=True)
        before = {cls: dict(vars(cls)) for cls in (linear_model.LogisticRegression, preprocessing.StandardScaler)}
        with pytest.raises(PenstockError, match=r"^the River snapshot .*: not loaded$"):
            load_river(data)
        assert not Path("/tmp/penstock-was-here").exists()
        assert all(dict(vars(cls)) == kept for cls, kept in before.items())

    def test_copies_without_end_are_refused_before_they_are_made(self) -> None:
        for name in ("a dictionary that is copied ten thousand times", "attributes that are set ten thousand times"):
            with pytest.raises(PenstockError, match="copies the same things again and again"):
                load_river(WICKED[name])

    def test_a_call_hidden_inside_a_good_model_is_refused_by_name(self) -> None:
        model = taught(pipeline())
        model.steps["LogisticRegression"]._y_name = Reduced(os.system, "true")
        buffer = io.BytesIO()
        pickle.Pickler(buffer, 5).dump(model)
        with pytest.raises(PenstockError, match=r"names posix\.system, which is not on the list"):
            load_river(buffer.getvalue())

    def test_numbers_of_numpy_are_refused_so_that_the_trainer_feeds_plain_ones(self) -> None:
        model = pipeline()
        model.steps["LogisticRegression"].intercept = np.float64(1.0)
        with pytest.raises(PenstockError, match=r"numpy.*not on the list"):
            dump_river(model)

    def test_every_cut_of_a_good_snapshot_is_refused(self) -> None:
        data = dump_river(taught(pipeline()))
        for end in range(0, len(data), 7):
            with pytest.raises(PenstockError):
                load_river(data[:end])

    def test_flipped_bytes_are_refused_or_harmless(self) -> None:
        data = dump_river(taught(pipeline(), 20))
        drawn = random.Random(3)
        for _ in range(2_000):
            bad = bytearray(data)
            bad[drawn.randrange(len(bad))] ^= 1 << drawn.randrange(8)
            try:
                load_river(bytes(bad))
            except PenstockError:
                continue

    @given(st.lists(st.sampled_from(PROGRAM) | st.integers(0, 9).map(lambda n: b"h" + bytes([n])), max_size=40), st.booleans())
    @settings(max_examples=500, deadline=None)
    def test_no_program_crashes_or_names_what_is_not_on_the_list(self, program: list[bytes], good: bool) -> None:
        start = dump_river(pipeline())[2:-1] if good else b""
        asked: list[str] = []

        def watched(name: str) -> Any:
            asked.append(name)
            return sys.modules[name]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(importlib, "import_module", watched)
            with contextlib.suppress(PenstockError):
                found = load_river(b"\x80\x05" + start + b"".join(program) + b".")
                assert type(found) in (compose.Pipeline, linear_model.LogisticRegression)
        assert set(asked) <= {module for module, _ in snapshot.ALLOWED}

    def test_the_list_holds_exact_names_of_classes_only(self) -> None:
        assert all("." not in name and not name.startswith("_") for _, name in snapshot.ALLOWED)
        assert {module.partition(".")[0] for module, _ in snapshot.ALLOWED} == {"river", "collections", "builtins"}
        assert not {name for _, name in snapshot.ALLOWED} & {"partial", "getattr", "eval", "Random"}
