"""Keys as people give them, and the names of entities that they mean: the same names that the stream makes of events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ..errors import Refused
from ..event import Column
from ..topology import Hop

__all__ = ["entities", "entity", "key_of", "listed"]

_DIGITS = 20
"""Of an int64, with its sign."""


def key_of(hop: Hop) -> tuple[Column, ...]:
    """The columns that name an entity of a hop, as its first view's first event spells them."""
    return next(iter(hop.views[0].by.values()))


def entity(hop: Hop, key: str) -> str:
    """One entity named in text: a compound key is a JSON array of its parts. Raises Refused when it is none."""
    columns = key_of(hop)
    if len(columns) == 1:
        return key
    try:
        parts = msgspec.json.decode(key)
    except msgspec.DecodeError:
        parts = None
    if not isinstance(parts, list) or len(parts) != len(columns) or None in parts:
        raise Refused("schema", f"{key[:80]!r} is no key by {hop.key}: write a JSON array of {_listed(columns)}")
    return _name(columns, parts, "key")


def entities(hops: Sequence[Hop], keys: Any) -> list[Sequence[str | None]]:
    """The entity of each row, by hop. `keys` is

        a list of keys              where all is by one key: texts or numbers; for a compound key lists of its parts
        a list of {column: value}   where there are several keys
        {column: list}, a frame     the same by columns

    None (in a frame NaN) is nobody. Raises Refused in words for what is none of these.

    >>> import penstock as ps
    >>> from penstock.examples.flights import project
    >>> hops = [hop for hop in project.topology.hops if hop.key in ("origin", "origin+dest")]
    >>> entities(hops, [{"origin": "JFK", "dest": "LAX"}])
    [['JFK'], ['["JFK","LAX"]']]
    """
    if type(keys) is list and len(hops) == 1 and _plain(key_of(hops[0]), keys):
        return [keys]
    needed = list(dict.fromkeys(column for hop in hops for column in key_of(hop)))
    names = list(dict.fromkeys(column.name for column in needed))
    if not isinstance(keys, Mapping) and hasattr(keys, "columns"):  # a frame of pandas
        keys = {str(name): listed(keys[name]) for name in keys.columns if name in names}
    if isinstance(keys, Mapping):
        for name in names:
            if not _many(keys.get(name)):
                raise Refused("schema", f"keys: {name} is missing, or no list: the values are by {', '.join(names)}")
        if len({len(keys[name]) for name in names}) > 1:
            raise Refused("schema", f"keys: the lists of {', '.join(names)} have different lengths")
        return [_named(hop, [listed(keys[column.name]) for column in key_of(hop)]) for hop in hops]
    if not _many(keys):
        raise Refused("schema", f"keys: give a list, or lists by column name ({', '.join(names)})")
    rows = listed(keys)
    if rows and any(isinstance(row, Mapping) for row in rows):
        for at, row in enumerate(rows):
            if not isinstance(row, Mapping) or not all(name in row for name in names):
                raise Refused("schema", f"keys[{at}]: give an object with {', '.join(names)} (null where there is none)")
        return [_named(hop, [[row[column.name] for row in rows] for column in key_of(hop)]) for hop in hops]
    if len({hop.key for hop in hops}) > 1:
        raise Refused("schema", f"keys: these values are by {', '.join(names)}: give objects, or lists by column name")
    columns = key_of(hops[0])
    if len(columns) == 1:
        return [_named(hops[0], [rows])]
    found: list[str | None] = []
    for at, row in enumerate(rows):
        if row is None:
            found.append(None)
        elif isinstance(row, str):
            found.append(entity(hops[0], row))
        elif _many(row) and len(row) == len(columns):
            found.append(_name(columns, row, f"keys[{at}]") if None not in row else None)
        else:
            raise Refused("schema", f"keys[{at}]: give a list of {_listed(columns)}")
    return [found]


def listed(values: Any) -> list[Any]:
    """A column of keys as a list; what pandas calls missing (NaN, NA) is None."""
    if hasattr(values, "isna"):
        values = values.astype(object).where(values.notna(), None)
    return values.tolist() if hasattr(values, "tolist") else list(values)


def _named(hop: Hop, parts: list[list[Any]]) -> Sequence[str | None]:
    """The entities of columns of key parts."""
    columns = key_of(hop)
    if _plain(columns, parts[0]):
        return parts[0]
    found: list[str | None] = []
    for at, row in enumerate(zip(*parts, strict=True)):
        missing = any(part is None or part != part for part in row)  # NaN is how frames write None
        found.append(None if missing else _name(columns, row, f"keys[{at}]"))
    return found


def _plain(columns: Sequence[Column], parts: list[Any]) -> bool:
    """Whether parts are names as they are; most often they are."""
    return len(columns) == 1 and columns[0].type is str and set(map(type, parts)) <= {str}


def _name(columns: Sequence[Column], parts: Sequence[Any], where: str) -> str:
    """As `codec.entity_of` names the entity of an event."""
    held = [_held(column, part, where) for column, part in zip(columns, parts, strict=True)]
    return str(held[0]) if len(held) == 1 else msgspec.json.encode(held).decode()


def _held(column: Column, value: Any, where: str) -> Any:
    """A key part as the stream holds it. Only what means the same in the column's type is taken: 7 and "7", never "07"."""
    if hasattr(value, "item"):  # numpy's scalars
        value = value.item()
    if isinstance(value, column.type) and not (isinstance(value, bool) and column.type is not bool):
        return value
    if column.type is str and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if column.type is int and isinstance(value, float) and value.is_integer() and abs(value) < 1 << 53:
        return int(value)
    written = column.type is int and isinstance(value, str) and len(value) <= _DIGITS and value.removeprefix("-").isdecimal()
    if written and str(int(value)) == value:
        return int(value)
    if column.type is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    raise Refused("schema", f"{where}: {str(value)[:80]!r} is no {column.name}, which is {column.type.__name__}")


def _many(value: Any) -> bool:
    return (isinstance(value, Sequence) and not isinstance(value, str | bytes)) or hasattr(value, "tolist")


def _listed(columns: Sequence[Column]) -> str:
    return ", ".join(column.name for column in columns)
