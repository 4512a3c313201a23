"""The containers that lxc-stop is about to stop. liblxc does not tell whether somebody asked for the end of a container; but
lxc-stop waits until the container has ended, so it is there when the end is heard, unless this process is late. liblxc's own
hook is not: see containers.lxc_config."""

from __future__ import annotations

import os
from collections.abc import Sequence

from lxcfleet.host.kernel import small
from lxcfleet.host.lxc import strangers

_PROGRAM = b"lxc-stop\n"


def asking() -> list[list[str]]:
    """The arguments of each lxc-stop of root's that runs."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if small.content(f"/proc/{pid}/comm") != _PROGRAM or os.stat(f"/proc/{pid}").st_uid != 0:
                continue
            found.append(os.fsdecode(small.content(f"/proc/{pid}/cmdline")).split("\0")[1:-1])
        except OSError:  # it has just ended
            continue
    return found


def may_ask(monitor: int, address: str) -> bool:
    """Whether an lxc-stop may wait for the end of the container with that monitor, which listens on ``address``: it has a
    connection to it then. To look at one process tells that much sooner than to look at all of them."""
    return strangers.was_called(monitor, address) is not False


def noted(text: bytes, name: str, lxc_path: str) -> bool:
    """The same by what the hook wrote down: a line for each lxc-stop, with NUL between its words."""
    lines = [os.fsdecode(line).split("\0")[1:-1] for line in text.split(b"\n")]
    return any(stops(words, name, lxc_path) for words in lines)


def stops(words: Sequence[str], name: str, lxc_path: str) -> bool:
    """Whether lxc-stop with these arguments stops this container; lxc-stop(1)."""
    values = {"-P": "/var/lib/lxc", "-n": ""}
    rest = list(words)
    plain = []
    while rest:
        word = rest.pop(0)
        for short, long in (("-P", "--lxcpath"), ("-n", "--name")):
            if word in (short, long):
                values[short] = rest.pop(0) if rest else ""
            elif word.startswith(f"{long}="):
                values[short] = word.partition("=")[2]
            elif word.startswith(short):
                values[short] = word[len(short) :]
            else:
                continue
            break
        else:
            plain.append(word)
    return os.path.normpath(values["-P"]) == os.path.normpath(lxc_path) and name in (values["-n"], *plain)
