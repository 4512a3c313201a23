"""Copies directory trees with all that a file system knows of the files, by cp(1) of coreutils."""

from __future__ import annotations

import fcntl
import os
import select
import subprocess
from pathlib import Path

from lxcfleet.errors import HostError
from lxcfleet.host.kernel import syscalls

_CP = (
    "cp", "-dRxT", "--preserve=mode,ownership,timestamps,links,xattr", "--reflink=auto", "--sparse=auto", "--",
)  # fmt: skip
"""Not -a: with that, extended attributes which can't be kept are no error."""
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST = 4096
_LONGEST = 300
_BLOCK = 4096
_FICLONE = 0x40049409
"""linux/fs.h."""


def copy(source: Path, target: Path, asker: int) -> None:
    """Copy all in the directory ``source``, and its own attributes, to the empty directory ``target``.

    Owners, modes, times, hard links, extended attributes (also trusted.* and capabilities), access lists, devices, sockets
    and holes stay as they are. Where the file system can, both share the blocks. Nothing that is mounted below is copied.
    ``asker``: a socket; if its other end is closed, the copy is broken off. Raises HostError, OSError.
    """
    to = os.open(target, _DIRECTORY)
    try:
        copy_to(source, to, asker)
    finally:
        os.close(to)


def copy_to(source: Path, to: int, asker: int) -> None:
    """The same; ``to``: a descriptor of the empty directory."""
    from_ = _alone(source)
    try:
        command = [*_CP, f"/proc/self/fd/{from_}/.", f"/proc/self/fd/{to}/."]
        with subprocess.Popen(
            command, pass_fds=(from_, to), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            env=_ENVIRONMENT, preexec_fn=syscalls.die_with_parent,  # noqa: PLW1509  this process has one thread
        ) as process:  # fmt: skip
            said = _follow(process, asker)
    finally:
        os.close(from_)
    if process.returncode:
        lines = said.decode("ascii", errors="replace").splitlines()
        why = lines[0].removeprefix("cp: ")[:_LONGEST] if lines else f"cp ended with {process.returncode}"
        hint = "make room on the disk, then try again" if "No space left" in why or "quota exceeded" in why else ""
        raise HostError(f"not all of {source} can be copied", why=why, hint=hint)


def _alone(source: Path) -> int:
    """A descriptor of the directory without what is mounted below it. cp goes into bind mounts of the same file system."""
    handle = os.open(source, _DIRECTORY)
    try:
        return syscalls.clone_apart(handle, 0, None, os.fspath(source))
    finally:
        os.close(handle)


def _follow(process: subprocess.Popen[bytes], asker: int) -> bytes:
    """The program's words on stderr. The program is killed if nobody waits for it any more."""
    assert process.stderr is not None
    said, stderr = b"", process.stderr.fileno()
    poll = select.poll()
    poll.register(stderr, select.POLLIN)
    poll.register(asker, select.POLLRDHUP)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == asker:
                process.kill()
                process.wait()
                raise HostError("the copy was broken off", why="the daemon that wanted it has ended")
            piece = os.read(stderr, _MOST)
            if not piece:
                process.wait()
                return said
            said = (said + piece)[:_MOST]


def shares_blocks(directory: Path) -> bool:
    """Whether copies in the file system of ``directory`` share the blocks; ioctl_ficlone(2), tried with files without names,
    of which nothing can be left; open(2), O_TMPFILE."""
    flags = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC  # what is cloned has to be open for reading
    try:
        with open(os.open(directory, flags, 0o600), "wb", 0) as one, open(os.open(directory, flags, 0o600), "wb", 0) as other:
            one.write(b"\0" * _BLOCK)
            fcntl.ioctl(other.fileno(), _FICLONE, one.fileno())
    except OSError:
        return False
    return True
