"""LXC's pre-start hook: mounts a container's layers when plain lxc-start or lxc@.service starts it.

liblxc runs this in the monitor's own mount namespace (lxc.monitor.unshare = 1). So the container gets these mounts, and
they go when the container stops. lxcfleet's own starts mount the layers
beforehand, and leave this hook out.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path
from typing import Any

from lxcfleet.base import devices, layers, obstacles, runtime
from lxcfleet.base.mask import build, mount
from lxcfleet.base.merge import reconcile
from lxcfleet.base.stack import stack_for
from lxcfleet.containers import announcements, moving, store
from lxcfleet.data import mounting, restoring, secrets
from lxcfleet.data.apps import store as apps
from lxcfleet.errors import Broken, FleetError, WrongState
from lxcfleet.host.kernel import syscalls, tree
from lxcfleet.host.lxc import apparmor
from lxcfleet.launcher.children import secrets as children
from lxcfleet.paths import Paths
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.files.settings import Config, NetworkSettings, load
from lxcfleet.spec.reading import ondisk
from lxcfleet.spec.reading.terms import Init

LOOK_SECONDS = 5.0


def _check_bridge(settings: NetworkSettings, name: str) -> None:
    if not os.path.exists(f"/sys/class/net/{settings.bridge}"):
        hint = "it is the host's: see `lxcfleet doctor`" if settings.dhcp else f"the daemon makes it: lxcfleet start {name}"
        raise WrongState(f"{name} can't start: the fleet's bridge {settings.bridge} is not there", hint=hint)


def _fetched(paths: Paths, name: str, spec: Spec, settings: Config) -> list[Any]:
    """The container's secrets; their values are fetched unless they are there. Raises FleetError."""
    declared = secrets.declared(paths, spec.fleet, settings.secrets) if spec.secrets else {}
    found = []
    for use in spec.secrets:
        if use.secret not in declared:
            raise secrets.undeclared(name, use, spec.fleet)
        key, source = declared[use.secret]
        try:
            secrets.fetch(paths, key, source, anew=False)
        except FleetError as error:
            raise secrets.missing(key, error) from error
        found.append(secrets.Item(key, use).to_json())
    return found


def _say(paths: Paths, name: str, message: str, level: str = "ERROR") -> None:
    """Write to the container's log in liblxc's format, as liblxc shows the output of a hook only in its debug log."""
    print(f"lxcfleet: {message}", file=sys.stderr)
    with contextlib.suppress(OSError), paths.container(name).lxc_log.open("a", encoding="utf-8") as log:
        log.write(f"lxc {name} {time.strftime('%Y%m%d%H%M%S')} {level:8} lxcfleet - hook.py - {message}\n")


def main() -> None:
    """Mount the layers of the container that LXC_NAME names, or fail so that it does not start.

    Its arguments are the fleet's directories below /run and /etc.
    """
    os.environ["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin"
    name = os.environ.get("LXC_NAME", "")
    run, etc = (Path(argument) for argument in sys.argv[1:3])
    file = Path(os.environ.get("LXC_CONFIG_FILE", str(Paths().container(name).config)))
    paths = Paths(file.parent.parent, run, etc)
    try:
        spec = store.load(paths, name)
        if spec is None or isinstance(spec, Broken):
            raise spec or Broken(f"{name} is no container of lxcfleet's", why=f"no spec beside {file}")
        if paths.drained.exists():
            raise WrongState(f"{name} can't start: this host is drained", hint="`lxcfleet drain --end` ends that")
        moving.refuse_start(paths, name)
        restoring.finish(paths, name)
        settings = load(paths.config_file, tolerate=lambda _: None)
        if spec.connected:
            _check_bridge(settings.network, name)
        if spec.on_uplink and not os.path.exists(f"/sys/class/net/{spec.uplink.device}"):
            hint = f"the daemon makes it: lxcfleet start {name}" if spec.uplink.vlan else "`ip -br link` shows those it has"
            raise WrongState(f"{name} can't start: the host has no interface {spec.uplink.device}", hint=hint)
        apparmor.leave_profile()
        with contextlib.suppress(OSError):
            announcements.announce(paths, name)
        syscalls.make_slave("/")
        # Without a daemon, the changed mode of a file goes unnoticed. So look at the whole base; several starts share a look.
        based = paths.on(spec.generation)
        looks = not spec.generation and not 0 <= time.time() - build.looked(paths) < LOOK_SECONDS
        mount.refresh(based, force=looks)
        stack = stack_for(paths, name, spec)
        apps.examine_layers(paths, stack)
        if settings.reconcile:
            for note in reconcile.RecordMerger(paths, stack.standing).reconcile(name):
                _say(paths, name, f"not merged: {note}", "WARN")
        layers.mount(paths, stack, name, spec.first_id, spec.disk)
        own = paths.container(name)
        config = ondisk.text(own.config, errors="surrogateescape", most=ondisk.SMALL)
        obstacles.refuse(own, config, obstacles.mounted_at(paths.root_mount), run=spec.init is Init.APP)
        if spec.init is Init.APP:
            runtime.mount(paths.root_mount, stack.bottom.tree(), spec.first_id or 0)
        mounting.mount(paths, name, [str(each) for each in spec.mounted], spec.first_id)
        children.mount(paths, name, spec.first_id, _fetched(paths, name, spec, settings), system=spec.init is Init.SYSTEM)
        devices.mount(paths.devices_mount, spec.devices, spec.first_id or 0)
        tree.keep_copy(paths.container(name).spec, paths.container(name).started)
        apparmor.allow_socket_locks(paths.apparmor)
    except (FleetError, OSError) as error:
        _say(paths, name, str(error).replace("\n", "; "))
        sys.exit(1)

