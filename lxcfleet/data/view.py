"""Runs a backup program that sees a snapshot, read-only and with the owners that the container sees, in a mount namespace of
its own: the mount is gone with the program, whatever happens, and nothing of it is ever in the host's mount table.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from lxcfleet.data import snapshots, volumes
from lxcfleet.errors import Denied, FleetError, HostError, InvalidInput
from lxcfleet.host.kernel import syscalls
from lxcfleet.paths import Paths
from lxcfleet.spec.container.snapshots import check_snapshot
from lxcfleet.spec.reading.names import check_name

FAILED, NOT_RUN, NOT_FOUND = 125, 126, 127
"""Exit statuses: lxcfleet failed; the program can't be run; there is no such program."""
_FLAGS = syscalls.MS_RDONLY | syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC


def show(paths: Paths, container: str, name: str) -> str:
    """Mount the snapshot at the container's place below /run, in a mount namespace that this process gets; gives the place.

    Raises FleetError, OSError.
    """
    found = snapshots.get(paths, check_name(container), check_snapshot(name))
    os.set_inheritable(snapshots.keep_for_reading(paths, container, name), True)  # for as long as the program runs
    target, source = paths.backup(container), paths.snapshot(container, name).delta
    for directory in (target.parent, target):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    syscalls.unshare_mounts()
    handles = [os.open(each, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC) for each in (source, target)]
    try:
        if found.first_id:
            tree = volumes.clone(handles[0], str(source), _FLAGS, found.first_id, 0)
        else:
            tree = syscalls.clone_apart(handles[0], _FLAGS, None, str(source))
        try:
            syscalls.attach_at(tree, handles[1], str(target))
        finally:
            os.close(tree)
    finally:
        for handle in handles:
            os.close(handle)
    return str(target)


def run(paths: Paths, container: str, name: str, command: Sequence[str]) -> NoReturn:
    """Become the program, in the directory of the view. Raises FleetError, OSError."""
    if os.geteuid() != 0:
        raise Denied("only root can run a program on a snapshot", why="it mounts something", hint="use sudo")
    if not command:
        raise InvalidInput("no program to run")
    try:
        place = show(paths, container, name)
        os.chdir(place)
    except OSError as error:
        raise HostError.from_os_error(f"the snapshot {name} of {container} can't be shown", error) from error
    os.environ["LXCFLEET_BACKUP"] = place
    os.execvp(command[0], [*command])


def main() -> NoReturn:
    """``CONTAINER SNAPSHOT COMMAND…``"""
    container, name, *command = sys.argv[1:]
    try:
        run(Paths.from_environment(), container, name, command)
    except FileNotFoundError as error:
        _fail(HostError.from_os_error(f"{command[0]} can't be run", error), NOT_FOUND)
    except PermissionError as error:
        _fail(HostError.from_os_error(f"{command[0]} can't be run", error), NOT_RUN)
    except (FleetError, OSError) as error:
        _fail(error, FAILED)


def _fail(error: Exception, status: int) -> NoReturn:
    sys.stderr.write("lxcfleet: " + "\n  ".join(str(error).splitlines()) + "\n")
    sys.exit(status)
