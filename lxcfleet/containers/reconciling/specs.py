"""The specs of existing containers: how they are written, put in force, and checked against the host."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from lxcfleet.base.stack import stack_of
from lxcfleet.containers import lxc_config, store, weights
from lxcfleet.containers.container import Container
from lxcfleet.containers.events import SpecChanged
from lxcfleet.containers.foreground import Foreground
from lxcfleet.containers.lxc_config import CgroupLimit
from lxcfleet.containers.outside import Network
from lxcfleet.containers.reconciling import changes
from lxcfleet.containers.reconciling.limiting import LimitSetter
from lxcfleet.errors import Broken, FleetError, HostError, Unsupported, from_body
from lxcfleet.host.kernel import quota, tree
from lxcfleet.host.process import descriptors
from lxcfleet.launcher.client import Launcher
from lxcfleet.launcher.items.containers import LimitItem
from lxcfleet.launcher.items.data import MountsItem
from lxcfleet.launcher.operations import CHECK_KEYS, CHECK_MOUNTS
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Bus
from lxcfleet.spec.container import raw_lxc
from lxcfleet.spec.container.io import DELTA
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.reading import ondisk
from lxcfleet.spec.reading.terms import LIMITS

log = logging.getLogger(__name__)

NO_LIMITS = Spec("", pids=0)
"""Every limit as if nobody had asked for one."""


class Specs:
    """Keeps the files that are made from a container's spec, and a run's limits, in line with the spec."""

    def __init__(
        self,
        paths: Paths,
        platform: lxc_config.Platform,
        launcher: Launcher,
        network: Network,
        bus: Bus,
        console_log_kib: int,
    ) -> None:
        self._paths = paths
        self._platform = platform
        self._launcher = launcher
        self._network = network
        self._bus = bus
        self._limits = LimitSetter(launcher)
        self._staged: dict[Path, Spec] = {}
        """Specs whose texts are on disk already beside the files that will get them, by file."""
        self._same: set[Path] = set()
        """Those of these files that have that text already."""
        self._console_log_kib = console_log_kib

    def take_over(self, console_log_kib: int) -> None:
        """Take over a new setting; configurations have it from the next start on."""
        self._console_log_kib = console_log_kib

    def config(self, spec: Spec, note: Foreground | None) -> str:
        """LXC's configuration for this spec. ``note``: how `lxcfleet run` runs the container, if that does."""
        if self._platform.bridge != self._network.bridge:
            self._platform = replace(self._platform, bridge=self._network.bridge)
        return lxc_config.render(spec, self._paths, self._platform, self._console_log_kib, note)

    @property
    def settled(self) -> tuple[object, ...]:
        """The values that configurations have from elsewhere than the spec, and that may be others at the next start."""
        return self._network.bridge, self._console_log_kib

    def confinement(self, spec: Spec) -> dict[str, str]:
        """The means that confine such a container, in words."""
        return lxc_config.confinement(spec, self._platform)

    def check_limits(self, spec: Spec, former: Spec | None = None) -> None:
        """Raise Unsupported if this host can't enforce the requested limits.

        ``former``: the spec that the container has. What of it can't be kept any more, as a disk has gone or there is
        another kernel, limits nothing, and is no reason against another change.
        """
        asked = spec if former is None else _changed(spec, former)
        missing = lxc_config.needed_controllers(asked) - self._platform.controllers
        if missing:
            raise Unsupported(
                "the limits that were asked for can't be kept",
                why=f"this kernel has no cgroup controller {', '.join(sorted(missing))}",
                hint="look for cgroup_disable= in /proc/cmdline, or leave them out",
            )
        why = weights.missing(asked, spec, self._platform.limit_files, cgroup2=self._platform.cgroup2)
        if why:
            raise Unsupported("the limits that were asked for can't be kept", why=why, hint="leave it out")
        named = former.io if former is not None else ()
        if unknown := [name for name in self._missing_disks(asked) if name not in named]:
            raise Unsupported(
                "the limits that were asked for can't be kept", why=f"io: {_no_disk(unknown[0])}",
                hint="`lsblk` shows the disks that there are",
            )  # fmt: skip
        if asked.disk:
            quota.check(self._paths.lxc)

    def on_present_disks(self, spec: Spec) -> tuple[Spec, list[str]]:
        """The spec of another host's container without limits of disks that this host has not, and what to say of it."""
        missing = self._missing_disks(spec)
        if not missing:
            return spec, []
        there = {name: limit for name, limit in spec.io.items() if name not in missing}
        return replace(spec, io=there), [f"its limits of the disk {name} are left out: {_no_disk(name)}" for name in missing]

    def _missing_disks(self, spec: Spec) -> list[str]:
        return [name for name in spec.io if not self._platform.disks(name)]

    async def check_keys(self, spec: Spec) -> tuple[str, ...]:
        """Raise FleetError if LXC or this host's cgroups can't do what the spec's own keys say; gives what has no effect."""
        pairs = [*raw_lxc.of_host(spec.lxc, cgroup2=self._platform.cgroup2)]
        missing = {each for key, _ in pairs if (each := raw_lxc.controller(key))} - self._platform.controllers
        if missing:
            raise Unsupported(
                "the keys for cgroups can't be kept",
                why=f"this kernel has no cgroup controller {', '.join(sorted(missing))}",
                hint="look for cgroup_disable= in /proc/cmdline, or leave them out",
            )
        if any(key.startswith(raw_lxc.PRLIMIT) for key, _ in pairs) and not descriptors.may_raise():
            raise Unsupported(
                "limits of processes can't be set", why="root of this host has no CAP_SYS_RESOURCE, as in a container",
                hint=f"leave the keys {raw_lxc.PRLIMIT}* out",
            )  # fmt: skip
        if pairs:
            answer = await self._launcher.ask(CHECK_KEYS, pairs)
            if answer["error"]:
                raise from_body(answer["error"])
        version = "v2" if self._platform.cgroup2 else "v1"
        without = sorted({*spec.lxc} - {key for key, _ in pairs})
        return tuple(f"{key} has no effect: this host has cgroup {version}" for key in without)

    async def check_mounts(self, spec: Spec, coming: frozenset[str] = frozenset()) -> tuple[str, ...]:
        """Raise FleetError if containers can't have what the spec mounts beside their layers; gives what would be hidden.

        ``coming``: volumes that will be there by then."""
        if not spec.mounted:
            return ()
        lower = stack_of(self._paths, spec.name).to_json()
        item: MountsItem = {
            "volumes": [str(each) for each in spec.mounted], "privileged": spec.privileged, "stack": lower,
            "coming": sorted(coming),
        }  # fmt: skip
        answer = await self._launcher.ask(CHECK_MOUNTS, item)
        if answer["error"]:
            raise from_body(answer["error"])
        return tuple(answer["notes"])

    # -- the steps -------------------------------------------------------------------------------------------

    async def stage(self, wanted: Sequence[tuple[Container, Spec, bool]]) -> None:
        """Have the specs of many containers on disk beside their present ones, so that ``write`` only renames them: to
        force many files to the disk together takes little longer than one. ``bool``: whether its run gets this spec, too.

        Raises HostError, and then none of them is left.
        """
        texts: dict[Path, str] = {}
        staged: dict[Path, Spec] = {}
        durable = []
        for container, spec, in_force in wanted:
            own = self._paths.container(container.name)
            texts[own.spec], texts[own.config] = store.render(spec), self.config(spec, container.foreground)
            if in_force:
                texts[own.started] = texts[own.spec]
            staged.update(dict.fromkeys((own.spec, own.config, *([own.started] if in_force else ())), spec))
            durable.append(own.spec)
        try:
            same = await asyncio.to_thread(tree.stage, texts, durable)
        except OSError as error:
            raise HostError.from_os_error("the specs can't be written", error) from error
        self._staged.update(staged)
        self._same |= same

    async def have_on_disk(self, containers: Iterable[Container]) -> None:
        """Have the names of staged specs on disk. Raises HostError."""
        directories = [self._paths.container(container.name).directory for container in containers]
        try:
            await asyncio.to_thread(tree.sync_all, directories)
        except OSError as error:
            raise HostError.from_os_error("the specs can't be written", error) from error

    def unstage(self, containers: Iterable[Container]) -> None:
        """Remove what was staged and not used."""
        for container in containers:
            for file in self._stageable(container):
                if self._staged.pop(file, None) is not None:
                    self._same.discard(file)
                    tree.unstage(file)

    def forget_staged(self, containers: Iterable[Container]) -> None:
        """Remove what a former daemon staged and did not use, and former specs, as the one on disk counts now."""
        for container in containers:
            for file in self._stageable(container):
                tree.unstage(file)
            with contextlib.suppress(OSError):
                self._paths.container(container.name).former_spec.unlink(missing_ok=True)

    def _stageable(self, container: Container) -> tuple[Path, ...]:
        own = self._paths.container(container.name)
        return own.spec, own.config, own.started

    def _put(self, file: Path, spec: Spec) -> bool:
        """Give the file what was staged beside it; whether anything was, for this spec. Raises OSError."""
        if self._staged.get(file) != spec:
            return False
        if file not in self._same:
            tree.put(file)
        self._same.discard(file)
        del self._staged[file]
        return True

    def write(self, container: Container, spec: Spec) -> None:
        """Write another spec to disk in one step; the former one stays beside it. Raises HostError."""
        own = self._paths.container(container.name)
        try:
            if container.running is not None and container.spec is not None and not own.started.exists():
                # A former version started this run. From now on, the spec on disk is no longer that of the run.
                tree.write(own.started, store.render(container.spec))
            own.former_spec.unlink(missing_ok=True)
            os.link(own.spec, own.former_spec)
            if not self._put(own.spec, spec):
                tree.write(own.spec, store.render(spec), sync=True)
            if not self._put(own.config, spec):
                tree.write(own.config, self.config(spec, container.foreground))
        except OSError as error:
            raise HostError.from_os_error(f"the spec of {container.name} can't be written", error) from error
        container.want(spec)

    def put_back(self, container: Container, former: Spec) -> None:
        """Give the former spec its name back. That needs no free space. If it fails, the spec on disk counts. A loss of power
        may undo it until ``have_put_back``."""
        own = self._paths.container(container.name)
        try:
            # One that an earlier change left, as it could not be removed, is an older one.
            if store.parse(container.name, ondisk.content(own.former_spec, ondisk.SMALL), str(own.former_spec)) == former:
                os.rename(own.former_spec, own.spec)
        except FileNotFoundError:
            pass
        except (OSError, Broken) as error:
            log.error("%s: its former spec can't be put back: %s", container.name, error)
        found = store.load(self._paths, container.name)
        container.want(found if isinstance(found, Spec) else former)
        try:
            tree.write(own.config, self.config(container.wanted or former, container.foreground))
        except OSError as error:
            log.warning("%s is as it was to be, until the next start: %s", own.config, error)

    async def have_put_back(self, containers: Iterable[Container]) -> None:
        """Have on disk what ``put_back`` wrote, or else tell in the log that a loss of power may bring the others back."""
        own = [self._paths.container(container.name) for container in containers]
        try:
            await asyncio.to_thread(tree.sync_all, [path for each in own for path in (each.spec, each.directory)])
        except OSError as error:
            log.error("former specs are put back, and may not be after a loss of power: %s", error)

    async def forget_former(self, containers: Iterable[Container]) -> None:
        """Remove the former specs, as the change is complete."""
        files = [self._paths.container(container.name).former_spec for container in containers]
        await asyncio.to_thread(tree.unlink_all, files)

    async def put_in_force(self, container: Container, spec: Spec) -> None:
        """Give a run another spec, which differs only in what can change live. Raises FleetError."""
        former, wanted = container.spec, container.wanted
        if container.running is None or former is None or wanted is None:
            return  # the container has ended meanwhile; its next run gets the wanted spec
        await self._limit(container, former, spec)
        own = self._paths.container(container.name)
        try:
            if not self._put(own.started, spec):
                text = ondisk.text(own.spec, most=ondisk.SMALL) if spec == wanted else store.render(spec)
                tree.write(own.started, text)
        except (OSError, ValueError) as error:
            # If this fails, the next daemon does it once more, which changes nothing.
            log.warning("%s: the spec that is in force can't be written down: %s", container.name, error)
        if container.running is not None:
            container.spec = spec
            container.want(wanted)
            self._bus.publish(SpecChanged(container, changes.different(former, spec)))

    async def _limit(self, container: Container, former: Spec, spec: Spec) -> None:
        limits = lxc_config.changed_limits(former, spec, self._platform)
        disk = spec.disk if spec.disk != former.disk else None
        if not limits and disk is None:
            return
        try:
            await self._ask(container, limits, disk, spec.memory if lowers_memory(former, spec) else None)
        except BaseException:
            with contextlib.suppress(FleetError):
                again = lxc_config.changed_limits(spec, former, self._platform)
                await self._ask(container, again, None if disk is None else former.disk, None)
            raise

    async def _ask(
        self, container: Container, limits: Sequence[CgroupLimit], disk: int | None, memory: int | None
    ) -> None:
        if container.running is None:
            return
        item: LimitItem = {
            "name": container.name,
            "pid": container.running.pid,
            "limits": [(each.controller, each.file, each.value) for each in limits],
            "disk": disk,
            "memory": memory,
        }
        await self._limits.set(item)


def _no_disk(name: str) -> str:
    if name == DELTA:
        return "the file system of containers is on no disk that the kernel could limit"
    return f"this host has no disk {name}"


def _changed(spec: Spec, former: Spec) -> Spec:
    """The spec without the limits that it has in common with the former one."""
    return replace(spec, **{key: getattr(NO_LIMITS, key) for key in LIMITS if getattr(spec, key) == getattr(former, key)})


def lowers_memory(former: Spec, spec: Spec) -> bool:
    """Whether the new spec gives a container less memory."""
    return spec.memory != 0 and (former.memory == 0 or spec.memory < former.memory)
