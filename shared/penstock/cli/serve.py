"""serve: ONNX files and Python functions by the Open Inference Protocol, with nothing else running."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any

import typer

from . import screen

__all__ = ["serve"]


def serve(
    files: Annotated[list[str], typer.Argument(metavar="[MODEL[/VERSION]=]FILE.onnx|FILE.py:FUNCTION[+...]", show_default=False)],
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8801,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on. Anything but loopback lets the network ask.")
    ] = "127.0.0.1",
    admin: Annotated[bool, typer.Option("--admin", help="Let clients list, load and unload models (loopback only).")] = False,
    memory: Annotated[
        int | None,
        typer.Option("--memory", metavar="MIB", min=1, help="Close the least used models beyond it.", show_default=False),
    ] = None,
    load_timeout: Annotated[float, typer.Option("--load-timeout", metavar="SECONDS", help="For opening one model.")] = 60.0,
    patience: Annotated[
        float, typer.Option("--patience", metavar="SECONDS", help="Answer 503 once requests wait longer than this.")
    ] = 1.0,
    max_rows: Annotated[int, typer.Option("--max-rows", min=1, help="Rows of one request.")] = 10_000,
    max_body: Annotated[int, typer.Option("--max-body", metavar="MIB", min=1, help="Size of one request.")] = 16,
    keys: Annotated[
        str, typer.Option("--keys", metavar="FILE", envvar="PENSTOCK_HTTP_KEYS", help="API keys that let in (penstock keys).")
    ] = "",
    rate: Annotated[
        str, typer.Option("--rate", envvar="PENSTOCK_HTTP_RATE", help="How often a key may ask, such as 600/minute.")
    ] = "",
    distinct: Annotated[
        str,
        typer.Option(
            "--distinct",
            envvar="PENSTOCK_HTTP_DISTINCT",
            help="About how many different inputs a key may ask, such as 20000/day.",
        ),
    ] = "",
    jwks: Annotated[
        str, typer.Option("--jwks", metavar="URL|FILE", envvar="PENSTOCK_HTTP_JWKS", help="Keys of who signs tokens (JWT).")
    ] = "",
    issuer: Annotated[str, typer.Option("--issuer", envvar="PENSTOCK_HTTP_ISSUER", help="Who makes these tokens.")] = "",
    audience: Annotated[str, typer.Option("--audience", envvar="PENSTOCK_HTTP_AUDIENCE", help="Whom they are made for.")] = "",
    algorithms: Annotated[
        str, typer.Option("--algorithms", envvar="PENSTOCK_HTTP_ALGORITHMS", help="How they may be signed.")
    ] = "RS256",
    certificate: Annotated[
        str, typer.Option("--certificate", metavar="PEM", envvar="PENSTOCK_HTTP_CERTIFICATE", help="Speak HTTPS with it.")
    ] = "",
    certificate_key: Annotated[
        str, typer.Option("--certificate-key", metavar="PEM", envvar="PENSTOCK_HTTP_CERTIFICATE_KEY", help="Its key.")
    ] = "",
    everybody: Annotated[
        bool, typer.Option("--open", envvar="PENSTOCK_HTTP_OPEN", help="No keys off loopback: something in front asks for them.")
    ] = False,
    grpc_port: Annotated[
        int | None,
        typer.Option("--grpc-port", min=0, max=65535, help="Answer by gRPC, too; needs penstock[grpc].", show_default=False),
    ] = None,
    function_seconds: Annotated[
        float, typer.Option("--function-seconds", metavar="SECONDS", min=0.01, help="That a call of a Python function may take.")
    ] = 5.0,
    function_memory: Annotated[
        int, typer.Option("--function-memory", metavar="MIB", min=64, help="Address space of the process of a Python function.")
    ] = 2048,
) -> None:
    """Serve ONNX files over HTTP by the Open Inference Protocol.

    Needs no broker, Redis or project. A file that changes is swapped in without a failed request.

    penstock serve fraud.onnx late/1=old.onnx late/2=new.onnx

    penstock serve late=prepare.py:clean+late.onnx+finish.py:words

    The second answers by functions before and after a model, declared with @ps.function, each in a process of its own.
    """
    from ..doors.access import Access

    machine = import_module("penstock.services.inference.open_inference.serve")
    limits = machine.Limits(body=max_body << 20, rows=max_rows)
    access = Access(
        keys=keys, pepper=os.environ.get("PENSTOCK_HTTP_PEPPER", ""), jwks=jwks, issuer=issuer, audience=audience,
        algorithms=algorithms, rate=rate, distinct=distinct, open=everybody,
    )  # fmt: skip
    transport = machine.Transport(certificate, certificate_key)
    most = None if memory is None else memory << 20
    bounds = machine.Bounds(function_seconds, function_memory << 20)
    machine.run(files, told, host, port, admin, most, load_timeout, patience, limits, access, transport, grpc_port, bounds)
    screen.note("stopped")


def told(url: str, models: Sequence[dict[str, Any]], grpc: str) -> None:
    """Say what is served, and how to ask it."""
    table = [
        (m["model"], m["version"], f"sha256 {m['sha256'][:12]}", tensors(m["inputs"]) + " -> " + tensors(m["outputs"]))
        for m in models
    ]
    first = models[0]["model"]
    also = f", by gRPC at {grpc}" if grpc else ""
    lines = [f"serving at {url}/v2{also}; Ctrl-C ends it", *screen.rows(table), f"see:  curl {url}/v2/models/{first}"]
    screen.answer({"url": url, **({"grpc": grpc} if grpc else {}), "models": list(models)}, lines)


def tensors(of: Sequence[dict[str, Any]]) -> str:
    return ", ".join(f"{t['name']} {t['datatype']}{t['shape']}".replace("-1", "*") for t in of)
