"""Moves of containers to other hosts and from them; see spec.moves.

The command line leads a move: it has the keys, and speaks with the other host by ssh. The daemon on each side stops, copies
and starts, and decides by its journal what may be done: so whatever is killed, and whenever, no two of them run.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from lxcfleet import __version__
from lxcfleet.api.archives import LEVEL, MOST_SECONDS
from lxcfleet.api.disk import DiskRequest
from lxcfleet.api.moves import (
    ArrivalRecord,
    ArrivalRequest,
    CheckArrivalRequest,
    Do,
    ForgetMoveRequest,
    MoveContainer,
    MoveMessage,
    MoveRecord,
    OfferRecord,
    OfferRequest,
)
from lxcfleet.containers import moving
from lxcfleet.containers.container import Container
from lxcfleet.containers.desired import Intent
from lxcfleet.containers.events import ActionDone
from lxcfleet.daemon.uses.archive_requests import ExportAsk
from lxcfleet.daemon.uses.archives import Archives, spec_of
from lxcfleet.daemon.uses.service import Fleet
from lxcfleet.data.archives.head import ArchiveHead
from lxcfleet.errors import (
    AlreadyExists,
    Busy,
    Conflict,
    FleetError,
    InvalidInput,
    NoCapacity,
    NotFound,
    Unsupported,
    WrongState,
)
from lxcfleet.paths import Paths
from lxcfleet.runtime.operations import now
from lxcfleet.spec import moves
from lxcfleet.spec.container.fields import stored
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.container.volumes import volumes_of
from lxcfleet.spec.moves import Journal, MoveStep, check_host, check_id
from lxcfleet.spec.reading.names import check_name
from lxcfleet.spec.reading.reader import Fields
from lxcfleet.spec.selection import Selection
from lxcfleet.spec.states import Action, Health
from lxcfleet.units import as_size

log = logging.getLogger(__name__)

_MOST_SAID = 4096
_SPARE = 20
"""One part of so many of the file system's free space is left free."""
_SAID = {"hand": MoveStep.HANDED, "healthy": MoveStep.HEALTHY, "keep": MoveStep.KEPT}
"""The words of the client, each with the step that is noted then."""
_BEFORE = {"hand": MoveStep.SENDING, "healthy": MoveStep.HANDED, "keep": MoveStep.HEALTHY, "end": MoveStep.HEALTHY}
"""The step that has to be noted by then."""


def parse(data: object) -> MoveContainer:
    """The request in a message. Raises InvalidInput."""
    fields = Fields(data, "request")
    found: MoveContainer = {
        "move": check_name(fields.text("move")), "id": check_id(fields.text("id")), "host": fields.text("host"),
        "port": fields.integer("port", 0, 0, 65535), "config": fields.text("config"), "onward": fields.flag("onward"),
    }  # fmt: skip
    fields.finish("the request to move a container is not valid")
    check_host(found["host"])
    return found


class Moves:
    """Sends containers to other hosts, and takes those that come."""

    def __init__(self, paths: Paths, fleet: Fleet, archives: Archives) -> None:
        self._paths = paths
        self._fleet = fleet
        self._archives = archives
        self._driven: set[str] = set()
        """Containers whose move a client leads at this moment."""

    # -- what there is ---------------------------------------------------------------------------------------

    def records(self) -> list[MoveRecord]:
        """The moves that this side knows of."""
        return [found for each in self._fleet.registry if (found := self._record(each.name)) is not None]

    def _record(self, name: str) -> MoveRecord | None:
        journal = moving.load(self._paths, name)
        if journal is None:
            return None
        return {
            "name": name, "id": journal.id, "away": journal.away, "step": str(journal.step), "host": journal.host,
            "since": journal.since, "ran": journal.ran, "port": journal.port, "config": journal.config,
            "authority": moves.has_authority(journal), "driven": name in self._driven,
        }  # fmt: skip

    def recover(self) -> None:
        """After the start of a daemon: what was not handed over when the one before it ended belongs here, as it did."""
        for container in self._fleet.registry:
            journal = moving.load(self._paths, container.name)
            if journal is not None and journal.away and journal.step is MoveStep.SENDING:
                try:
                    self._note_back(container, journal)
                except FleetError as error:
                    log.error("%s", error)

    def forget(self, ask: ForgetMoveRequest) -> MoveRecord:
        """Forget a move, as an operator knows better. Raises NotFound, Busy."""
        with self._driving(self._known(ask.name).name):
            record = self._record(ask.name)
            if record is None:
                raise NotFound(f"{ask.name} does not move", hint="`lxcfleet move --list` shows those that do")
            moving.note(self._paths, ask.name, None)
        self._tell(ask.name, "its move is forgotten: it belongs to this host")
        return record

    def _known(self, name: str) -> Container:
        if name not in self._fleet.registry:
            raise NotFound(f"no container named {name}", hint="`lxcfleet list` shows the ones that exist")
        return self._fleet.registry[name]

    @contextmanager
    def _driving(self, name: str) -> Iterator[None]:
        if name in self._driven:
            raise Busy(f"{name} is moved at this moment", hint="wait for the `lxcfleet move` that is at work on it")
        self._driven.add(name)
        try:
            yield
        finally:
            self._driven.discard(name)

    def _tell(self, name: str, what: str) -> None:
        self._fleet.bus.publish(ActionDone(name, "move", what))

    # -- the side that sends ---------------------------------------------------------------------------------

    async def offer(self, ask: OfferRequest) -> OfferRecord:
        """Whether a container can be moved, and what the other host has to know. Raises FleetError."""
        await self._fleet.registry.observe()
        container = self._known(ask.name)
        spec = self._refuse(container)
        if not ask.keep:
            self._fleet.snapshot_files.refuse(ask.name, moves=True)
        (used,) = await self._fleet.disk.used(DiskRequest(Selection((ask.name,)), top=0))
        notes = []
        if volumes_of(spec.volumes):
            notes.append("the files of its volumes stay here, and it gets the files of the volumes there")
        return {
            "name": ask.name, "protocol": moves.PROTOCOL, "version": __version__, "origin": _origin(self._paths),
            "spec": {key: row.render(getattr(spec, key)) for key, row in stored().items()},
            "bytes": used["disk_bytes"], "ran": self._is_to_run(container), "notes": notes,
        }  # fmt: skip

    def _is_to_run(self, container: Container) -> bool:
        """Whether it runs, or is to run as far as anybody knows: also one that a drain of this host keeps stopped."""
        wanted = container.lack is not None or container.course.wants_run
        return container.running is not None or wanted or self._fleet.draining.has_stopped(container)

    def _refuse(self, container: Container) -> Spec:
        """Refuse what can't be moved. Raises FleetError."""
        name = container.name
        if container.wanted is None:
            raise container.problem or WrongState(f"{name} is broken")
        if name in self._driven:
            raise Busy(f"{name} is moved at this moment", hint="wait for the `lxcfleet move` that is at work on it")
        if container.foreground is not None:
            raise WrongState(f"{name} is not moved", why="`lxcfleet run` runs it here", hint="end that first")
        journal = moving.load(self._paths, name)
        if journal is not None and not journal.away and moves.has_authority(journal):
            raise WrongState(
                f"{name} is not moved on", why=f"{journal.host} has not ended its side of the move to here",
                hint=f"there: lxcfleet move {name} --continue; if that host is lost, here: lxcfleet move {name} --forget",
            )  # fmt: skip
        if journal is not None:
            raise WrongState(
                f"{name} is not moved: {moves.why_not(journal)}",
                hint=f"go on with that move: lxcfleet move {name} --continue, or --abort",
            )
        return container.wanted

    async def drive(self, ask: MoveContainer, connection: socket.socket, descriptors: list[int]) -> None:
        """Send a container, as the client says. Raises FleetError.

        If the client goes away before the container was handed over, it belongs here, and runs again. The third descriptor
        leads to the other host: what is written to it in the moment of the hand-over has the container start there, also if
        the client is gone by then.
        """
        await self._fleet.registry.observe()
        container = self._known(ask["move"])
        if not ask["onward"]:
            self._refuse(container)
        with self._driving(container.name):
            if ask["onward"]:
                journal = moving.load(self._paths, container.name)
                if journal is None or journal.id != ask["id"] or not journal.away:
                    raise NotFound(f"{container.name} is not in that move", hint="see `lxcfleet move --list`")
            else:
                journal = await self._send(ask, container, connection, descriptors)
            try:
                await self._converse(container, journal, connection, descriptors[-1])
            finally:
                left = moving.load(self._paths, container.name) if self._fleet.registry.knows(container) else None
                if left is not None and left.away and left.step is MoveStep.SENDING:
                    await self._take_back(container, left)

    async def _send(
        self, ask: MoveContainer, container: Container, connection: socket.socket, descriptors: list[int]
    ) -> Journal:
        """Stop it, and write it to the archive. Raises FleetError; then it is as it was."""
        journal = Journal(
            ask["id"], True, MoveStep.SENDING, ask["host"], now(), self._is_to_run(container), ask["port"], ask["config"]
        )  # fmt: skip
        moving.note(self._paths, container.name, journal)
        self._tell(container.name, f"is moved to {journal.host}")
        export = ExportAsk(container.name, LEVEL, True, False, MOST_SECONDS)
        try:
            _say(connection, {"step": "stopping"})
            # To its end, also if the client is gone: a start in the middle of a stop would find it running, and it would end.
            await self._fleet.actions.act(container, Action.STOP, None)
            _say(connection, {"step": str(journal.step)})
            async with self._archives.while_there(connection):
                last, _ = await self._archives.pack(export, container, connection, descriptors[1], "move")
        except BaseException:
            await self._take_back(container, journal)
            raise
        finally:
            os.close(descriptors.pop(1))  # whoever reads it hears of its end
        _say(connection, {"step": "sent", "bytes": last["bytes"]})
        return journal

    async def _converse(self, container: Container, journal: Journal, connection: socket.socket, way: int) -> None:
        """Do what the client says, one after the other, until it goes away. ``way``: leads to the other host."""
        loop = asyncio.get_running_loop()
        connection.setblocking(False)
        while data := await loop.sock_recv(connection, _MOST_SAID):
            try:
                said = str(json.loads(data)["do"])
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise InvalidInput("a message makes no sense", why=repr(error)) from error
            message, following = await self._do(container, journal, said)
            if said == "hand":
                _hand_over(way)
            _say(connection, message)
            if following is None:
                return
            journal = following

    async def _do(self, container: Container, journal: Journal, said: str) -> tuple[MoveMessage, Journal | None]:
        """Do one thing; gives the answer, and the journal by then. Raises FleetError."""
        name = container.name
        if said == "back" and journal.step in (MoveStep.SENDING, MoveStep.HANDED, MoveStep.HEALTHY):
            return {"step": "back", "notes": await self._take_back(container, journal)}, None
        if said not in _BEFORE or journal.step not in (_BEFORE[said], _SAID.get(said)):
            raise WrongState(f"{name}: {said!r} can't be done", why=f"its move is {journal.step}")
        if said == "end":
            await self._fleet.actions.act(container, Action.DESTROY, 0.0)
            return {"step": "gone"}, None
        following = replace(journal, step=_SAID[said])
        moving.note(self._paths, name, following)
        self._tell(name, moves.why_not(following))
        return {"step": str(following.step)}, following

    def _note_back(self, container: Container, journal: Journal) -> None:
        """It belongs here again: on disk, so that the next daemon starts it if this one does not. Raises HostError."""
        if journal.ran:
            self._fleet.reconciler.want(container, Intent.RUN)
        moving.note(self._paths, container.name, None)
        self._tell(container.name, f"stays here: its move to {journal.host} was broken off")

    async def _take_back(self, container: Container, journal: Journal) -> list[str]:
        """It belongs here again, and runs if it ran. What keeps it from that is told."""
        self._note_back(container, journal)
        self._fleet.prerequisites.tell()
        if not journal.ran or self._fleet.prerequisites.ending:
            return []
        try:
            await self._fleet.actions.act(container, Action.START, None)
        except FleetError as error:
            return [f"it is not started: {error.message}{': ' if error.why else ''}{error.why}"]
        return []

    # -- the side that takes ---------------------------------------------------------------------------------

    async def check(self, ask: CheckArrivalRequest) -> ArrivalRecord:
        """Whether a container can come here. Raises FleetError."""
        if ask.origin == _origin(self._paths):
            raise InvalidInput(f"{ask.name} is not moved", why="the other host is this one", hint="name another host")
        if ask.protocol > moves.PROTOCOL or _number(__version__) < _number(ask.version):
            raise Unsupported(
                f"{ask.name} is not moved: the other host has lxcfleet {__version__}, and this one {ask.version}",
                why="a host takes containers of its own release and of older ones", hint="upgrade lxcfleet there",
            )  # fmt: skip
        await self._fleet.registry.observe()
        await self._archives.until_settled(ask.name)  # the move before it may have been broken off just now
        answer = ArrivalRecord(protocol=moves.PROTOCOL, version=__version__, left="", notes=[])
        journal = moving.load(self._paths, ask.name)
        if journal is not None and not journal.away and (journal.host, journal.step) == (ask.origin, MoveStep.RECEIVED):
            answer["left"] = journal.id
            return answer
        try:
            self._archives.refuse_taken(ask.name)
        except AlreadyExists as error:
            why = error.why if journal is None else moves.why_not(journal)
            raise AlreadyExists(
                f"the other host has a container named {ask.name}", why=why,
                hint=f"there: lxcfleet destroy {ask.name}, if nobody needs it",
            ) from error  # fmt: skip
        spec = await asyncio.to_thread(spec_of, ArchiveHead(ask.name, ask.version, "", "", ask.spec))
        with self._fleet.room.building():
            try:
                spec, told = await self._archives.fitted(spec)
                answer["notes"] = [*told, *await self._archives.check_host(spec)]
            finally:
                self._fleet.room.reload()
        await self._fleet.room.release_unused()
        await self._refuse_lack(spec)
        _refuse_full(self._paths, ask)
        return answer

    async def _refuse_lack(self, spec: Spec) -> None:
        """Refuse one that could not start here. Raises WrongState."""
        await self._fleet.prerequisites.look(spec)
        lack = self._fleet.prerequisites.lack(spec)
        if lack is not None:
            raise WrongState(
                f"{spec.name} could not start on the other host", why=lack.reason,
                hint="declare its secrets and add its app there; what it depends on moves first",
            )  # fmt: skip

    async def arrival(self, ask: ArrivalRequest) -> MoveRecord | None:
        """Tell or change what becomes of a container that came by a move. Raises FleetError."""
        await self._fleet.registry.observe()
        journal = moving.load(self._paths, ask.name) if ask.name in self._fleet.registry else None
        if ask.do is Do.STATUS:
            return None if journal is None else self._record(ask.name)
        if journal is None or journal.away or journal.id != ask.id:
            if ask.do in (Do.REVOKE, Do.SETTLE):
                return None  # there is nothing of that move any more
            raise NotFound(f"the other host has no {ask.name} of this move", why="somebody removed it there")
        container = self._known(ask.name)
        with self._driving(ask.name):
            match ask.do:
                case Do.GRANT:
                    await self._grant(container, journal)
                case Do.CONFIRM:
                    self._confirm(container, journal)
                case Do.REVOKE:
                    await self._revoke(container, journal)
                case Do.SETTLE if moves.has_authority(journal):
                    moving.note(self._paths, ask.name, None)
            return self._record(ask.name) if self._fleet.registry.knows(container) else None

    async def _grant(self, container: Container, journal: Journal) -> None:
        if journal.step is MoveStep.REVOKED:
            raise WrongState(f"{container.name} was taken back by {journal.host}")
        if journal.step is MoveStep.RECEIVED:
            moving.note(self._paths, container.name, replace(journal, step=MoveStep.GRANTED))
            self._tell(container.name, f"came from {journal.host}")
        self._fleet.prerequisites.tell()
        if not journal.ran or container.running is not None:
            return
        with contextlib.suppress(Busy):  # what was blocked starts by itself
            result = await self._fleet.actions.act(container, Action.START, None)
            if container.lack is not None:
                raise WrongState(f"{container.name} does not start there: {container.lack.reason}", why=result.status)

    def _confirm(self, container: Container, journal: Journal) -> None:
        """Note that it is healthy; the other side may remove its own then. Raises WrongState."""
        if journal.step is MoveStep.HEALTHY:
            return
        if journal.step is not MoveStep.GRANTED:
            raise WrongState(f"{container.name} is not confirmed: {moves.why_not(journal)}")
        health = self._fleet.prober.of(container)
        if journal.ran and health is not Health.HEALTHY:
            why = f"it is {container.state} and {health or 'unknown'}"
            raise WrongState(f"{container.name} is not healthy there", why=why)
        moving.note(self._paths, container.name, replace(journal, step=MoveStep.HEALTHY))

    async def _revoke(self, container: Container, journal: Journal) -> None:
        """Give it up. A copy that never ran goes; one that ran stays, stopped."""
        if journal.step is MoveStep.HEALTHY:
            raise Conflict(
                f"{container.name} runs on the other host, and is healthy there", why="so its move is not taken back",
                hint=f"end it: lxcfleet move {container.name} --continue",
            )  # fmt: skip
        if journal.step is MoveStep.RECEIVED:
            await self._fleet.actions.act(container, Action.DESTROY, 0.0, with_snapshots=True)
            return
        await self._fleet.actions.act(container, Action.STOP, None)
        # Only once it is stopped: what was revoked may run on the other side from now on.
        moving.note(self._paths, container.name, replace(journal, step=MoveStep.REVOKED))
        if container.running is not None:
            await self._fleet.actions.act(container, Action.STOP, None)
        if journal.step is not MoveStep.REVOKED:
            self._tell(container.name, f"{journal.host} has taken it back; its copy here stays, stopped")


def _origin(paths: Paths) -> str:
    """This fleet, by its host's name and a few digits of its own: two hosts may have the same name."""
    try:
        machine = Path("/etc/machine-id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        machine = ""
    return f"{os.uname().nodename[:64]}/{hashlib.sha256(f'{machine}:{paths.lxc}'.encode()).hexdigest()[:8]}"


def _number(version: str) -> tuple[int, ...]:
    """A version as numbers that can be compared."""
    return tuple(map(int, re.findall("[0-9]{1,9}", version)[:4]))


def _refuse_full(paths: Paths, ask: CheckArrivalRequest) -> None:
    found = os.statvfs(paths.lxc)
    free = found.f_bavail * found.f_frsize
    if ask.bytes > free - free // _SPARE:
        raise NoCapacity(
            f"the other host has no room for {ask.name}", why=f"it has {as_size(ask.bytes)}, and {as_size(free)} are free",
            hint=f"make room there, below {paths.lxc}",
        )  # fmt: skip


def _hand_over(way: int) -> None:
    """Tell the other host that it has the container from now on. If the line is cut, the client hears of that from ssh."""
    with contextlib.suppress(OSError):
        os.set_blocking(way, False)  # it is the client's, who could keep the daemon waiting
        os.write(way, moves.HANDED_OVER)


def _say(connection: socket.socket, message: MoveMessage) -> None:
    """Tell the client. If that is gone, the next look for what it says tells so."""
    with contextlib.suppress(OSError):
        connection.send(json.dumps(message).encode())
