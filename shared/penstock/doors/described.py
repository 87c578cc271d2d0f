"""The doors as OpenAPI says them: how to show a key, and which scope each operation needs."""

from __future__ import annotations

from typing import Any, Final

from .scopes import ANY, LABEL, OPEN, PUBLISH, needed

__all__ = ["secured"]

SCHEMES: Final[dict[str, Any]] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key (`penstock keys create`), or a JSON Web Token of the identity provider. Asked for on any "
        "address but loopback, and there where keys are set.",
    },
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "An API key."},
}


def secured(document: dict[str, Any]) -> dict[str, Any]:
    """A description of HTTP, with the scopes that its operations need; changed in place, and the same a second time."""
    document.setdefault("components", {})["securitySchemes"] = SCHEMES
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            need = needed(method.upper(), path)
            scopes = [PUBLISH, LABEL] if need == PUBLISH else [need]  # label: where the event answers another
            asked = [{scheme: [] if scope == ANY else [scope]} for scope in scopes for scheme in SCHEMES]
            operation["security"] = [] if need == OPEN else asked
    return document
