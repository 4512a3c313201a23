"""The containers that the daemon knows: their specs, and their runs."""

from __future__ import annotations

import asyncio
import logging
import os
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from lxcfleet.containers import store
from lxcfleet.containers.container import Container, Running
from lxcfleet.containers.desired import Intent, Observed
from lxcfleet.containers.events import Began, EndedInHand, Exited, Gone, StartOwed
from lxcfleet.containers.tidying import Tidying
from lxcfleet.errors import Broken, FleetError, HostError, WrongState
from lxcfleet.host.lxc import monitor
from lxcfleet.host.process import cgroup, proc
from lxcfleet.launcher.client import Launcher
from lxcfleet.launcher.operations import INSPECT
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Bus
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.selection import Selection, natural_key

log = logging.getLogger(__name__)


@dataclass
class ActionInHand:
    """The facts that a user of ``Registry.in_hand`` knows about the action."""

    ends_meant: int = 0
    """How many ends of the container the action brings about if it succeeds."""


def _twins(specs: Iterable[Spec]) -> set[frozenset[str]]:
    """The names of containers that share something which no two may have."""
    holders: dict[object, set[str]] = {}
    for spec in specs:
        for own in (spec.first_id, spec.address and spec.address.ip, spec.address6 and spec.address6.ip, spec.hardware):
            if own is not None:
                holders.setdefault(own, set()).add(spec.name)
    return {frozenset(names) for names in holders.values() if len(names) > 1}


def _place(container: Container) -> tuple[str, int, str]:
    return natural_key(container.name)


class Registry:
    """All containers of this fleet by name."""

    def __init__(self, paths: Paths, launcher: Launcher, bus: Bus) -> None:
        self._paths = paths
        self._launcher = launcher
        self._bus = bus
        self._containers: dict[str, Container] = {}
        self._order: list[Container] = []
        """All in natural order. A change replaces the list, which others may be reading through."""
        self._impostors: set[str] = set()
        self.tidying = Tidying(self._containers)
        """Removes what ended containers left."""

    def __contains__(self, name: str) -> bool:
        return name in self._containers

    def __len__(self) -> int:
        return len(self._containers)

    def __iter__(self) -> Iterator[Container]:
        return iter(self._order)

    def __getitem__(self, name: str) -> Container:
        return self._containers[name]

    def close(self) -> None:
        """The daemon ends: the ends of containers are no longer waited for. The containers run on."""
        loop = asyncio.get_running_loop()
        self.tidying.close()
        for container in self._containers.values():
            if container.running is not None:
                loop.remove_reader(container.running.descriptor)
                os.close(container.running.descriptor)

    def knows(self, container: Container) -> bool:
        """Whether it is still registered: another container may have got its name since."""
        return self._containers.get(container.name) is container

    def add(self, container: Container) -> None:
        """Register a container."""
        self._leave_order(container.name)
        self._containers[container.name] = container
        place = bisect_left(self._order, natural_key(container.name), key=_place)
        self._order = [*self._order[:place], container, *self._order[place:]]

    def forget(self, name: str) -> None:
        """Remove a container from the registry."""
        self._leave_order(name)
        gone = self._containers.pop(name, None)
        if gone is not None:
            self._bus.publish(Gone(gone))

    def _leave_order(self, name: str) -> None:
        if name in self._containers:
            place = bisect_left(self._order, natural_key(name), key=_place)
            self._order = [*self._order[:place], *self._order[place + 1 :]]

    def choose(self, selection: Selection) -> list[Container]:
        """The selected ones in natural order; raises InvalidInput or NotFound."""
        names = selection.choose({name: container.labels for name, container in self._containers.items()})
        return [self._containers[name] for name in names]

    async def chosen(self, selection: Selection) -> list[Container]:
        """The selected ones, after a look at what runs; all of them if nothing is selected. Raises FleetError."""
        await self.observe()
        if not (selection.patterns or selection.labels):
            selection = Selection(everything=True)
        return self.choose(selection)

    def load(self) -> store.Leftovers:
        """Read all specs; returns what a crash left."""
        specs, leftovers = store.load_all(self._paths)
        for name, spec in specs.items():
            if isinstance(spec, Broken):
                log.warning("%s", str(spec).replace("\n", "; "))
                self.add(Container(name, None, spec))
            else:
                self.add(Container(name, spec))
        for names in _twins([spec for spec in specs.values() if isinstance(spec, Spec)]):
            log.warning("%s have the same ids or the same address: only one of them can run", ", ".join(sorted(names)))
            for name in names:
                self[name].twins |= names - {name}
        return leftovers

    def refuse_twin(self, container: Container) -> None:
        """Raise WrongState if a container with the same ids or the same address runs, or is about to: root of one
        could touch the other's processes."""
        there = [self[name] for name in sorted(container.twins) if name in self]
        twin = next((each for each in there if each.running is not None or each.busy is not None), None)
        if twin is not None:
            raise WrongState(
                f"{container.name} can't start",
                why=f"{twin.name} has the same ids or the same address: one's directory is a copy of the other's",
                hint=f"stop or destroy {twin.name}, or keep copies elsewhere than in {self._paths.lxc}",
            )

    def observed(self, container: Container) -> Observed:
        """The observed state of an existing container, for the planner."""
        return Observed(
            exists=True,
            running=container.running is not None,
            frozen=container.running is not None and container.running.payload.frozen,
            noted=self.noted(container),
            spec=container.wanted,
            in_force=container.spec,
        )

    def noted(self, container: Container) -> Intent | None:
        """The intent that is noted for a container and not fulfilled yet; None: there is none."""
        return Intent.RUN if container.owed else store.noted(self._paths, container.name)

    async def observe(self) -> None:
        """Find containers that were started by plain lxc-start or by an earlier daemon."""
        claimed = monitor.claimed(str(self._paths.lxc))
        self._impostors &= claimed
        unknown = [c.name for c in self if c.name in claimed and c.running is None and c.busy is None]
        unknown = [name for name in unknown if self._has_monitor(name)]
        for each in self:
            each.unseen = each.unseen and each.name in unknown
        if not unknown:
            return
        async for answer in self._launcher.each(INSPECT, unknown):
            name, pid = answer["name"], answer["pid"]
            container = self._containers.get(name)
            if container is not None and container.running is None and container.busy is None and pid:
                try:
                    self.take_up(container, pid)
                except HostError as error:  # one of several, and the next look tries it again
                    log.error("%s", str(error).replace("\n", "; "))
        for name in unknown:
            self._note_unseen(name)

    def _note_unseen(self, name: str) -> None:
        """Note whether it runs all the same: liblxc could not tell, as on a disk that gives errors."""
        container = self._containers.get(name)
        if container is None or container.running is not None or container.busy is not None:
            return
        before, container.unseen = container.unseen, self._has_monitor(name)
        if container.unseen and not before:
            log.error("%s: its monitor runs, and its process 1 can't be told", name)

    def take_up(self, container: Container, pid: int) -> None:
        """Take note of a run that this daemon did not start: it may have another spec than the one on disk."""
        started = store.started(self._paths, container.name) if container.spec is not None else None
        if started is not None:
            container.spec, container.desired = started, container.wanted
        if not self.watch(container, pid):
            container.take_effect()
            self.missed(container)

    def _has_monitor(self, name: str) -> bool:
        """Whether a process of root's is its monitor. If another user poses as its monitor, that is logged, once."""
        try:
            uid = monitor.listener(name, str(self._paths.lxc))
        except HostError as error:
            problem = str(error).replace("\n", "; ")
        else:
            if uid in (None, monitor.ROOT):
                return uid == monitor.ROOT
            problem = monitor.posing(name, str(self._paths.lxc), uid)
        if name not in self._impostors:
            self._impostors.add(name)
            log.warning("%s does not count as running: %s", name, problem)
        return False

    def missed(self, container: Container) -> None:
        """Take note of the end of a run that was over before it could be watched."""
        container.ends += 1
        self._bus.publish(Exited(container))

    def watch(self, container: Container, pid: int) -> bool:
        """Take note of a run, and watch for its end; False: it has ended already, and ``missed`` takes note of that.

        Raises HostError if neither can be told, as where no descriptor is left: then its state is not known for a while.
        """
        try:
            # If the monitor ended before it was asked, an impostor may have said that this is process 1.
            found = proc.parent_and_start(pid) if pid > 0 and self._has_monitor(container.name) else None
            parent, began = found or (0, 0.0)
            descriptor = proc.open_pid(parent) if parent else None
        except OSError as error:
            container.unseen = True
            raise HostError.refused(f"{container.name} may run, and can't be watched", error) from error
        if descriptor is None:
            return False
        payload = cgroup.payload(pid, container.name)
        monitors = cgroup.of_monitor(parent, container.name)
        running = Running(pid, parent, descriptor, payload, began, proc.as_time(began), monitors)
        container.running, container.lack = running, None
        container.unseen = container.resting = False
        container.starts += 1
        loop = asyncio.get_running_loop()
        loop.add_reader(descriptor, self._ended, container, running)
        self._bus.publish(Began(container))
        return True

    def _ended(self, container: Container, running: Running) -> None:
        asyncio.get_running_loop().remove_reader(running.descriptor)
        os.close(running.descriptor)
        if container.running is running:
            container.running = None
            container.take_effect()
        self.tidying.ended(container.name, running)
        running.gone.set()
        container.ends += 1
        self._bus.publish(Exited(container, running))

    @contextmanager
    def in_hand(self, container: Container, busy: str) -> Iterator[ActionInHand]:
        """Mark a container as busy, with the word ``busy``. Its end, if nobody meant it, is published when this is over."""
        before = container.ends
        container.busy = busy
        hold = ActionInHand()
        try:
            yield hold
        except BaseException:
            self._release(container, container.ends > before, succeeded=False)
            raise
        self._release(container, container.ends > before + hold.ends_meant, succeeded=True)

    def _release(self, container: Container, ended: bool, *, succeeded: bool) -> None:
        container.busy = None
        if ended and container.running is None:
            # Not at once, so that the event of the action comes first.
            event = EndedInHand(container, succeeded)
            asyncio.get_running_loop().call_soon(self._bus.publish, event)

    def owes_start(self, container: Container) -> bool:
        """Whether a start of it that fails is tried again: it is noted that it is to run, and it does not.

        What `lxcfleet run` runs, its caller starts; what a patch took down, the next patch; and what is broken stays so until
        the next daemon has read its files.
        """
        if not self.knows(container) or container.foreground is not None or container.resting or container.wanted is None:
            return False
        return self.observed(container).start_is_owed

    def start_failed(self, container: Container, error: Exception) -> None:
        """It is not started, or a change of it has failed. Tell so if a start is owed to it still: this is tried again."""
        if self.owes_start(container):
            why = error.message if isinstance(error, FleetError) else f"{type(error).__name__}: {error}"
            reason = error.why if isinstance(error, FleetError) else ""
            self._bus.publish(StartOwed(container, " ".join(": ".join(filter(None, (why, reason))).split())))

    def ids(self) -> Iterable[int]:
        """First ids of the ranges in use."""
        return [c.spec.first_id for c in self if c.spec is not None and c.spec.first_id is not None]
