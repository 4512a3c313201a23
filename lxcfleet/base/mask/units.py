"""The units that systemd finds in a clone: copies of the few allow-listed ones, and those that the delta adds.

All directories that systemd reads units from are opaque in the mask, so no service of the host can start in a clone, not
even one that the host gets later. The units listed here are needed for a boot to multi-user.target, a shutdown and the
installation of packages with services. A clone gets all other units from its own delta.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable

from lxcfleet.base.mask import maintenance, neutral
from lxcfleet.base.services import planner
from lxcfleet.base.services.packages import GENERATORS
from lxcfleet.base.services.planner import BUS
from lxcfleet.base.services.units import VENDOR, Units, kind_of
from lxcfleet.base.tree import Tree, join
from lxcfleet.host.kernel.entries import Copy, Directory, Entry, File, Owner, Symlink

_SYSTEM = VENDOR
_USER = "/usr/lib/systemd/user"

_TARGETS = """
    basic default emergency exit final first-boot-complete getty getty-pre graphical halt local-fs
    local-fs-pre multi-user network network-online network-pre nss-lookup nss-user-lookup paths poweroff
    printer reboot remote-fs remote-fs-pre rescue rpcbind runlevel0 runlevel1 runlevel2 runlevel3 runlevel4
    runlevel5 runlevel6 shutdown sigpwr slices soft-reboot sockets swap sysinit time-set time-sync timers
    umount
"""
_UNITS = """
    -.slice user.slice machine.slice
    systemd-journald.service systemd-journald.socket systemd-journald-dev-log.socket
    systemd-journald@.service systemd-journald@.socket systemd-journald-varlink@.socket syslog.socket
    systemd-tmpfiles-setup.service
    systemd-halt.service systemd-poweroff.service systemd-reboot.service systemd-exit.service
    systemd-soft-reboot.service emergency.service rescue.service
    dbus.socket dbus.service dbus-broker.service
    systemd-logind.service dbus-org.freedesktop.login1.service systemd-logind-varlink.socket
    systemd-hostnamed.service systemd-hostnamed.socket dbus-org.freedesktop.hostname1.service
    systemd-localed.service dbus-org.freedesktop.locale1.service
    systemd-timedated.service dbus-org.freedesktop.timedate1.service
    user@.service user-runtime-dir@.service systemd-user-sessions.service
    getty@.service serial-getty@.service console-getty.service container-getty@.service autovt@.service
"""
_DROP_INS = "user@.service.d user@0.service.d user-.slice.d systemd-localed.service.d"

_WANTS = {
    "sysinit.target.wants": "systemd-journald.service systemd-journal-flush.service systemd-tmpfiles-setup.service",
    # dbus.service itself is started with its first user.
    "sockets.target.wants": "dbus.socket systemd-journald.socket systemd-journald-dev-log.socket",
    "timers.target.wants": " ".join(maintenance.TIMERS),
}
_USER_TARGETS = """
    basic bluetooth default exit graphical-session graphical-session-pre paths printer shutdown smartcard
    sockets sound timers xdg-desktop-autostart
"""
_USER_UNITS = "app.slice background.slice session.slice systemd-exit.service dbus.socket dbus.service"
_BUS_NAMES = "systemd1 login1 hostname1 locale1 timedate1"
_GENERATOR_NAMES = "systemd-sysv-generator"
"""This generator makes units of the scripts that old packages put into /etc/init.d; systemd-sysv-generator(8)."""

_SETTINGS = {
    "/etc/systemd/journald.conf": maintenance.JOURNALD,
    # The limit of tasks is the container's. systemd would give each service 15 % of it.
    "/etc/systemd/system.conf": b"[Manager]\nShowStatus=error\nDefaultTasksMax=infinity\n",
    "/etc/systemd/logind.conf": b"[Login]\nNAutoVTs=0\nReserveVT=0\n",
}
_TELLING = b"""\
# The host has this service. A container runs it that asks for it: lxcfleet create --unit, lxcfleet set NAME units=
[Unit]
Description=The host's: lxcfleet create --unit %n gives it to a container
Requires=not-in-this-container:see-lxcfleet-create---unit-%n
AssertPathExists=!/
[Service]
Type=oneshot
ExecStart=/bin/true
"""
"""In place of a service that a container does not have. `systemctl start` prints no text of a unit's: of all that it can say,
only the name of a required unit that there is not can tell how to get it (bus-wait-for-jobs.c and transaction.c of systemd).
Nothing has failed then: a start that fails would make the container count as unhealthy. An assertion, as a condition would
have it look as if it had been started."""
_ETC_DIRECTORIES = "/etc/systemd/system /etc/systemd/user /etc/systemd/network"


def allowed() -> frozenset[str]:
    """The names of all host units that the built-in list lets into clones."""
    return maintenance.UNITS.union(_UNITS.split(), (f"{name}.target" for name in _TARGETS.split()))


def files(tree: Tree, operator: Iterable[str] = ()) -> dict[str, Entry]:
    """The content of the mask for the opaque directories of units; ``operator`` names further units of the
    host."""
    names = allowed()
    result: dict[str, Entry] = {}
    _copy(tree, _SYSTEM, names, result)
    _copy(tree, _USER, {*_USER_UNITS.split(), *(f"{name}.target" for name in _USER_TARGETS.split())}, result)
    _copy(tree, GENERATORS, set(_GENERATOR_NAMES.split()), result)
    _copy(tree, BUS, {f"org.freedesktop.{name}.service" for name in _BUS_NAMES.split()}, result)
    for directory in _DROP_INS.split():
        _copy_all(tree, join(_SYSTEM, directory), result)
    # The host's default target may be graphical.target, or another one that its administrator chose.
    result[join(_SYSTEM, "default.target")] = Symlink("multi-user.target", "allow-listed")
    for directory, wanted in _WANTS.items():
        for name in wanted.split():
            if join(_SYSTEM, name) in result:
                result[join(join(_SYSTEM, directory), name)] = Symlink(f"../{name}", "allow-listed")
    for path, content in (*_SETTINGS.items(), *maintenance.drop_ins(_SYSTEM, result)):
        result[path] = File(content, Owner(0o644), "lean")
    for path in _ETC_DIRECTORIES.split():
        result[path] = Directory(Owner(0o755), why="for units of the clone's own")
    # Names that the host does not have are passed over, so that no container is kept from starting: `config check` tells.
    result |= planner.plan(tree, operator, names).entries
    return result | _others(tree, {path.rpartition("/")[2] for path in result})


def _others(tree: Tree, given: Collection[str]) -> dict[str, Entry]:
    """Units that have systemctl say, for each service of the host's that is not ``given``, how a container gets it. Only for
    those that somebody would enable: other units may want systemd's own, and would find them in the way."""
    host = Units(tree)
    found: dict[str, Entry] = {}
    for name in host.listed:
        if kind_of(name) == "service" and name not in given and not name.startswith("systemd-"):
            unit = host.find(name)
            if unit is not None and unit.name == name and unit.names("Install", "WantedBy", "RequiredBy", "Also"):
                found[join(_SYSTEM, name)] = File(_TELLING, Owner(0o644), "says how a container gets it")
    return found


def _copy(tree: Tree, directory: str, names: Iterable[str], result: dict[str, Entry]) -> None:
    """Copy these names out of ``directory``; links only if they lead to one of ``names`` or to /dev/null."""
    names = set(names)
    tree.consult(directory)
    for name in sorted(names):
        path = join(directory, name)
        if tree.is_file(path):
            tree.consult(path)
            result[path] = Copy(path, neutral.owner(tree, path), "allow-listed")
        elif tree.is_link(path):
            target = tree.link(path)
            if target == "/dev/null" or os.path.basename(target) in names:
                result[path] = Symlink(target, "allow-listed")


def _copy_all(tree: Tree, directory: str, result: dict[str, Entry]) -> None:
    """Copy the drop-ins in ``directory``."""
    _copy(tree, directory, [name for name in tree.names(directory) if name.endswith(".conf")], result)
