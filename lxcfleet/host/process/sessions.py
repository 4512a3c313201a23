"""Sessions: processes of the host that serve a command in a container (`exec`, `shell`). Each has a file while it runs.

A session may outlive the daemon, so the daemon finds it by its file. /run has no session of an earlier boot.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lxcfleet.host.kernel import tree
from lxcfleet.host.process import proc
from lxcfleet.spec.reading import ondisk


@dataclass(frozen=True)
class RunningSession:
    """A session that runs."""

    container: str
    pid: int
    began: float
    """Seconds since the machine booted, as the next."""
    loaded: float
    """When the program began of which the session is a copy: it has that program's modules."""


@contextlib.contextmanager
def noted(directory: Path, container: str) -> Iterator[None]:
    """Note this process as a session in ``container`` for as long as this lasts. A note that fails is no reason to end."""
    file = directory / str(os.getpid())
    try:
        directory.mkdir(mode=0o755, exist_ok=True)
        tree.write(file, json.dumps([container, proc.began(os.getpid()), proc.began(os.getppid())]))
    except OSError as error:
        print(f"lxcfleet: a session in {container} is not noted: {error}", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            file.unlink()


def running(directory: Path) -> list[RunningSession]:
    """The sessions that run, by pid. Files of those that were killed are removed."""
    found = []
    for name in _names(directory):
        try:
            session = _read(directory / name)
        except OSError:  # the host has no descriptor left, say: it may run, and its file stays
            continue
        if session is None:
            with contextlib.suppress(OSError):
                (directory / name).unlink()
        else:
            found.append(session)
    return sorted(found, key=lambda each: each.pid)


def _names(directory: Path) -> list[str]:
    try:
        return [name for name in os.listdir(directory) if name.isdecimal()]
    except OSError:
        return []


def _read(file: Path) -> RunningSession | None:
    """None: the process is gone, or its number is another's by now. Raises OSError if that can't be told."""
    try:
        container, began, loaded = ondisk.record(file, ondisk.SMALL)
        session = RunningSession(str(container), int(file.name), float(began), float(began if loaded is None else loaded))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return session if proc.began(session.pid) == session.began else None
