"""Containers to archives, and containers of archives.

Both are asked for on the attach socket, as the archive's descriptor travels with the request. A child of the launcher reads
and writes; the daemon holds the container still, decides what a new one may be, and passes on how far it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from lxcfleet import __version__
from lxcfleet.api.archives import ArchiveMessage
from lxcfleet.base.stack import stack_for
from lxcfleet.containers import moving, store
from lxcfleet.containers.container import Container
from lxcfleet.containers.copies.stillness import Still
from lxcfleet.containers.events import ActionDone
from lxcfleet.containers.order.dependencies import refuse_circle
from lxcfleet.containers.reconciling.lifecycle import Lifecycle
from lxcfleet.containers.reconciling.specs import Specs
from lxcfleet.containers.requests import services
from lxcfleet.daemon.uses.archive_requests import ExportAsk, ImportAsk
from lxcfleet.daemon.uses.arrivals import VolumeArrivals
from lxcfleet.daemon.uses.service import Fleet
from lxcfleet.data.archives import head as heads
from lxcfleet.data.archives.head import ArchiveHead
from lxcfleet.errors import (
    AlreadyExists,
    Broken,
    Busy,
    Cancelled,
    Denied,
    FleetError,
    InvalidInput,
    NotFound,
    WrongState,
    from_body,
)
from lxcfleet.host.facts import system
from lxcfleet.launcher.client import Conversation, Died, Launcher
from lxcfleet.launcher.items.archives import ArrivalItem, ExportItem, ImportItem, Packed
from lxcfleet.launcher.operations import EXPORT, IMPORT
from lxcfleet.paths import ContainerPaths, Paths
from lxcfleet.runtime.operations import now
from lxcfleet.spec.container import combinations
from lxcfleet.spec.container.fields import stored
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.container.volumes import MountKind, volumes_of
from lxcfleet.spec.reading import strict_yaml
from lxcfleet.spec.reading.terms import NetworkMode
from lxcfleet.spec.states import Action
from lxcfleet.units import some

log = logging.getLogger(__name__)

_Talk = Conversation[Any, Packed]

SETTLE_SECONDS = 20.0
"""The longest time, in seconds, that is waited for the end of what brings or removes a container."""
_LOOK_SECONDS = 0.1
_NAMED = 6
_CHECKED = "restore-check"
"""The name below which an archive is unpacked to be checked; see Paths.new. No container has it then."""


class Archives:
    """Writes containers to archives, and makes containers of archives."""

    def __init__(
        self, paths: Paths, fleet: Fleet, lifecycle: Lifecycle, specs: Specs, launcher: Launcher, coming: VolumeArrivals
    ) -> None:
        self._paths = paths
        self._fleet = fleet
        self._lifecycle = lifecycle
        self._specs = specs
        self._launcher = launcher
        self._arrivals = coming
        self._under_way: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """The daemon ends: break off what is under way, so that no container stays frozen."""
        for task in self._under_way:
            task.cancel()
        if self._under_way:
            await asyncio.wait(self._under_way)

    # -- to an archive ---------------------------------------------------------------------------------------

    async def export(self, ask: ExportAsk, connection: socket.socket, archive: int) -> None:
        """Write a container to an archive. Raises FleetError."""
        registry = self._fleet.registry
        await registry.observe()
        if ask.name not in registry:
            raise NotFound(f"no container named {ask.name}", hint="`lxcfleet list` shows the ones that exist")
        container = registry[ask.name]
        if container.wanted is None:
            raise container.problem or Broken(f"{ask.name} is broken")
        if ask.stopped and container.running is not None:
            raise WrongState(
                f"{ask.name} is not exported, as it runs", why="only stopped containers were asked for",
                hint=f"stop it: lxcfleet stop {ask.name}; or leave out --stopped: then it is frozen meanwhile",
            )  # fmt: skip
        async with self.while_there(connection):
            last, still = await self.pack(ask, container, connection, archive, "export")
        told = "" if still.frozen_ms is None else f"it was frozen for {still.frozen_ms} ms"
        self._fleet.bus.publish(ActionDone(ask.name, "exported", told))
        outcome: ArchiveMessage = {
            "done": True, "name": ask.name, "bytes": last["bytes"], "frozen_ms": still.frozen_ms, "notes": still.notes
        }  # fmt: skip
        _say(connection, outcome)

    async def pack(
        self, ask: ExportAsk, container: Container, connection: socket.socket, archive: int, busy: str
    ) -> tuple[Packed, Still]:
        """Write a container to an archive, and tell the client how far that is. Raises FleetError.

        ``busy``: the word for what is done to the container meanwhile.
        """
        failed = f"{ask.name} is not exported"
        with contextlib.ExitStack() as opened:
            async with self._fleet.stillness.hold(container, busy) as still:
                item = self._export_item(ask, container, runs=still.runs)
                conversation = await self._launcher.converse(EXPORT, item, archive)
                opened.enter_context(contextlib.closing(conversation))
                # Once it is read it goes on, and what was read is still compressed.
                last = await _finish(conversation, connection, failed, until_read=True)
            if not last["done"]:
                last = await _finish(conversation, connection, failed)
        return last, still

    def _export_item(self, ask: ExportAsk, container: Container, *, runs: bool) -> ExportItem:
        spec = container.wanted
        assert spec is not None
        return {
            "name": ask.name,
            "first_id": spec.first_id,
            "stack": stack_for(self._paths, ask.name, spec).to_json(),
            "spec": {key: row.render(getattr(spec, key)) for key, row in stored().items()},
            "version": __version__,
            "created": now(),
            "still": "frozen" if runs else "stopped",
            "volumes": list(volumes_of(spec.volumes)) if ask.volumes else [],
            "level": ask.level,
            "seconds": ask.seconds,
        }

    @asynccontextmanager
    async def while_there(self, connection: socket.socket) -> AsyncIterator[None]:
        """Break the present task off when its client goes away, or when the daemon ends."""
        loop, task = asyncio.get_running_loop(), _present_task()

        def break_off() -> None:
            # A client has nothing more to say, so what is there to hear is its end.
            loop.remove_reader(connection)
            task.cancel()

        self._under_way.add(task)
        connection.setblocking(False)
        loop.add_reader(connection, break_off)
        try:
            yield
        except asyncio.CancelledError:
            raise Cancelled("it was broken off", why="the client is gone, or lxcfleetd ends", hint="try again") from None
        finally:
            loop.remove_reader(connection)
            self._under_way.discard(task)

    # -- from an archive -------------------------------------------------------------------------------------

    async def take(self, ask: ImportAsk, connection: socket.socket, archive: int) -> None:
        """Make a container of an archive, or only check the archive. Raises FleetError."""
        await self._fleet.registry.observe()
        async with self.while_there(connection):
            conversation = await self._launcher.converse(IMPORT, None, archive)
            with contextlib.closing(conversation):
                head = await _head(conversation)
                spec = await asyncio.to_thread(spec_of, head, ask.name)
                if ask.check:
                    outcome = await self._check(head, spec, ask, conversation, connection)
                else:
                    outcome = await self._make(head, spec, ask, conversation, connection)
        if ask.start and not ask.check and not ask.dry_run:
            outcome["started"] = await self._start(spec.name, outcome)
        _say(connection, outcome)

    async def _check(
        self, head: ArchiveHead, spec: Spec, ask: ImportAsk, conversation: _Talk, connection: socket.socket
    ) -> ArchiveMessage:
        coming = [] if ask.volumes is None else self._arrivals.unpacked_to_check(head, spec)
        notes = _notes(head)
        if head.volumes and not coming:
            notes.append("files of volumes are in it, and were not checked: --with-volumes does")
        with self._fleet.room.ids() as take:
            item = _import_item(_CHECKED, head, ask, take(), [self._arrivals.item(each, take) for each in coming])
            await conversation.say(item)
            try:
                last = await _finish(conversation, connection, "the archive is not checked")
            except Died:
                await self._remove(item)
                raise
        return {
            "done": True, "name": spec.name, "bytes": last["bytes"], "entries": last["entries"], "notes": notes,
            "differences": last["differences"], "differing": last["differing"],
        }  # fmt: skip

    async def _make(
        self, head: ArchiveHead, spec: Spec, ask: ImportAsk, conversation: _Talk, connection: socket.socket
    ) -> ArchiveMessage:
        await self.until_settled(spec.name)
        self.refuse_taken(spec.name)
        spec, coming, told = self._arrivals.choose(head, spec, ask.volumes)
        own = frozenset(each.volume.name for each in coming)
        if not ask.trusted:
            _refuse_untrusted(spec, own)
        fleet = self._fleet
        try:
            with fleet.room.building():
                spec, other = await self.fitted(spec)
                notes = [*_notes(head), *told, *other, *await self.check_host(spec, own)]
                self.refuse_taken(spec.name)
                if ask.dry_run:
                    return {"done": True, "name": spec.name, "notes": notes, "started": False, "volumes": sorted(own)}
                (made,) = fleet.room.take([spec.name], spec)
                container = Container(made.name, made, busy="import")
                fleet.registry.add(container)
                try:
                    with fleet.registry.in_hand(container, "import"), self._arrivals.held(coming) as items:
                        last = await self._unpack(head, container, ask, items, conversation, connection)
                        volumes = self._finish_volumes(made.name, notes)
                except BaseException:
                    if not self._lifecycle.remains(container):
                        fleet.room.forget(container)
                    raise
        finally:
            await fleet.room.release_unused()
        fleet.bus.publish(ActionDone(made.name, "imported"))
        return {
            "done": True, "name": made.name, "bytes": last["bytes"], "entries": last["entries"], "notes": notes,
            "started": False, "volumes": volumes,
        }  # fmt: skip

    def _finish_volumes(self, name: str, notes: list[str]) -> list[str]:
        """Give the volumes that came with it their names. What keeps them from that is among the notes, as it is there all
        the same, and waits for them."""
        try:
            return self._arrivals.finish([name])
        except FleetError as error:
            log.error("%s", error)
            notes.append(f"{error.message}: {error.why}; {error.hint}")
            return []

    async def _undo(self, container: Container, item: ImportItem) -> None:
        """Remove what an import made that failed, or was broken off."""
        try:
            await self._lifecycle.unmake(container)
            await self._remove(item)
        except (FleetError, OSError) as error:
            log.warning("%s: the remains of its import can't be removed: %s", container.name, error)

    async def _remove(self, item: ImportItem) -> None:
        """Remove what a child that was killed has left. Raises FleetError."""
        await self._lifecycle.remove([item["beside"]])
        await self._arrivals.remove(item["volumes"])

    async def _unpack(
        self, head: ArchiveHead, container: Container, ask: ImportAsk, coming: Sequence[ArrivalItem], conversation: _Talk,
        connection: socket.socket,
    ) -> Packed:  # fmt: skip
        made = container.wanted
        assert made is not None
        item = _import_item(made.name, head, ask, made.first_id, coming)
        item["files"] = {"config": self._specs.config(made, None), "lxcfleet.yaml": store.render(made)}
        if ask.moved is not None:  # with the container in one step: one that comes by a move is not started as any other
            item["files"][ContainerPaths.MOVE] = ask.moved.render()
        await conversation.say(item)
        try:
            return await _finish(conversation, connection, f"{made.name} is not imported")
        except BaseException as error:
            # It may be just about to be done: a name is given in one step, to what is whole.
            await conversation.end()
            if isinstance(error, Died) and store.load(self._paths, made.name) == made:  # only its answer got lost
                return {
                    "error": None, "done": True, "bytes": 0, "read": True, "entries": 0, "differences": [],
                    "differing": 0,
                }  # fmt: skip
            await self._undo(container, item)
            raise

    async def until_settled(self, name: str) -> None:
        """Wait while a container of this name comes or goes: what an import that was broken off has left is removed, and then
        the name is free. Raises Busy if that takes long."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while (word := self._moving(name)) is not None:
            if time.monotonic() > deadline:
                raise Busy(
                    f"{name} is busy: {word}", why="another import brings it, or what one left is removed",
                    hint="try again once that is over: `lxcfleet info` there shows it",
                )  # fmt: skip
            await asyncio.sleep(_LOOK_SECONDS)

    def _moving(self, name: str) -> str | None:
        """The word for what brings or takes a container at the moment; None: nothing."""
        word = self._fleet.registry[name].busy if name in self._fleet.registry else None
        return word if word in ("import", Action.DESTROY) else None

    def refuse_taken(self, name: str) -> None:
        """Raise AlreadyExists if the name of a new container is taken."""
        there = store.directory_of(self._paths, name)
        if name in self._fleet.registry or os.path.lexists(there):
            raise AlreadyExists(
                f"a container named {name} exists already", why=f"{there} is there" if os.path.lexists(there) else "",
                hint="import it under another name: --name NAME",
            )  # fmt: skip

    async def fitted(self, spec: Spec) -> tuple[Spec, list[str]]:
        """The spec without what it can't have here and can do without: chosen addresses, and limits of disks that are not
        there; and what to say then. Raises FleetError."""
        spec, told = self._specs.on_present_disks(spec)
        try:
            await self._fleet.room.check_static({spec.name: spec})
        except InvalidInput as error:
            spec = replace(spec, static_addresses=())
            told.append(f"it gets another address: {error.message}: {error.why}")
        return spec, told

    async def check_host(self, spec: Spec, coming: frozenset[str] = frozenset()) -> tuple[str, ...]:
        """Refuse what this host has no room for, or can't run. Gives what the operator should know. Raises FleetError.

        ``coming``: volumes that are made with it.
        """
        fleet = self._fleet
        await fleet.room.check_new(1, spec)
        self._specs.check_limits(spec)
        if spec.depends_on:  # what it waits for may be imported after it
            refuse_circle(fleet.dependencies.graph({spec.name: spec}))
        await services.check(spec)
        if spec.network is NetworkMode.BRIDGE:
            await fleet.room.check_addresses(1)
        await fleet.room.check_found(spec, [spec.name])
        return (*await self._specs.check_mounts(spec, coming), *await self._specs.check_keys(spec))

    async def _start(self, name: str, outcome: ArchiveMessage) -> bool:
        """Start it; whether it runs. What keeps it from that is in the outcome, as it is there all the same."""
        notes = outcome["notes"]
        container = self._fleet.registry[name]
        try:
            await self._fleet.actions.act(container, Action.START, 0)
        except FleetError as error:
            notes.append(f"it is not started: {error.message}{': ' if error.why else ''}{error.why}")
            outcome["unstarted"] = error.body()
        if container.running is None and container.lack is not None and moving.load(self._paths, name) is None:
            notes.append(f"it waits: {container.lack.reason}")
        return container.running is not None



def _import_item(
    name: str, head: ArchiveHead, ask: ImportAsk, first_id: int | None, coming: Sequence[ArrivalItem]
) -> ImportItem:
    made = {each["archived"] for each in coming}
    return {
        "name": name, "beside": f"{Paths.NEW_PREFIX}{name}.{secrets.token_hex(4)}", "first_id": first_id, "files": {},
        "data": ask.limit or None, "snapshot": head.snapshot, "volumes": list(coming),
        "passed_over": [each.name for each in head.volumes if each.name not in made], "compare": ask.check,
        "keep": not ask.check,
    }  # fmt: skip


def _present_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


async def _head(conversation: _Talk) -> ArchiveHead:
    """The head of the archive that a child reads. Raises FleetError."""
    reply = await conversation.hear()
    if reply is None:
        raise Died("the archive can't be read", why="the process that read it ended before it was done")
    if reply.body["error"]:
        reply.close()
        raise from_body(reply.body["error"])
    with reply.file() as file:
        text = file.read(heads.MOST_HEAD)
    return await asyncio.to_thread(heads.parse, text)  # it may be made so that this takes seconds


async def _finish(
    conversation: _Talk, connection: socket.socket, failed: str, *, until_read: bool = False
) -> Packed:
    """Pass on how far a child is, until it is done; or, with ``until_read``, has read all. Raises FleetError."""
    while (reply := await conversation.hear()) is not None:
        body = reply.body
        if body["error"]:
            raise from_body(body["error"])
        if body["done"] or (until_read and body["read"]):
            return body
        _say(connection, {"bytes": body["bytes"], "entries": body["entries"]})
    raise Died(failed, why="the process that did it ended before it was done", hint="try again")


def _say(connection: socket.socket, message: ArchiveMessage) -> None:
    """Tell the client. Raises OSError if that is gone: nobody waits for the archive, so all is broken off."""
    with contextlib.suppress(BlockingIOError):  # it does not read: it misses how far it is
        connection.send(json.dumps(message).encode())


def spec_of(head: ArchiveHead, other: str = "") -> Spec:
    """The spec of the new container, without what belongs to one host. ``other``: its name, if not the archive's.

    Raises InvalidInput."""
    lines = [f"{key}: {strict_yaml.inline(value)}" for key, value in {"version": 1, **head.spec}.items()]
    try:
        spec = store.parse(head.name, "\n".join(lines).encode(), heads.HEAD)
    except Broken as error:
        raise InvalidInput("this archive is refused: its spec can't be used", why=error.why) from error
    name = other or head.name
    spec = replace(spec, name=name, generation=0, address=None, address6=None, hardware=None)
    if name != head.name:  # it is another one than the fleet's file has
        spec = replace(spec, fleet=None, group=None)
    combinations.check(spec)
    return spec


def _refuse_untrusted(spec: Spec, coming: frozenset[str]) -> None:
    """Refuse a spec that asks for anything of this host, unless somebody vouches for it. Raises Denied.

    ``coming``: volumes that are made with it, of its own archive.
    """
    host = [f"the directory {each.what}" for each in spec.volumes if each.source is MountKind.HOST]
    asked = [
        *(["root's own rights (privileged)"] if spec.privileged else []),
        *(["the host's network"] if spec.network is NetworkMode.HOST else []),
        *([f"the network of {spec.uplink.words}"] if spec.on_uplink else []),
        *host,
        *(f"the volume {name}" for name in volumes_of(spec.volumes) if name not in coming),
        *(f"the secret {each.secret}" for each in spec.secrets),
        *([f"the app {spec.app}"] if spec.app is not None else []),
        *(f"the device {name}" for name in spec.devices),
        *(f"the port {each.host}" for each in spec.publish),
        *(f"the key {key}" for key in spec.lxc),
    ]
    if asked:
        raise Denied(
            f"{spec.name} is not imported: its spec asks for things of this host",
            why=some(asked, _NAMED),
            hint="if you know who made the archive: --trusted",
        )


def _notes(head: ArchiveHead) -> list[str]:
    """The notes for the operator about the origin of the archive."""
    notes = []
    own = system.release()
    there = (head.system.get("ID"), head.system.get("VERSION_ID"))
    if head.system and own and there != (own.get("ID"), own.get("VERSION_ID")):
        name = head.system.get("PRETTY_NAME") or " ".join(str(each) for each in there)
        notes.append(f"it was exported on {name}, and this host has {own.get('PRETTY_NAME', 'another system')}")
    if head.spec.get("generation"):
        notes.append("it stood on a generation of that host, and stands on this host's root now")
    return notes
