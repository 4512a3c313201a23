"""Existing containers: removing them, and what only liblxc can do."""

from __future__ import annotations

from collections.abc import Callable

from lxcfleet.errors import FleetError, HostError
from lxcfleet.host.kernel import quota, syscalls, tree
from lxcfleet.host.lxc import liblxc
from lxcfleet.host.process import cgroup
from lxcfleet.host.process.cgroup import too_little_memory
from lxcfleet.launcher.children.answer import Reply, answer, say
from lxcfleet.launcher.items.containers import InitPid, LimitItem
from lxcfleet.launcher.operations import INSPECT
from lxcfleet.paths import ContainerPaths, Paths


def remove(names: list[str], reply: Reply, paths: Paths) -> None:
    """Remove what is left of containers, given by the names of their directories."""
    with syscalls.unhurried():
        # All quotas first: another container may get the number long before all files are gone.
        errors = {name: _forget_limit(paths, name) for name in names}
        for name, error in errors.items():
            try:
                tree.remove(paths.lxc / name)
                answer(reply, name, error)
            except (OSError, FleetError) as failure:
                answer(reply, name, failure)


def _forget_limit(paths: Paths, name: str) -> OSError | None:
    try:
        project = quota.own_project(ContainerPaths(paths.lxc / name).delta)
        if project:
            quota.forget(paths.lxc, project)
    except OSError as error:
        return error
    return None


def inspect(names: list[str], reply: Reply, paths: Paths) -> None:
    """Process 1 of each container, as the host numbers it; null for one that does not run."""
    for name in names:
        try:
            pid = liblxc.init_pid(name, str(paths.lxc))
        except FleetError:
            pid = None
        say(reply, INSPECT, InitPid(name=name, pid=pid))


def freeze(names: list[str], reply: Reply, paths: Paths) -> None:
    """Freeze all processes of these containers."""
    _have(liblxc.freeze, names, reply, paths, "frozen")


def unfreeze(names: list[str], reply: Reply, paths: Paths) -> None:
    """Unfreeze the processes of these containers."""
    _have(liblxc.unfreeze, names, reply, paths, "unfrozen")


def check_keys(pairs: list[tuple[str, str]], reply: Reply, paths: Paths) -> None:
    """See whether liblxc takes these keys with these values. Nothing is written."""
    try:
        liblxc.try_keys(pairs, str(paths.lxc))
    except FleetError as error:
        answer(reply, "keys", error)
    else:
        answer(reply, "keys")


def limit(items: list[LimitItem], reply: Reply, paths: Paths) -> None:
    """Set limits of running containers."""
    for item in items:
        _limit(item, reply, paths)


def _limit(item: LimitItem, reply: Reply, paths: Paths) -> None:
    name = item["name"]
    payload = cgroup.payload(item["pid"], name)
    used = payload.memory
    try:
        if item["memory"] is not None and used is not None and used > item["memory"]:
            answer(reply, name, too_little_memory(name, item["memory"], used))
            return
        for controller, file, value in item["limits"]:
            payload.write(controller, file, value)
        if item["disk"] is not None:
            quota.change(paths.container(name).delta, item["disk"])
    except OSError as error:
        answer(reply, name, HostError.from_os_error(f"{name}: a limit can't be changed while it runs", error))
    except FleetError as error:
        answer(reply, name, error)
    else:
        answer(reply, name)


def _have(act: Callable[[str, str], bool], names: list[str], reply: Reply, paths: Paths, what: str) -> None:
    for name in names:
        error: FleetError | None = None
        try:
            if not act(name, str(paths.lxc)):
                why = f"liblxc's reason is in {paths.container(name).lxc_log}"
                error = HostError(f"{name} can't be {what}", why=why)
        except FleetError as refused:
            error = refused
        answer(reply, name, error)
