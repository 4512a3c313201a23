"""What the fleet can be asked for: the use-cases behind the API."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import cast

from lxcfleet.base import mask
from lxcfleet.config import Config
from lxcfleet.errors import AlreadyExists, Busy, FleetError, InvalidInput, NoCapacity, NotFound, WrongState
from lxcfleet.fleet import capacity, plan, request, store
from lxcfleet.fleet.events import Events
from lxcfleet.fleet.ids import IdPool, installer_line
from lxcfleet.fleet.lifecycle import Lifecycle
from lxcfleet.fleet.network import FleetNetwork
from lxcfleet.fleet.operations import Job, Operation, Operations, now, result_record
from lxcfleet.fleet.registry import Container, Registry
from lxcfleet.host import idfiles, limits, proc, tree
from lxcfleet.host.features import Features
from lxcfleet.model import Action, Init, Network, Result, Selection, Spec, State
from lxcfleet.names import Paths
from lxcfleet.wire import (
    ActionRequest,
    ContainerDetails,
    ContainerRecord,
    CreateRequest,
    DoctorRecord,
    FindingRecord,
    ResultRecord,
    WaitRequest,
)

log = logging.getLogger(__name__)

AT_ONCE = 16
"""Containers that are in the middle of a start at the same moment; the rest can still be cancelled."""
STOPS_AT_ONCE = 256
"""Stopping is waiting, so many may wait at once."""

_DONE = {
    Action.START: "started",
    Action.STOP: "stopped",
    Action.RESTART: "restarted",
    Action.FREEZE: "frozen",
    Action.UNFREEZE: "unfrozen",
    Action.DESTROY: "destroyed",
}
_POLL_SECONDS = 0.05


class Fleet:
    """All containers of this host, and what can be done with them."""

    def __init__(
        self,
        paths: Paths,
        config: Config,
        registry: Registry,
        lifecycle: Lifecycle,
        operations: Operations,
        network: FleetNetwork,
        events: Events,
        features: Callable[[], Features],
    ) -> None:
        self._paths = paths
        self.config = config
        self.registry = registry
        self._lifecycle = lifecycle
        self.operations = operations
        self._network = network
        self.events = events
        self._features = features
        self._ids = self._read_ids()
        self._creating = 0

    def _read_ids(self) -> IdPool:
        names = {container.name for container in self.registry}
        foreign = store.foreign_configs(self._paths, names)
        return IdPool(*limits.id_files(), own=self.registry.ids(), foreign=foreign)

    def reload(self, config: Config) -> None:
        """Take over changed settings, and what changed in /etc/subuid."""
        self.config = config
        self._lifecycle.console_log_kib = config.console_log_kib
        self._network.settings = config.network
        self._ids = self._read_ids()

    # -- reading ---------------------------------------------------------------------------------------------

    async def containers(self, selection: Selection) -> list[ContainerRecord]:
        """The chosen containers; all of them if nothing is chosen."""
        await self.registry.observe()
        if not (selection.patterns or selection.labels):
            selection = Selection(everything=True)
        return [self._record(container) for container in self.registry.choose(selection)]

    def _record(self, container: Container) -> ContainerRecord:
        spec = container.spec
        return {
            "name": container.name,
            "state": container.state,
            "init": spec.init if spec else "",
            "command": list(spec.command) if spec else [],
            "labels": container.labels,
            "profile": spec.profile if spec else None,
            "privileged": spec.privileged if spec else False,
            "network": spec.network if spec else "",
            "created": spec.created if spec else "",
            "pid": container.running.pid if container.running else None,
            "addresses": self._addresses(container),
            "busy": container.busy,
            "problem": str(container.problem) if container.problem else None,
        }

    def _addresses(self, container: Container) -> list[str]:
        spec = container.spec
        if spec is None or container.running is None:
            return []
        return [str(address.ip) for address in (spec.address, spec.address6) if address is not None]

    async def info(self, name: str) -> ContainerDetails:
        """One container in full; raises NotFound."""
        await self.registry.observe()
        container = self._get(name)
        own = self._paths.container(name)
        spec, running = container.spec, container.running
        began = proc.started(running.pid) if running else None
        details = {
            **self._record(container),
            "directory": str(own.directory),
            "delta_bytes": await asyncio.to_thread(tree.disk_usage, own.delta),
            "first_id": spec.first_id if spec else None,
            "memory_bytes": running.payload.memory if running else None,
            "cpu_seconds": running.payload.cpu_seconds if running else None,
            "processes": running.payload.processes if running else None,
            "environment": dict(spec.environment) if spec else {},
            "started": datetime.fromtimestamp(began, UTC).isoformat(timespec="seconds") if began else None,
        }
        return cast(ContainerDetails, details)  # Debian 12's mypy can't see that one record extends the other

    def _get(self, name: str) -> Container:
        if name not in self.registry:
            raise NotFound(f"no container named {name!r}", hint="`lxcfleet list` shows the ones that exist")
        return self.registry[name]

    def log_file(self, name: str, kind: str) -> str:
        """Where a container's log is; raises NotFound, InvalidInput."""
        own = self._paths.container(self._get(name).name)
        files = {"console": own.console_log, "lxc": own.lxc_log}
        if kind not in files:
            raise InvalidInput(f"there is no log {kind!r}", hint="choose console or lxc")
        return str(files[kind])

    # -- creating --------------------------------------------------------------------------------------------

    async def create(self, ask: CreateRequest) -> Operation:
        """Begin to create containers, once it is known that they can exist."""
        self._lifecycle.distrust_mask()
        await self.registry.observe()
        self._creating += 1
        try:
            return await self._create(ask)
        finally:
            self._creating -= 1
            await self.release_unused()

    async def _create(self, ask: CreateRequest) -> Operation:
        checked = None
        while (wanted := self._wanted(ask)) != checked:
            # While we look, another client may take a name.
            await self._check(wanted)
            checked = wanted
        steps = plan.create(ask.start)
        if ask.dry_run:
            lines = [line for name in wanted.new for line in plan.describe(name, steps)]
            lines += [f"{name}: exists" for name in wanted.present]
            return self._dry("create", len(wanted.new) + len(wanted.present), lines)
        jobs = [self._creation(spec, steps) for spec in self._specs(wanted.new, wanted.like)]
        jobs += [self._presence(self.registry[name], start=ask.start) for name in wanted.present]
        return self.operations.begin("create", jobs, AT_ONCE)

    def _wanted(self, ask: CreateRequest) -> request.Wanted:
        wanted = request.resolve(ask, self.config, {container.name for container in self.registry})
        for name in wanted.new:
            if os.path.lexists(store.directory_of(self._paths, name)):
                raise AlreadyExists(
                    f"{name} can't be created",
                    why=f"{store.directory_of(self._paths, name)} exists and is not lxcfleet's",
                    hint="choose another name; `lxc-ls -f` shows the containers of others",
                )
        return wanted

    async def _check(self, wanted: request.Wanted) -> None:
        """Refuse what this host has no room for or can't run."""
        await self._check_room(wanted.new, wanted.like)
        if wanted.like.command and wanted.new:
            await self._check_command(wanted.like)
        if wanted.like.network is Network.BRIDGE and wanted.new:
            await self._check_addresses(len(wanted.new))

    async def _check_room(self, names: Sequence[str], like: Spec) -> None:
        if not names:
            return
        free = None if like.privileged else self._ids.free
        found = capacity.assess(len(names), like.init, limits.read(self._paths), self._features(), free)
        capacity.refuse(found, len(names), like.init)

    async def _check_addresses(self, count: int) -> None:
        subnet = await self._network.choose()
        free = self._network.free or 0
        if count > free:
            raise NoCapacity(
                f"no room for {count} more containers in {subnet.ipv4}",
                why=f"{count} addresses needed, {free} left",
                hint="set network.ipv4 in lxcfleet.yaml to a larger range, or use --network none",
            )

    async def _check_command(self, like: Spec) -> None:
        await self._lifecycle.refresh_mask()

        def runnable(path: str) -> bool:
            try:
                found = os.stat(path)
            except OSError:
                return False
            executable = stat.S_ISREG(found.st_mode) and found.st_mode & 0o111 != 0
            return executable and not mask.hidden(self._paths, path)

        request.find_command(like.command[0], like.environment, runnable)

    def _specs(self, names: Sequence[str], like: Spec) -> list[Spec]:
        """Reserve names and id ranges, all or none."""
        specs: list[Spec] = []
        try:
            for name in names:
                specs.append(replace(like, name=name, first_id=None, created=now()))
                if not like.privileged:
                    specs[-1] = replace(specs[-1], first_id=self._ids.take())
                if like.network is Network.BRIDGE:
                    address, address6 = self._network.take()
                    specs[-1] = replace(specs[-1], address=address, address6=address6)
        except FleetError:
            for spec in specs:
                self._give_back(spec)
            raise
        for spec in specs:
            self.registry.add(Container(spec.name, spec, busy="create"))
        return specs

    def _creation(self, spec: Spec, steps: Sequence[plan.Step]) -> Job:
        container = self.registry[spec.name]

        async def job() -> Result:
            try:
                await self._lifecycle.carry_out(container, steps)
            except BaseException:
                await self._undo_creation(container)
                raise
            finally:
                container.busy = None
            self.events.add("created", container.name)
            return Result(container.name, "created", True)

        def forget() -> None:
            self._forget(container)

        return Job(spec.name, job, forget)

    async def _undo_creation(self, container: Container) -> None:
        """A container whose creation failed leaves nothing: its init never ran, so its delta is empty."""
        exists = self._paths.container(container.name).directory.exists()
        try:
            await self._lifecycle.carry_out(container, plan.undo_create(plan.Situation(exists=exists)))
        except FleetError as error:
            log.warning("%s: what its creation left can't be removed yet: %s", container.name, error)
        self._forget(container)
        await self.release_unused()

    async def release_unused(self) -> None:
        """Give back what only containers need: the bridge without connected ones, the mask without any."""
        if self._creating:  # one that has checked what there is builds on it
            return
        await self._network.release()
        if not len(self.registry):
            await self._lifecycle.release_mask()

    def _forget(self, container: Container) -> None:
        self.registry.forget(container.name)
        if container.spec is not None:
            self._give_back(container.spec)

    def _give_back(self, spec: Spec) -> None:
        if spec.first_id is not None:
            self._ids.give_back(spec.first_id)
        if spec.address is not None:
            self._network.give_back(spec.address)

    def _presence(self, container: Container, *, start: bool) -> Job:
        """A container that only has to be there, and run if ``start``."""

        async def job() -> Result:
            if not start or container.running is not None:
                return Result(container.name, "unchanged", False)
            return await self._act(container, Action.START, 0)

        return Job(container.name, job)

    # -- acting ----------------------------------------------------------------------------------------------

    async def act(self, ask: ActionRequest) -> Operation:
        """Begin an action on the chosen containers."""
        self._lifecycle.distrust_mask()
        await self.registry.observe()
        chosen = self.registry.choose(ask.selection)
        if ask.dry_run:
            plans = [(c.name, plan.plan(ask.action, self.registry.situation(c))) for c in chosen]
            return self._dry(ask.action, len(chosen), [line for p in plans for line in plan.describe(*p)])
        timeout = self.config.stop_timeout if ask.timeout is None else ask.timeout
        if ask.action is Action.DESTROY:
            timeout = 0.0  # its delta goes anyway
        if ask.action is Action.START:
            self._check_start([c for c in chosen if c.running is None])
        jobs = [self._action(container, ask, timeout) for container in chosen]
        at_once = AT_ONCE if ask.action is Action.START else STOPS_AT_ONCE
        return self.operations.begin(ask.action, jobs, at_once)

    def _check_start(self, containers: Sequence[Container]) -> None:
        """Refuse with the numbers before the first of many is started, not at the one where the host is full."""
        for init in Init:
            count = sum(1 for c in containers if c.spec is not None and c.spec.init is init)
            if count:
                found = capacity.assess(count, init, limits.read(self._paths), self._features(), count)
                capacity.refuse(found, count, init)

    def _action(self, container: Container, ask: ActionRequest, timeout: float) -> Job:
        async def job() -> Result:
            if ask.action is Action.DESTROY and container.running is not None and not ask.force:
                raise WrongState(
                    f"{container.name} is running and was not destroyed",
                    hint=f"stop it first, or use --force: lxcfleet destroy --force {container.name}",
                )
            return await self._act(container, ask.action, timeout)

        return Job(container.name, job)

    async def _act(self, container: Container, action: Action, timeout: float) -> Result:
        name = container.name
        if container.busy is not None or name not in self.registry:
            raise Busy(
                f"{name} is busy: {container.busy or 'destroy'}", hint="wait until that is done, then try again"
            )
        container.busy = action
        try:
            steps = plan.plan(action, self.registry.situation(container))
            self._check_state(container, action)
            await self._lifecycle.carry_out(container, steps, timeout)
        finally:
            container.busy = None
        if action is Action.DESTROY:
            self._forget(container)
            await self.release_unused()
        if not steps:
            return Result(name, "unchanged", False)
        self.events.add(_DONE[action], name)
        return Result(name, _DONE[action], True)

    def _check_state(self, container: Container, action: Action) -> None:
        if container.spec is None and action in (Action.START, Action.RESTART):
            raise container.problem or WrongState(f"{container.name} is broken")
        if container.running is None and action in (Action.FREEZE, Action.UNFREEZE):
            raise WrongState(f"{container.name} is not running", hint=f"start it: lxcfleet start {container.name}")

    def _dry(self, action: str, total: int, lines: Sequence[str]) -> Operation:
        operation = Operation(action, total, lines)
        operation.end()
        return self.operations.remember(operation)

    # -- what happens by itself ------------------------------------------------------------------------------

    def exited(self, container: Container) -> None:
        """A container's monitor ended. If it asked for a reboot it gets one, with a fresh mount."""
        if container.busy is not None or container.name not in self.registry:
            return
        self._network.withdraw(container.name)
        self.events.add("stopped", container.name)
        if store.pending(self._paths, container.name) == plan.START:
            self.resume(container, "rebooted from inside")

    def resume(self, container: Container, reason: str) -> None:
        """Go on with what is owed to a container."""
        steps = plan.recover(self.registry.situation(container))
        if not steps:
            return
        self.events.add("resumed", container.name, reason)
        destroy = plan.Step.REMOVE in steps

        async def job() -> Result:
            if container.busy is not None:
                raise Busy(f"{container.name} is busy: {container.busy}")
            container.busy = Action.DESTROY if destroy else Action.START
            try:
                await self._lifecycle.carry_out(container, steps, 0.0)
            finally:
                container.busy = None
            if destroy:
                self._forget(container)
                await self.release_unused()
            return Result(container.name, "resumed", True)

        self.operations.begin("resume", [Job(container.name, job)], 1)

    # -- waiting ---------------------------------------------------------------------------------------------

    async def wait(self, ask: WaitRequest) -> list[ResultRecord]:
        """One result per chosen container, once it is as asked; a failure when the time is up."""
        await self.registry.observe()
        chosen = self.registry.choose(ask.selection)
        results = await asyncio.gather(*(self._wait_for(c, ask.until, ask.timeout) for c in chosen))
        return [result_record(result) for result in results]

    async def _wait_for(self, container: Container, until: str, timeout: float) -> Result:
        check: dict[str, Callable[[Container], Awaitable[str]]] = {
            "running": _state,
            "stopped": _state,
            "healthy": self._lifecycle.health,
        }
        wanted = "stopped" if until == "stopped" else "running"
        last = "unknown"
        try:
            async with asyncio.timeout(timeout):
                while (last := await check[until](container)) != wanted:
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            error = WrongState(
                f"{container.name} is not {until} after {timeout:g} s", why=f"it is {last}",
                hint=f"`lxcfleet logs {container.name}` and `lxcfleet info {container.name}` tell more",
            )  # fmt: skip
            return Result(container.name, "failed", False, error.body())
        return Result(container.name, until, False)

    # -- capacity --------------------------------------------------------------------------------------------

    def doctor(self, count: int, init: Init) -> DoctorRecord:
        """Compare what ``count`` more containers need with what the host has."""
        have, free = limits.read(self._paths), self._ids.free
        found = capacity.assess(count, init, have, self._features(), free)
        room = capacity.fits(init, have, self._features(), free)
        return {"findings": [cast(FindingRecord, finding.to_json()) for finding in found], "fits": room}

    def fix(self, count: int, init: Init) -> DoctorRecord:
        """Raise what can be raised safely, persistently."""
        found = capacity.assess(count, init, limits.read(self._paths), self._features(), self._ids.free)
        values = capacity.fixes(found)
        if values:
            limits.apply(values, self._paths.sysctl_file)
        if any(finding.check == "uid-ranges" and finding.level != "ok" for finding in found):
            self.give_root_ids()
        return self.doctor(count, init)

    def give_root_ids(self) -> None:
        """Give root a range of ids for containers in /etc/subuid and /etc/subgid, unless it has room."""
        foreign = store.foreign_configs(self._paths, {container.name for container in self.registry})
        line = installer_line(*limits.id_files(), foreign=foreign)
        if line is not None:
            _, first_id, count = line.split(":")
            idfiles.add_root_range(int(first_id), int(first_id) + int(count) - 1)
            self._ids = self._read_ids()


async def _state(container: Container) -> str:
    state = container.state
    return "running" if state is State.FROZEN else str(state)
