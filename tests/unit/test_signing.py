"""Where public keys are set, nothing is opened that none of them signed."""

from __future__ import annotations

import base64
import pickle
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given
from hypothesis import strategies as st

from penstock.artefact import Artefacts
from penstock.errors import PenstockError, SettingError
from penstock.records import Artefact
from penstock.settings import load
from penstock.signing import PublicKeys, SigningKey


def made(folder: Path, *names: str) -> list[bytes]:
    """Private keys in `<name>.pem`; what the files of their public keys hold."""
    found = []
    for name in names:
        key = ed25519.Ed25519PrivateKey.generate()
        none = serialization.NoEncryption()
        (folder / f"{name}.pem").write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, none)
        )
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        found.append(key.public_key().public_bytes(serialization.Encoding.PEM, form))
    return found


@pytest.fixture
def signed(tmp_path: Path) -> tuple[Artefacts, Artefact]:
    """A store that signs with key `old` and trusts `old` and `new`, and what it has put."""
    old, new = made(tmp_path, "old", "new")
    (tmp_path / "public.pem").write_bytes(b"# ours\n" + old + new)
    store = Artefacts(tmp_path / "models", SigningKey(tmp_path / "old.pem"), PublicKeys.read(tmp_path / "public.pem"))
    return store, store.put(b"a model", "png")


def test_what_a_trusted_key_signed_is_opened(signed: tuple[Artefacts, Artefact], tmp_path: Path) -> None:
    store, artefact = signed
    assert store.get(artefact) == b"a model"
    assert store.put(b"a model", "png") == artefact, "the same bytes are the same artefact"
    other = Artefacts(store.root, SigningKey(tmp_path / "new.pem")).put(b"newer", "png")
    assert store.get(other) == b"newer", "while a key is replaced, both are trusted"


def test_what_is_unsigned_wrongly_signed_or_moved_is_not(signed: tuple[Artefacts, Artefact], tmp_path: Path) -> None:
    store, artefact = signed
    made(tmp_path, "stranger")
    stranger = Artefacts(store.root, SigningKey(tmp_path / "stranger.pem")).put(b"wicked", "png")
    change = msgspec.structs.replace
    with pytest.raises(PenstockError, match="is not signed"):
        store.get(change(artefact, signature=""))
    wrong = [stranger, change(artefact, signature=stranger.signature), change(artefact, format="river"), change(artefact, size=8),
             change(stranger, signature=artefact.signature), change(artefact, signature="@@"),
             change(artefact, signature=artefact.signature[:-8])]  # fmt: skip
    for each in wrong:
        with pytest.raises(PenstockError, match="signed by none of the 2 keys"):
            store.get(each)


@given(st.binary(max_size=80))
def test_no_made_up_signature_is_taken(data: bytes) -> None:
    keys = PublicKeys((ed25519.Ed25519PrivateKey.from_private_bytes(b"k" * 32).public_key().public_bytes_raw(),))
    for text in (base64.b64encode(data).decode(), data.decode("latin-1") or "x"):
        with pytest.raises(PenstockError):
            keys.check(Artefact(uri="u", sha256="0" * 64, size=1, format="onnx", signature=text))


def test_without_keys_nothing_changes(tmp_path: Path, signed: tuple[Artefacts, Artefact]) -> None:
    plain = Artefacts(tmp_path / "plain").put(b"a model", "png")
    assert b"signature" not in msgspec.json.encode(plain)
    assert Artefacts(signed[0].root).get(signed[1]) == b"a model", "a signature does no harm to who does not ask"


def test_a_store_that_trusts_keys_goes_to_another_process(signed: tuple[Artefacts, Artefact]) -> None:
    store, artefact = signed
    there = pickle.loads(pickle.dumps(Artefacts(store.root, None, store.trusted)))
    assert there.get(artefact) == b"a model"
    with pytest.raises(PenstockError):
        there.get(msgspec.structs.replace(artefact, signature=""))


def test_keys_come_from_the_settings(tmp_path: Path) -> None:
    (public,) = made(tmp_path, "key")
    (tmp_path / "public.pem").write_bytes(public)
    store = Artefacts.of(load(data=tmp_path, signing_key=str(tmp_path / "key.pem"), public_keys=str(tmp_path / "public.pem")))
    assert store.get(store.put(b"a model", "png")) == b"a model"
    assert Artefacts.of(load(data=tmp_path)).trusted is None


def test_a_file_that_is_no_key_is_said_at_the_start(tmp_path: Path) -> None:
    (public,) = made(tmp_path, "key")
    (tmp_path / "public.pem").write_bytes(public)
    curve = ec.generate_private_key(ec.SECP256R1())
    form, none = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (tmp_path / "curve.pem").write_bytes(curve.private_bytes(serialization.Encoding.PEM, form, none))
    (tmp_path / "text.pem").write_text("hello")
    for name in ("gone.pem", "text.pem", "curve.pem", "public.pem"):
        with pytest.raises(SettingError, match="SIGNING_KEY"):
            SigningKey(tmp_path / name)
    for name in ("gone.pem", "text.pem", "key.pem"):
        with pytest.raises(SettingError, match="PUBLIC_KEYS"):
            PublicKeys.read(tmp_path / name)
