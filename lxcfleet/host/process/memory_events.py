"""Tells when something happens to the memory of containers, without looking again and again.

cgroup v2: the kernel notes each change of ``memory.events``, which inotify tells (Documentation/admin-guide/cgroup-v2.rst);
one inotify instance has a watch for each container. The file counts the cgroups below, too. cgroup v1: an eventfd that is
registered in ``cgroup.event_control`` (Documentation/admin-guide/cgroup-v1/memory.rst, "OOM Control").
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
from collections.abc import Callable

from lxcfleet.host.kernel.inotify import FileWatches
from lxcfleet.host.process.cgroup import Payload

_libc = ctypes.CDLL(None, use_errno=True)


class MemoryEvents:
    """Calls ``heard`` with a container's name when the kernel may have killed a process of it for memory.

    It is called from the event loop, and also for other events of its memory: the counter has to be compared.
    """

    def __init__(self, heard: Callable[[str], None]) -> None:
        self._heard = heard
        self._files: FileWatches | None = None
        self._descriptors: dict[str, int] = {}
        """By container: a watch (v2), or an eventfd (v1)."""

    def watch(self, name: str, payload: Payload) -> None:
        """Begin to listen for a container. Raises OSError; FileNotFoundError: it has ended, or the host counts no memory."""
        self.forget(name)
        if "memory" in payload.directories:
            self._descriptors[name] = self._listen(name, payload.directories["memory"])
            return
        file = payload.file("memory", "", "memory.events")
        if file is None:
            return
        if self._files is None:
            self._files = FileWatches()
        self._descriptors[name] = self._files.watch(file, lambda: self._heard(name))

    def forget(self, name: str) -> None:
        """Do not listen any more."""
        descriptor = self._descriptors.pop(name, None)
        if descriptor is None:
            return
        if self._files is not None:
            self._files.forget(descriptor)
        else:
            asyncio.get_running_loop().remove_reader(descriptor)
            os.close(descriptor)

    def close(self) -> None:
        """The daemon ends."""
        for name in list(self._descriptors):
            self.forget(name)
        if self._files is not None:
            self._files.close()
            self._files = None

    def _listen(self, name: str, directory: str) -> int:
        event: int = _libc.eventfd(0, os.O_NONBLOCK | os.O_CLOEXEC)
        if event < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "eventfd")
        try:
            control = os.open(f"{directory}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
            try:
                with open(f"{directory}/cgroup.event_control", "wb", 0) as asked:
                    asked.write(b"%d %d" % (event, control))
            finally:
                os.close(control)
        except OSError:
            os.close(event)
            raise
        asyncio.get_running_loop().add_reader(event, self._woken, name, event)
        return event

    def _woken(self, name: str, event: int) -> None:
        with contextlib.suppress(OSError):
            os.read(event, 8)  # eventfd(2): that sets it to 0
        self._heard(name)
