"""The language that a container's own files ask for, for commands of exec and for the one that an app container runs."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from lxcfleet.host.kernel import syscalls
from lxcfleet.spec.reading.terms import USUAL_LANGUAGE

_FILES = ("etc/locale.conf", "etc/default/locale")
"""locale.conf(5), and the file of Debian's that was there before."""
_MOST = 4096
USUAL = {"LANG": USUAL_LANGUAGE}
"""The language where no file says anything."""
_LINE = re.compile(r"""\s*(LANG|LC_[A-Z]+)=(["']?)([A-Za-z0-9_.@-]{1,64})\2\s*""")


def variables(root: Path = Path("/")) -> dict[str, str]:
    """LANG and LC_* as the first of the files has them that says anything; else the usual language. For processes that are
    inside already."""

    def read(name: str) -> bytes:
        # A FIFO must not keep the command waiting.
        with open(os.open(root / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            return file.read(_MOST) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else b""

    return _first(read)


def inside(root: Path) -> dict[str, str]:
    """The same for a process of the host: no link in the container leads it out of ``root``, and no device is opened."""
    directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def read(name: str) -> bytes:
        found = syscalls.look_inside(directory, name)
        try:
            if not stat.S_ISREG(os.fstat(found).st_mode):
                return b""
            with open(f"/proc/self/fd/{found}", "rb") as file:
                return file.read(_MOST)
        finally:
            os.close(found)

    try:
        return _first(read)
    finally:
        os.close(directory)


def _first(read: Callable[[str], bytes]) -> dict[str, str]:
    for name in _FILES:
        try:
            lines = read(name).decode(errors="replace").splitlines()
        except OSError:
            continue
        found = {match[1]: match[3] for line in lines if (match := _LINE.fullmatch(line))}
        if found:
            return {**USUAL, **found}
    return dict(USUAL)


def put(config: str, found: Mapping[str, str]) -> str:
    """LXC's configuration of an app container with these variables in place of the usual language."""
    lines = []
    for line in config.split("\n"):
        if line == f"lxc.environment = LANG={USUAL_LANGUAGE}":
            lines += [f"lxc.environment = {key}={value}" for key, value in found.items()]
        elif line.startswith("lxc.init.cmd = /usr/bin/env "):  # the operator's own variables come after this one
            own = "\\_".join(f'"{key}={value}"' for key, value in found.items())
            lines.append(line.replace(f'"LANG={USUAL_LANGUAGE}"', own, 1))
        else:
            lines.append(line)
    return "\n".join(lines)
