"""The processes of containers that the kernel killed because memory ran out, by the kernel's log.

The counter in a container's cgroup says that somebody was killed, and not whom; and it is gone as soon as the container has
ended. Each read of /dev/kmsg gives one message (Documentation/ABI/testing/dev-kmsg, Linux), in which the kernel has spelled
out whatever is no printable ASCII. It can be waited for, so nobody has to look again and again.

The kernel writes such a message piece by piece (pr_cont). If another processor logs something at that moment, the rest comes
as messages of their own, marked as pieces: they are put together again. No two kills are told at once (oom_lock).
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_LONGEST = 8192
_KERNEL = 8
"""Messages with a lower priority field are the kernel's own; programs can write others."""
_MOST = 20_000
"""Messages that are read at once: the kernel's buffer has fewer, but somebody may fill it while it is read."""
PAUSE_SECONDS = 0.25
"""Seconds from a look at the messages to the next: some hosts log many, and each look takes more than what it reads. What
tells of a kill is in the middle of some dozens that come together."""
_KILL = re.compile(
    r"(\d+),[^;]*;oom-kill:constraint=[^,/]*,nodemask=[^/;]*,cpuset=(?:/,|[^/]*,)mems_allowed=[-0-9,]*,"
    r"(?:oom_memcg=|(global_oom),task_memcg=)(/.*)"
)
"""mm/oom_kill.c, dump_oom_victim. A container names its cgroups and its programs, so that text of its own may be in there.
No name of a cgroup has a slash: what stands before the first path is the kernel's."""
_PAYLOAD = re.compile(r"(/(?:[^/,]+/)*?lxc\.payload\.([^/,]+))")
"""The part before a container's own cgroup is the host's."""
_VICTIM = re.compile(r"(.*),task=(.*),pid=(\d+),uid=\d+$")
_TASK = ",task_memcg="
_WHOLE = re.compile(rb",task=.*,pid=\d+,uid=\d+$")
_AFTER = b": Killed process "
"""Words of the message that comes next."""


@dataclass(frozen=True)
class Kill:
    """The kernel killed a process of a container because memory ran out."""

    container: str
    """The name in its cgroup, ``lxc.payload.NAME``. liblxc appends -1, -2, … if a stale cgroup has that name."""
    process: str
    """The name of its program, as the kernel spells it: at most 15 characters, printable."""
    within: str = ""
    """The cgroup of the process, below the container's own; empty: the container's own."""
    limit: str | None = ""
    """The cgroup whose limit was reached, below the container's own; empty: the container's own. None: the memory of the
    host, or of a cgroup that has all containers."""


class KernelLog:
    """The kernel's messages from now on."""

    def __init__(self) -> None:
        self._descriptor: int | None = None
        self._heard: Callable[[], None] | None = None
        self._begun = b""
        """A message about a kill of which not all pieces were read."""
        self._pause: asyncio.TimerHandle | None = None
        """Runs from one call of ``_heard`` until messages are waited for again."""

    def begin(self) -> None:
        """Leave out all messages so far. Without a kernel log that can be read, nothing is found."""
        if self._descriptor is None:
            try:
                self._descriptor = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                os.lseek(self._descriptor, 0, os.SEEK_END)
            except OSError:
                self.close()

    def watch(self, heard: Callable[[], None]) -> None:
        """Call ``heard`` once there are messages to read, from the event loop: at once, or PAUSE_SECONDS after the last
        call."""
        if self._descriptor is not None and self._heard is None:
            self._heard = heard
            self._listen()

    def _listen(self) -> None:
        self._pause = None
        if self._descriptor is not None:
            asyncio.get_running_loop().add_reader(self._descriptor, self._woken)

    def _woken(self) -> None:
        if self._descriptor is None or self._heard is None:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._descriptor)
        self._pause = loop.call_later(PAUSE_SECONDS, self._listen)
        self._heard()

    def kills(self) -> list[Kill]:
        """The processes of containers that were killed since the last call."""
        found: list[Kill] = []
        for _ in range(_MOST):
            if self._descriptor is None:
                break
            try:
                message = os.read(self._descriptor, _LONGEST)
            except BrokenPipeError:  # some messages are gone already; the next read gives the oldest of the others
                continue
            except OSError:  # all were read
                break
            found += self._told(message)
        return found

    def _told(self, message: bytes) -> Iterator[Kill]:
        """The kills that are told once this message was read, too."""
        piece = _piece(message)
        if self._begun and piece is not None:
            self._begun = self._begun[:_LONGEST] + piece
        elif b"oom-kill:" in message or (self._begun and _is_kernels(message) and _AFTER in message):
            yield from _kills(self._begun)  # the rest of it was lost, or the messages between were too many
            self._begun = message.partition(b"\n")[0] if b"oom-kill:" in message else b""
        else:
            return
        if _WHOLE.search(self._begun):
            yield from _kills(self._begun)
            self._begun = b""

    def close(self) -> None:
        """Read no more."""
        if self._descriptor is not None:
            if self._pause is not None:
                self._pause.cancel()
            elif self._heard is not None:
                asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = self._heard = self._pause = None


def _kills(message: bytes) -> Iterator[Kill]:
    kill = killed(message)
    if kill is not None:
        yield kill


def _is_kernels(message: bytes) -> bool:
    level = message.partition(b",")[0]
    return level.isdigit() and int(level) < _KERNEL


def _piece(message: bytes) -> bytes | None:
    """The text of a message that goes on with one before; None: it does not."""
    head, _, text = message.partition(b"\n")[0].partition(b";")
    flags = head.split(b",")[3:4]
    return text if _is_kernels(message) and flags and flags[0].startswith(b"c") else None


def killed(message: bytes) -> Kill | None:
    """The process of a container that the kernel says to have killed; None: this message says something else."""
    if b"oom-kill:" not in message:
        return None
    found = _KILL.match(message.partition(b"\n")[0].decode("ascii", "replace"))
    if found is None or int(found[1]) >= _KERNEL:
        return None
    limited, everywhere = found[3], found[2] is not None
    own = _PAYLOAD.match(limited)
    if own is None and not everywhere:  # the limit of the host, or of a cgroup above containers: its path is the host's
        everywhere = True
        own = _PAYLOAD.match(limited.partition(_TASK)[2])
        limited = limited.partition(_TASK)[2]
    if own is None:
        return None
    victim = _VICTIM.match(limited)
    whole = victim[1] if victim is not None else ""
    limit, _, task = ("", "", whole) if everywhere else whole.rpartition(_TASK)
    below = len(own[1]) + 1
    return Kill(own[2], victim[2] if victim is not None else "", task[below:], None if everywhere else limit[below:])
