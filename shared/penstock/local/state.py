"""What runs on a project's folder, in `state.json`: written by the supervisor, read by `penstock status` and `down`."""

import json
import os
import signal
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from .process import LocalError, Mark, end_group, group, mark, wait_until

__all__ = ["Status", "Up", "down", "elsewhere", "status", "supervisor_of", "write"]

SUPERVISOR: Final = "supervisor"
BACKFILL: Final = "backfill"
GRACE: Final = 8.0  # seconds for a process to end by itself
SUPERVISOR_SECONDS: Final = 45.0  # it gives each service and then broker and Redis their own deadline; then we do it


@dataclass(frozen=True, slots=True)
class Status:
    """One process as `penstock status` shows it; `state` is starting, ready, restarting or ended."""

    name: str
    pid: int
    started: str
    state: str
    url: str = ""
    restarts: int = 0

    @property
    def running(self) -> bool:
        """Whether exactly this process runs now."""
        return Mark(self.pid, self.started).alive


def write(folder: Path, processes: Iterable[Status]) -> None:
    """Replace the state file, whole or not at all."""
    me = mark(os.getpid())
    assert me is not None  # we are running
    supervisor = Status(SUPERVISOR, me.pid, me.started, "ready")
    text = json.dumps({"processes": [asdict(entry) for entry in (supervisor, *processes)]}, indent=1)
    scratch = _file(folder).with_suffix(".new")
    scratch.write_text(text + "\n", encoding="utf-8")
    scratch.replace(_file(folder))


def status(folder: Path) -> list[Status]:
    """Everything the folder's supervisor started, itself first; what does not run any more is `ended`."""
    return [entry if entry.running else replace(entry, state="ended") for entry in _read(folder)]


def supervisor_of(folder: Path) -> int | None:
    """The process that supervises the folder now, if any does."""
    return next((entry.pid for entry in _read(folder) if entry.name == SUPERVISOR and entry.running), None)


@dataclass(frozen=True, slots=True)
class Up:
    """A project whose services run on this machine, and its data folder."""

    project: str
    folder: Path


def elsewhere(folder: Path) -> list[Up]:
    """What this user has up in other data folders, as its services' environment says. Other users' are not seen."""
    found = {Up(project, there) for _, _, project, there in _services() if there != folder.absolute()}
    return sorted(found, key=lambda up: up.folder)


def _services() -> Iterator[tuple[int, str, str, Path]]:
    """The services of this user that run: process, service, project, data folder."""
    for entry in Path("/proc").iterdir():
        try:
            _, asked, name = (entry / "cmdline").read_bytes().partition(b"\0penstock.services\0")
            if not entry.name.isdigit() or not asked:
                continue
            said = dict(item.split("=", 1) for item in os.fsdecode((entry / "environ").read_bytes()).split("\0") if "=" in item)
        except OSError:  # it has ended, or is another's
            continue
        if "PENSTOCK_DATA" in said and (folder := Path(said["PENSTOCK_DATA"])).is_absolute():
            yield int(entry.name), os.fsdecode(name).partition("\0")[0], said.get("PENSTOCK_PROJECT", "?"), folder


def down(folder: Path) -> list[str]:
    """End whatever the folder's state file names, and say what was ended. Nothing of it runs when this returns.

    The supervisor is asked first, because it ends services before the broker and would start again what we end. What
    it leaves, or left when it was killed, is ended here, group by group.
    """
    entries = _read(folder)
    ended = [entry.name for entry in entries if entry.name != SUPERVISOR and _left(entry)]
    building = [pid for pid, service, _, there in _services() if service == BACKFILL and there.resolve() == folder.resolve()]
    for pid in building:  # no supervisor's: those of `penstock features backfill`, which hears that they have ended
        end_group(pid, GRACE)
    ended += [BACKFILL] * bool(building)
    chief = supervisor_of(folder)
    if chief is not None and chief != os.getpid():
        ended.insert(0, SUPERVISOR)
        with suppress(ProcessLookupError):
            os.kill(chief, signal.SIGTERM)
        if not wait_until(lambda: supervisor_of(folder) is None, SUPERVISOR_SECONDS):
            with suppress(ProcessLookupError):
                os.kill(chief, signal.SIGKILL)
        entries += [entry for entry in _read(folder) if entry not in entries]  # it may have restarted one meanwhile
    for entry in reversed(entries):  # services were started after the broker
        if entry.name != SUPERVISOR and _left(entry):
            end_group(entry.pid, GRACE)
    _file(folder).unlink(missing_ok=True)
    return ended


def _left(entry: Status) -> bool:
    """Whether anything of the entry's process group runs: its leader, or what an ended leader left in it.

    The system gives no new process the id of a group that still has members, so a leader of another start time means
    that the group is not ours.
    """
    if entry.running:
        return True
    return mark(entry.pid) is None and bool(group(entry.pid))


def _read(folder: Path) -> list[Status]:
    path = _file(folder)
    try:
        kept: Mapping[str, list[dict[str, object]]] = json.loads(path.read_text(encoding="utf-8"))
        return [Status(**entry) for entry in kept["processes"]]  # type: ignore[arg-type]  # our own file, our own fields
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        raise LocalError(
            f"{path} cannot be read: {error}",
            f"see what runs:  ps -ef | grep penstock   end it, then:  rm {path}",
        ) from error


def _file(folder: Path) -> Path:
    return folder / "state.json"
