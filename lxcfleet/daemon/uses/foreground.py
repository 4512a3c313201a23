"""Runs containers in the foreground for `lxcfleet run`: makes them, begins their keepers, and starts them.

From then on the keeper, a process of its own, serves the client; see host.lxc.foreground. What is left for the daemon is to
destroy what was to be gone after its run, and to end what has lost its keeper.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from lxcfleet.api.requests import CreateRequest
from lxcfleet.containers import foreground, lxc_config
from lxcfleet.containers.container import Container
from lxcfleet.containers.desired import Intent
from lxcfleet.containers.foreground import Foreground
from lxcfleet.daemon.uses.service import Fleet
from lxcfleet.errors import Busy, Conflict, FleetError, HostError, NotFound, WrongState, from_body
from lxcfleet.host.process import peer, proc, sessions
from lxcfleet.launcher.client import Launcher
from lxcfleet.launcher.items.containers import KeeperItem
from lxcfleet.launcher.operations import FOREGROUND
from lxcfleet.paths import Paths
from lxcfleet.runtime.tasks import Tasks
from lxcfleet.spec.reading.names import check_name
from lxcfleet.spec.reading.reader import Fields
from lxcfleet.spec.reading.terms import Init
from lxcfleet.spec.results import Result
from lxcfleet.spec.states import Action

log = logging.getLogger(__name__)

ENDING_SECONDS = 30.0
"""The longest time, in seconds, that a run waits for the monitor of the former one to tidy up."""
_RETRY_SECONDS = 0.2
_SIGTERM = 15


@dataclass(frozen=True)
class RunRequest:
    """A request of `lxcfleet run`; see ForegroundRequest."""

    name: str
    create: CreateRequest | None
    note: Foreground


def parse(data: object) -> RunRequest:
    """The request in a message. Raises InvalidInput."""
    fields = Fields(data, "request")
    name = check_name(fields.text("run"))
    said = fields.raw("create")
    fields.skip("create")
    note = Foreground(
        stdin=fields.flag("stdin"), tty=fields.flag("tty"), remove=fields.flag("remove"), detach=fields.flag("detach")
    )
    fields.finish("the request to run a container is not valid")
    create = None
    if said is not None:
        body = said if isinstance(said, dict) else {}
        create = CreateRequest.from_json({**body, "name": name, "count": None, "ensure": True, "start": False})
    return RunRequest(name, create, note)


class Foregrounds:
    """The runs in the foreground."""

    def __init__(self, paths: Paths, fleet: Fleet, launcher: Launcher, tasks: Tasks) -> None:
        self._paths, self._fleet, self._launcher, self._tasks = paths, fleet, launcher, tasks
        self._begun: dict[str, tuple[Foreground, asyncio.Event]] = {}
        """Those that are being begun, by name, with what is set once that is over."""
        self._going: dict[str, asyncio.Task[None]] = {}
        """The tasks that destroy containers whose run is over, by the containers' names."""

    # -- a run -----------------------------------------------------------------------------------------------

    async def begin(self, ask: RunRequest, connection: socket.socket, descriptors: Sequence[int]) -> None:
        """Begin a run. Raises FleetError; what goes wrong once its keeper is there, the keeper tells the client."""
        await self._wait_for_other(ask.name)
        ask, over = replace(ask, note=replace(ask.note, client=_identity(connection))), asyncio.Event()
        self._begun[ask.name] = ask.note, over
        try:
            if (going := self._going.get(ask.name)) is not None:
                await asyncio.wait([going])
            created = await self._present(ask)
            container = self._fleet.registry[ask.name]
            await self._wait_for_former(container)
            try:
                await self._start(container, ask.note, connection, descriptors)
            except FleetError:
                if created and ask.note.remove:
                    self._destroy(container)
                raise
        finally:
            del self._begun[ask.name]
            over.set()

    async def _wait_for_other(self, name: str) -> None:
        """Wait until another run has begun whose client was killed meanwhile: it ends at once. Raises Busy."""
        while (other := self._begun.get(name)) is not None:
            note, over = other
            try:
                if not note.given_up:
                    raise Busy(f"{name} is busy: run", hint="another `lxcfleet run` begins it at the moment")
                await asyncio.wait_for(over.wait(), ENDING_SECONDS)
            except TimeoutError:
                raise _ends(name) from None

    async def _present(self, ask: RunRequest) -> bool:
        """Make the container, unless it exists and is as asked for. Returns whether it was made. Raises FleetError."""
        registry = self._fleet.registry
        await registry.observe()
        if ask.name in registry:
            await self._wait_for_former(registry[ask.name])
        if ask.create is None:
            if ask.name not in registry:
                raise NotFound(
                    f"no container named {ask.name}", hint=f"say what it is to run: lxcfleet run {ask.name} -- CMD…"
                )
            return False
        operation = await self._fleet.create(ask.create)
        async for _ in operation.follow():
            pass
        result = operation.results[0]
        if result.error is not None:
            raise from_body(result.error)
        if not ask.create.update:
            _refuse_other(result)
        return result.status == "created"

    async def _wait_for_former(self, container: Container) -> None:
        """Wait for the end of the former run, if its client was killed, and until it is tidied up."""
        running, note = container.running, container.foreground
        left = (self._paths.foreground(container.name) / foreground.LEFT).exists() or (note is not None and note.given_up)
        if running is not None and (left or proc.has_ended(running.pid, running.monitor)):
            seconds = ENDING_SECONDS + (self._patience(container) if left else 0.0)
            try:
                await asyncio.wait_for(running.gone.wait(), seconds)
            except TimeoutError:
                raise _ends(container.name) from None
        _refuse_running(container)

    async def _start(
        self, container: Container, note: Foreground, connection: socket.socket, descriptors: Sequence[int]
    ) -> None:
        fleet, name = self._fleet, container.name
        await fleet.actions.make_ready(container)
        try:
            owner = 0 if container.wanted is None else container.wanted.first_id or 0
            foreground.make_pipes(self._paths.foreground(name), owner)
        except OSError as error:
            raise HostError.from_os_error(f"{name} can't run in the foreground", error) from error
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            with theirs:
                item = json.dumps(self._item(container, note)).encode()
                await self._launcher.send(FOREGROUND, item, [connection.fileno(), theirs.fileno(), *descriptors])
            try:
                result = await fleet.actions.act(container, Action.START, None, note=note)
                await self._until_it_runs(container, result, ours)
                running = container.running
                said: Mapping[str, Any] = {"pid": -1 if running is None else running.pid}
            except FleetError as error:
                said = {"error": error.body()}
                if note.remove:
                    self._destroy(container)
            try:
                ours.send(json.dumps(said).encode())
            except OSError as error:
                log.info("%s: its keeper has ended: %s", name, error)

    async def _until_it_runs(self, container: Container, result: Result, keeper: socket.socket) -> None:
        """Wait as long as the start is owed, as that waits for something else. If the keeper gives up, it is owed no more."""
        if not self._is_owed(container):
            return
        reason = "; ".join(result.notes) or f"{container.state}"
        keeper.setblocking(False)
        with contextlib.suppress(ConnectionError):
            keeper.send(json.dumps({"waits": f"{container.name}: {reason}"}).encode())
        while self._is_owed(container):
            if _has_ended(keeper):
                await self._fleet.actions.act(container, Action.STOP, 0.0)
                return
            await asyncio.sleep(_RETRY_SECONDS)

    def _is_owed(self, container: Container) -> bool:
        down = container.running is None and self._fleet.registry.knows(container)
        return down and self._fleet.registry.noted(container) is Intent.RUN

    def _patience(self, container: Container) -> float:
        """Seconds from the signal that ends it to a kill."""
        own = None if container.spec is None else container.spec.stop_timeout
        return self._fleet.config.stop_timeout if own is None else own

    def _item(self, container: Container, note: Foreground) -> KeeperItem:
        own, spec = self._paths.container(container.name), container.wanted
        assert spec is not None
        system = spec.init is Init.SYSTEM
        return {
            "name": container.name,
            "system": system,
            "stdin": note.stdin,
            "tty": note.tty,
            "detach": note.detach,
            "stop_signal": _SIGTERM if system else lxc_config.stop_number(spec),
            "stop_timeout": self._patience(container),
            "pipes": str(self._paths.foreground(container.name)),
            "left": str(self._paths.foreground(container.name) / foreground.LEFT),
            "pending": str(own.pending),
            "note": str(own.foreground),
            "log": str(own.console_log),
            "log_bytes": self._fleet.config.console_log_kib << 10,
        }

    # -- what is left to do ------------------------------------------------------------------------------------

    def ended(self, container: Container) -> None:
        """A container has ended: destroy it if it was to be gone then."""
        note = container.foreground
        if note is None or not self._fleet.registry.knows(container):
            return
        try:
            foreground.remove_pipes(self._paths.foreground(container.name))
        except OSError as error:
            log.warning("%s: its pipes can't be removed: %s", container.name, error)
        if note.remove:
            self._destroy(container)

    def _destroy(self, container: Container) -> None:
        name = container.name
        if name in self._going:
            return
        task = self._going[name] = self._tasks.do("run-remove", partial(self._gone, container), subject=name)
        task.add_done_callback(lambda _: self._going.pop(name))

    async def _gone(self, container: Container) -> None:
        """Destroy it once nobody has it in hand, if it still does not run."""
        registry = self._fleet.registry
        while registry.knows(container) and container.running is None:
            try:
                await self._fleet.actions.act(container, Action.DESTROY, 0.0)
            except Busy:
                await asyncio.sleep(_RETRY_SECONDS)
            except FleetError as error:
                log.error("%s is not destroyed, as `lxcfleet run --rm` asked for: %s", container.name, error)
                return

    async def recover(self) -> None:
        """Look after the runs that an earlier daemon began. What runs is known by now, and nothing is resumed yet."""
        kept = await asyncio.to_thread(self._kept)
        for container in self._fleet.registry:
            if container.foreground is None or container.name in kept or container.running is not None or container.unseen:
                continue
            if self._fleet.registry.noted(container) is Intent.RUN:
                self._fleet.reconciler.forget_wish(container)  # nobody waits for it any more
            self.ended(container)

    async def check(self) -> None:
        """End what runs and has lost its keeper, which somebody killed: nobody would read its output, or hear of its end."""
        suspects = [c for c in self._fleet.registry if c.foreground is not None and c.running is not None and c.busy is None]
        if not suspects:
            return
        kept = await asyncio.to_thread(self._kept)
        for container in suspects:
            if container.name in kept or container.name in self._begun or container.running is None or container.busy:
                continue
            log.error("%s: the process that serves its `lxcfleet run` is gone: it is stopped", container.name)
            self._tasks.do("run-orphan", partial(self._stop, container), subject=container.name)

    async def _stop(self, container: Container) -> None:
        try:
            await self._fleet.actions.act(container, Action.STOP, None)
        except FleetError as error:
            log.error("%s is not stopped: %s", container.name, error)

    def _kept(self) -> set[str]:
        return {each.container for each in sessions.running(self._paths.keepers)}


def _has_ended(keeper: socket.socket) -> bool:
    """Whether the keeper has given up, or was killed: then what it had not read is lost, and the kernel says so."""
    try:
        return not keeper.recv(1)
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def _identity(connection: socket.socket) -> str:
    """The client's own mark among all processes of this boot; empty if it has ended, or its pid is not known here."""
    pid = peer.peer(connection).pid
    began = proc.began(pid) if pid else None
    return "" if began is None else f"{pid} {began}"


def _ends(name: str) -> HostError:
    return HostError(
        f"{name} ends at this moment", why="the `lxcfleet run` that ran it was killed, and its command is not over yet",
        hint=f"try again in a while, or end it: lxcfleet stop {name} --timeout 0",
    )  # fmt: skip


def _refuse_running(container: Container) -> None:
    if container.running is not None:
        by = " by another `lxcfleet run`" if container.foreground is not None else ""
        raise WrongState(
            f"{container.name} runs already{by}",
            hint=f"stop it first: lxcfleet stop {container.name}; `lxcfleet exec` runs more commands in it",
        )


def _refuse_other(result: Result) -> None:
    if result.differs:
        told = "; ".join(f"{key}: {has} (asked: {asked})" for key, (has, asked) in result.differs.items())
        raise Conflict(
            f"{result.name} exists, and is not as asked: {told}",
            hint=f"add --update to change it, leave the options out to run it as it is, or: lxcfleet destroy {result.name}",
        )
