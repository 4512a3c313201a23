"""A daemon over a fake launcher in a process of its own, which is killed at a chosen point of one command.

The points, in the order in which they come: before each step that the reconciler takes, before and after each request to the
launcher that changes anything, after each boot, and before each call by which the daemon makes, writes, renames or removes
anything below its directories. Requests that the launcher works on at that moment are carried out, as its children outlive
the daemon. Containers run on, too: their monitors are processes of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lxcfleet.cli import main as command_line
from lxcfleet.cli.session import Session
from lxcfleet.containers.reconciling.steps import Step
from lxcfleet.daemon import serving
from lxcfleet.host.kernel import syscalls
from lxcfleet.launcher import operations
from lxcfleet.launcher.operations import LauncherOperation
from lxcfleet.paths import Paths

from .fake.launcher import FakeLauncher
from .real_daemon import Daemon

ACTS: tuple[Any, ...] = (
    operations.PREPARE, operations.REMOVE, operations.FREEZE, operations.UNFREEZE, operations.LIMIT, operations.CHECK,
    operations.MAKE_VOLUME, operations.CHANGE_VOLUME, operations.REMOVE_VOLUME, operations.FETCH_SECRET,
    operations.DELIVER_SECRETS,
)  # fmt: skip
"""The requests that change something."""

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate")
_SECONDS = 60.0
_LEFT = (Paths.NEW_PREFIX, Paths.GONE_PREFIX, Paths.PROBE_PREFIX)


class Points:
    """Counts the points from ``arm`` on, and kills this process at the n-th."""

    def __init__(self, directory: Path) -> None:
        self._directory = f"{directory}/"
        self._events = ""
        self._fatal: int | None = None
        self.count = 0
        self.last = ""
        self.launcher: Launcher
        self._own = threading.local()
        sys.addaudithook(self._audit)
        rename_new = syscalls.rename_new

        def with_point(old: Path, new: Path) -> None:
            self.reach(f"before the rename of {old} to {new}")
            rename_new(old, new)

        syscalls.rename_new = with_point  # no audit hook hears of that; it holds as long as this process lives

    def arm(self, fatal: int, paths: Paths) -> None:
        """Kill this process at that point from now on."""
        self._events = str(paths.events)
        self.count, self._fatal = 0, fatal

    def disarm(self) -> None:
        """Let it live."""
        self._fatal = None

    @contextlib.contextmanager
    def others(self) -> Iterator[None]:
        """What this thread does meanwhile is done by another process on a real host."""
        before, self._own.other = getattr(self._own, "other", False), True
        try:
            yield
        finally:
            self._own.other = before

    def reach(self, what: str) -> None:
        """A point; returns unless it is the chosen one."""
        if self._fatal is None or getattr(self._own, "other", False):
            return
        self.count += 1
        if self.count == self._fatal:
            with self.others():
                Path(self._directory).with_name("killed").write_text(what)
                self.launcher.settle()
                os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(_SECONDS)  # the signal comes to any thread

    def step(self, name: str, step: Step) -> None:
        """See Observer."""
        self.reach(f"before {step.name} of {name}")

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._fatal is None or not (event in _CHANGES or (event == "open" and arguments[2] & _WRITES)):
            return
        path = str(arguments[0])
        if (event == "open" and path.endswith(".new")) or (event == "os.mkdir" and os.path.isdir(path)):
            return  # what is written beside a file is of no account until it is renamed, and a directory was there
        if path.startswith(self._directory) and not path.startswith(self._events):
            self.reach(f"before {event} of {path.removeprefix(self._directory)}")


class Launcher(FakeLauncher):
    """A fake launcher that has points, and keeps what a real one keeps on a tmpfs: digests of secrets."""

    def __init__(self, paths: Paths, points: Points) -> None:
        super().__init__(paths)
        self._points, self._busy, self._idle = points, 0, threading.Condition()
        self._digests_file = paths.run / "digests.json"
        if self._digests_file.exists():
            self.model.secrets.update(json.loads(self._digests_file.read_text()))
        points.launcher = self

    @contextlib.contextmanager
    def _at_work(self) -> Iterator[None]:
        self._count(1)
        try:
            with self._points.others():
                yield
        finally:
            self._count(-1)

    def _count(self, more: int) -> None:
        with self._idle:
            self._busy += more
            self._idle.notify_all()

    def settle(self) -> None:
        """Wait until all requests are carried out."""
        time.sleep(0.002)  # for what was just sent to a thread that streams
        with self._idle:
            assert self._idle.wait_for(lambda: not self._busy, _SECONDS)

    def _serve(self, work: Callable[[Any, socket.socket], None], argument: Any, reply: socket.socket) -> None:
        streams = work == self._prepare  # it waits for more all the time
        try:
            with self._points.others():
                super()._serve(work, argument, reply)
        finally:
            self._count(0 if streams else -1)

    def _prepare_one(self, item: Any, reply: socket.socket) -> None:
        with self._at_work():
            super()._prepare_one(item, reply)

    def _fetch_secret(self, item: Any, reply: socket.socket) -> None:
        super()._fetch_secret(item, reply)
        self._digests_file.write_text(json.dumps(self.model.secrets))

    async def send(self, operation: LauncherOperation[Any, Any], argument: bytes, descriptors: Sequence[int]) -> None:
        """Between two points, if it changes anything."""
        if operation not in ACTS:
            await self._send(operation, argument, descriptors)
            return
        self._points.reach(f"before the request {operation}")
        await self._send(operation, argument, descriptors)
        self._points.reach(f"after the request {operation}")

    async def _send(self, operation: LauncherOperation[Any, Any], argument: bytes, descriptors: Sequence[int]) -> None:
        """It counts from now on, and not only from when its thread runs, until ``_serve`` is through with it."""
        counted = int(operation != operations.PREPARE)
        self._count(counted)
        try:
            await super().send(operation, argument, descriptors)
        except BaseException:
            self._count(-counted)
            raise

    async def boot(self, name: str, namespace: int, command: Sequence[str] = ()) -> int | None:
        """With a point after it."""
        pid = await super().boot(name, namespace, command)
        self._points.reach(f"after the boot of {name}")
        return pid

    def _boot(self, name: str) -> int | None:
        with self._at_work():
            return super()._boot(name)

    def close(self) -> None:
        """End the booter; containers run on."""
        if self._booting is not None:
            self._booting[0].close()
            self._booting[1].wait()


class Survivor(Daemon):
    """A daemon that goes on where another one was killed, as the real one does at its start."""

    def __init__(self, directory: Path, points: Points) -> None:
        self._points = points
        super().__init__(directory, [points.step])

    def _new_launcher(self) -> FakeLauncher:
        return Launcher(self.paths, self._points)

    async def _recover(self) -> None:
        self._real = serving.Daemon.__new__(serving.Daemon)
        self._real._paths, self._real._parts = self.paths, self.parts
        await self.parts.secrets.tidy_up()
        await self._real._recover()

    def _further_tasks(self) -> list[asyncio.Task[None]]:
        parts, tasks = self.parts, self.parts.tasks
        return [
            tasks.do("cleanup", lambda: self._real._clean(parts.leftovers.gone)),
            tasks.do("cleanup-volumes", parts.fleet.volumes.clean_up),
            tasks.do("secrets-begin", self._real._secrets),
            tasks.keep("secrets", parts.secrets.run),
        ]

    def run(self, *arguments: str) -> int:
        """Run a command line in this thread."""
        with self._points.others():
            return command_line.run(list(arguments), Session(self.paths))

    def ok(self, *arguments: str) -> None:
        """The same; it must do it all."""
        status = self.run(*arguments)
        assert status == 0, (arguments, status)

    def rest(self) -> None:
        """Wait until nothing goes on by itself any more."""
        end = time.monotonic() + _SECONDS
        while self.call(self._goes_on):
            assert time.monotonic() < end, self.call(self._goes_on)
            time.sleep(0.01)

    def _goes_on(self) -> list[str]:
        parts = self.parts
        told, rollout = parts.secret_changes.telling, parts.rollouts.ledger.active
        found = [f"rollout {rollout.status}" for _ in (1,) if rollout is not None]
        found += ["operations" for _ in (1,) if parts.fleet.operations.running]
        found += ["telling" for _ in (1,) if told is not None and not told.over]
        found += [f"{each.name} owed" for each in parts.registry if parts.secrets.owed(each) or parts.secrets.is_late(each)]
        found += [f"{each.name} {each.busy}" for each in parts.registry if each.busy is not None]
        left = [each for place in (self.paths.lxc, self.paths.volumes) for each in files_in(place)]
        return found + [str(each) for each in left if each.name.startswith(_LEFT)]


def files_in(directory: Path) -> list[Path]:
    """What is in a directory; nothing if that is not there."""
    return [*directory.iterdir()] if directory.is_dir() else []
