"""Containers that `lxcfleet run` runs in the foreground: whoever called that, and not this daemon, says when they start.

The note lies beside the container's spec from before its start until somebody else starts it. While it is there, the
container's restart policy is off, no boot of the host starts it, and no rollout does: one that has to restart it ends it, and
`lxcfleet run` with it, with a status that tells its caller to begin it anew.
"""

from __future__ import annotations

import json
import logging
import os
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from lxcfleet.host.kernel import tree
from lxcfleet.host.process import proc
from lxcfleet.paths import Paths
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.reading import ondisk
from lxcfleet.spec.reading.terms import Init

log = logging.getLogger(__name__)

PIPES = ("in", "out", "err", "go")
"""The names of the pipes. The command begins once somebody has opened the last one for writing."""
LEFT = "left"
"""A file beside them: the client was killed, and so the container is being stopped."""
INSIDE = "/dev/.lxcfleet"
"""Where a container has them."""


@dataclass(frozen=True)
class Foreground:
    """How `lxcfleet run` runs a container."""

    stdin: bool = False
    """Whether its command gets the caller's stdin."""
    tty: bool = False
    """Whether its command has a terminal, and no pipes."""
    remove: bool = False
    """Whether it is destroyed once it has ended."""
    detach: bool = False
    """Whether it runs on if `lxcfleet run` is killed."""
    renew: bool = False
    """Somebody wanted it to be restarted: `lxcfleet run` ends with the status that says so."""
    client: str = ""
    """The pid of `lxcfleet run`, and when that began; see host.process.proc. Empty: not known."""

    @property
    def given_up(self) -> bool:
        """Whether its client was killed, and so it is being ended, or will be in a moment."""
        pid, _, began = self.client.partition(" ")
        return bool(pid) and not self.detach and not proc.lives(int(pid), float(began))


def read(paths: Paths, name: str) -> Foreground | None:
    """The note about a container; None: there is none, or it can't be read."""
    file = paths.container(name).foreground
    try:
        data = ondisk.record(file, ondisk.SMALL)
        said = {key: bool(value) for key, value in data.items() if key in asdict(Foreground()) and key != "client"}
        return Foreground(**said, client=_identity(data.get("client")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        log.warning("%s can't be read: %s", file, error)
        return Foreground()  # it is still not for this daemon to start it


def _identity(said: object) -> str:
    """The identity that tells a client from others; empty if it can't be read."""
    return said if isinstance(said, str) and re.fullmatch(r"[0-9]{1,10} [0-9]+\.[0-9]+", said, re.ASCII) else ""


def write(paths: Paths, name: str, note: Foreground | None) -> None:
    """Write the note; None: remove it. Raises OSError."""
    file = paths.container(name).foreground
    if note is None:
        file.unlink(missing_ok=True)
    else:
        tree.write(file, json.dumps(asdict(note)) + "\n")


def renewed(paths: Paths, name: str, note: Foreground) -> Foreground:
    """Note that somebody wants it restarted. Raises OSError."""
    after = replace(note, renew=True)
    write(paths, name, after)
    return after


def piped(spec: Spec, note: Foreground | None) -> bool:
    """Whether its command's streams are pipes, and not its console."""
    return note is not None and spec.init is Init.APP and not note.tty


def make_pipes(directory: Path, owner: int) -> None:
    """Make new pipes for a container whose root is ``owner`` on the host. Raises OSError.

    Only that root may enter their directory, and no user of the host. Any user of the container may open a pipe anew that it
    has already, as /dev/stdout of a command that is not root's.
    """
    directory.parent.mkdir(mode=0o755, exist_ok=True)
    remove_pipes(directory)
    directory.mkdir(mode=0o700)
    for name in PIPES:
        os.mkfifo(directory / name)
        os.chmod(directory / name, 0o666)
    os.chown(directory, owner, owner)


def remove_pipes(directory: Path) -> None:
    """Remove the pipes, if there are any. Raises OSError."""
    for name in (*PIPES, LEFT):
        (directory / name).unlink(missing_ok=True)
    if directory.exists():
        directory.rmdir()
