"""LXC's configuration of a container, written from its spec. Pure.

It includes no other file, so that what other packages put into LXC's common.conf.d does not reach our containers (lxcfs's
hook, for instance, sleeps half a second in each stop).
"""

from __future__ import annotations

import re
import shlex
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lxcfleet.containers import foreground, weights
from lxcfleet.containers.foreground import Foreground
from lxcfleet.containers.lxc_hooks import reboot_hook, stop_hook
from lxcfleet.host.process.cgroup import SWAP, SWAP_LEGACY
from lxcfleet.paths import Paths
from lxcfleet.spec.container import raw_lxc, secrets
from lxcfleet.spec.container.devices import DEVICES
from lxcfleet.spec.container.restart import RestartPolicy
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.reading.terms import RANGE_SIZE, USUAL_LANGUAGE, WEIGHT, Init, NetworkMode, StopSignal, Victim

APP_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TINI = "/usr/bin/tini-static"
DENIED_CALLS = Path(__file__).resolve().parents[1] / "base" / "denied-calls"
"""The seccomp profile; it denies what LXC's own denies, and more."""

_DROPPED = "mac_admin mac_override sys_module sys_rawio sys_time"
"""The same as in LXC's common.conf. In a user namespace these capabilities mean nothing outside, and nothing needs them."""


@dataclass(frozen=True)
class Platform:
    """The facts of the host that the configuration depends on."""

    cgroup2: bool
    controllers: frozenset[str]
    """The host's cgroup controllers, by the names of v2 (v1's ``devices`` among them)."""
    apparmor: bool
    seccomp: bool
    bridge: str
    """The fleet's bridge."""
    cgroup: str
    """The parent of the containers' cgroups, as a path below the root; empty: liblxc chooses."""
    hook: Path
    """The program that mounts the layers for plain lxc-start."""
    limit_files: frozenset[str] = frozenset()
    """Those of ``host.process.cgroup.OPTIONAL`` that the cgroups of containers have on this host."""
    disks: Callable[[str], Sequence[str]] = field(default=lambda _: (), compare=False)
    """The numbers of disks, MAJOR:MINOR, by their name in specs: several for a file system on several; none: no such one."""
    ipv6: bool = True
    """Whether the kernel has IPv6. Containers that had IPv6 addresses still start without it."""


def render(
    spec: Spec, paths: Paths, platform: Platform, console_log_kib: int, note: Foreground | None = None
) -> str:
    """The text of the file ``config``. ``note``: how `lxcfleet run` runs the container, if that does."""
    own = paths.container(spec.name)
    piped = foreground.piped(spec, note)
    lines = [
        "# Written by lxcfleet from lxcfleet.yaml beside it, and again at each start. Changes here are lost.",
        f"lxc.uts.name = {spec.name}",
        f"lxc.rootfs.path = dir:{paths.root_mount}",
        "# lxcfleet mounts the layers itself; these two lines are for plain lxc-start and lxc@.service.",
        "lxc.monitor.unshare = 1",
        f"lxc.hook.pre-start = {_mount_hook(paths, platform)}",
        "lxc.hook.version = 1",
        f"lxc.hook.stop = {stop_hook(own.stopping, own.pending if spec.restart.policy is RestartPolicy.NO else None)}",
        *_identity(spec, paths),
        *_confinement(spec, platform),
        *_limits(spec, platform),
        *([f"lxc.cgroup.dir = {platform.cgroup}"] if platform.cgroup else []),
        *(_uplink(spec, paths, platform) if spec.on_uplink else _network(spec, platform)),
        *(_NESTING if spec.nesting and not platform.apparmor else ()),
        *_asked_for(spec, platform),
        *(_devices(spec, paths, platform) if spec.devices else ()),
        "lxc.pty.max = 1024",
        "lxc.tty.max = 0",
        *(_pipes(paths.foreground(spec.name)) if note is not None and spec.init is Init.APP else ()),
        # What comes by the pipes is written to this file by the process that reads them.
        *([] if piped else _console_log(own.console_log, console_log_kib)),
        f"lxc.log.file = {own.lxc_log}",
        "lxc.log.level = ERROR",
        *(_system(spec, own.pending) if spec.init is Init.SYSTEM else _app(spec, note)),
        "",
    ]
    return "\n".join(lines)


def _console_log(file: Path, kib: int) -> list[str]:
    return [f"lxc.console.logfile = {file}", f"lxc.console.size = {kib}KB", "lxc.console.rotate = 1"]


def _pipes(directory: Path) -> list[str]:
    """The pipes of a container that `lxcfleet run` runs. Without them, as after a boot of the host, it starts, too."""
    return [f"lxc.mount.entry = {directory} {foreground.INSIDE[1:]} none bind,ro,nosuid,noexec,create=dir,optional 0 0"]


def _mount_hook(paths: Paths, platform: Platform) -> str:
    return shlex.join([str(platform.hook), str(paths.run), str(paths.etc)])


def _identity(spec: Spec, paths: Paths) -> list[str]:
    if spec.first_id is None:
        return ["# Privileged: root inside is root on the host."]
    return [
        *(f"lxc.idmap = {kind} 0 {spec.first_id} {RANGE_SIZE}" for kind in "ug"),
        f"lxc.namespace.share.user = {paths.user_namespace}",
    ]


def _confinement(spec: Spec, platform: Platform) -> list[str]:
    lines = [f"lxc.cap.drop = {_dropped(spec)}", f"lxc.proc.oom_score_adj = {_OOM_SCORE}"]
    if platform.seccomp:
        lines.append(f"lxc.seccomp.profile = {DENIED_CALLS}")
    if platform.apparmor:
        lines.append("lxc.apparmor.profile = generated")
        rules = [f"lxc.apparmor.raw = {rule}," for rule in _APPARMOR]
        lines += ["lxc.apparmor.allow_nesting = 1"] if spec.nesting else rules
    if spec.no_new_privs:
        lines.append("lxc.no_new_privs = 1")
    return lines


def _dropped(spec: Spec) -> str:
    """The capabilities to drop. An app can't reboot, so none of its stops has to run the hook for that."""
    return _DROPPED if spec.init is Init.SYSTEM else f"{_DROPPED} sys_boot"


_APPARMOR = ("mount", "pivot_root", "ptrace", "signal", "deny mount fstype=devpts")
"""AppArmor's rules besides those that liblxc generates for each container. systemd and its units mount more than these allow.
allow_nesting would let them, too, and would have liblxc mount a whole /proc and /sys besides, as for containers inside.
A further devpts mount could use all terminals that the kernel does not keep for the host: lxc.pty.max limits only the one
that liblxc makes. Containers inside have one each: bwrap --dev and crun mount it."""

_NESTING = (
    "# The kernel lets a user namespace inside mount a new proc or sysfs only beside one that is whole; LXC's nesting.conf.",
    "lxc.mount.entry = proc dev/.lxc/proc proc create=dir,optional 0 0",
    "lxc.mount.entry = sys dev/.lxc/sys sysfs create=dir,optional 0 0",
)
"""In an unprivileged container, root may write only to those files in them that are about its own namespaces. Where the host
has AppArmor, liblxc mounts the same two with allow_nesting, and has the profile keep programs from them."""

_OOM_SCORE = 500
"""If the host runs out of memory, containers are killed before the host's own programs; proc(5). Root inside can raise
this score, but not lower it, as the host's root has set it."""


@dataclass(frozen=True)
class CgroupLimit:
    """The content of one file of a container's cgroup."""

    controller: str
    """The controller's name in v1; in v2 all controllers are in one hierarchy."""
    file: str
    value: str
    limits: bool
    """Whether the value is an actual limit, less than all there is."""


def cgroup_limits(spec: Spec, platform: Platform) -> list[CgroupLimit]:
    """The most that a container may use, as the host's cgroups have it."""
    found = []
    if platform.cgroup2:
        found.append(CgroupLimit("memory", "memory.max", str(spec.memory or "max"), bool(spec.memory)))
        swap = weights.swap(spec)
        if swap is not None or SWAP in platform.limit_files:
            found.append(CgroupLimit("memory", SWAP, "max" if swap is None else str(swap), swap is not None))
        quota = f"{_quota(spec)} {_PERIOD}" if spec.cpus else f"max {_PERIOD}"
        found.append(CgroupLimit("cpu", "cpu.max", quota, bool(spec.cpus)))
        if "cpu" in platform.controllers:
            found.append(CgroupLimit("cpu", "cpu.weight", str(spec.cpu_weight or WEIGHT), spec.cpu_weight is not None))
        if "memory" in platform.controllers:
            found.append(CgroupLimit("memory", "memory.oom.group", str(int(ends_whole(spec))), ends_whole(spec)))
    else:
        found.append(CgroupLimit("memory", "memory.limit_in_bytes", str(spec.memory or -1), bool(spec.memory)))
        swap = weights.swap(spec) if spec.memory else None
        if swap is not None or SWAP_LEGACY in platform.limit_files:
            both = -1 if swap is None else spec.memory + swap
            found.append(CgroupLimit("memory", SWAP_LEGACY, str(both), swap is not None))
        found.append(CgroupLimit("cpu", "cpu.cfs_period_us", str(_PERIOD), bool(spec.cpus)))
        found.append(CgroupLimit("cpu", "cpu.cfs_quota_us", str(_quota(spec) if spec.cpus else -1), bool(spec.cpus)))
        if "cpu" in platform.controllers:
            found.append(CgroupLimit("cpu", "cpu.shares", str(weights.shares(spec.cpu_weight)), spec.cpu_weight is not None))
    for file in weights.io_files(platform.limit_files):
        weight = str(weights.io_weight(file, spec.io_weight))
        found.append(CgroupLimit(file.partition(".")[0], file, weight, spec.io_weight is not None))
    found += _io_limits(spec, platform)
    if "pids" in platform.controllers:
        found.append(CgroupLimit("pids", "pids.max", str(spec.pids or "max"), bool(spec.pids)))
    return found


def _io_limits(spec: Spec, platform: Platform, former: Spec | None = None) -> list[CgroupLimit]:
    limits = weights.io_limits(spec, platform.disks)
    had = () if former is None else weights.io_limits(former, platform.disks)
    lines = weights.io_lines(limits, had, cgroup2=platform.cgroup2)
    return [CgroupLimit(file.partition(".")[0], file, value, limits) for file, value, limits in lines]


def changed_limits(former: Spec, spec: Spec, platform: Platform) -> list[CgroupLimit]:
    """The files to write for a change of a run's limits, in an order in which the kernel takes them: v1 refuses a limit of
    memory above the one of memory and swap, so what rises of these two rises before, and falls after it."""
    before = cgroup_limits(former, platform)
    ours = [*cgroup_limits(spec, platform), *_io_limits(spec, platform, former)]
    found = [each for each in dict.fromkeys(ours) if each not in before and _is_there(each, platform)]
    old = {each.file: int(each.value) for each in before if each.file == SWAP_LEGACY}
    rising = [each for each in found if each.file in old and (each.value == "-1" or -1 < old[each.file] < int(each.value))]
    return rising + [each for each in found if each not in rising]


def _is_there(limit: CgroupLimit, platform: Platform) -> bool:
    """Whether a cgroup has the file. With cgroup v1 the limit of swap space follows that of memory, and must not be in its
    way if the kernel counts no swap space any more."""
    return limit.file not in (SWAP, SWAP_LEGACY) or limit.file in platform.limit_files


def ends_whole(spec: Spec) -> bool:
    """Whether all processes of a container end when its limit of memory is reached, and not one of them."""
    usual = Victim.CONTAINER if spec.init is Init.APP else Victim.PROCESS
    return bool(spec.memory) and (spec.oom or usual) is Victim.CONTAINER


def _limits(spec: Spec, platform: Platform) -> list[str]:
    """Lines for these limits. The host's root owns the files, even if the cgroup is the container's."""
    if platform.cgroup2:
        lines = [f"lxc.cgroup2.devices.{rule}" for rule in _DEVICES]
        lines.append(f"lxc.cgroup2.cgroup.max.descendants = {_CGROUPS}")
    else:
        lines = [f"lxc.cgroup.devices.{rule}" for rule in _DEVICES if "devices" in platform.controllers]
    prefix = "lxc.cgroup2" if platform.cgroup2 else "lxc.cgroup"
    return lines + [f"{prefix}.{each.file} = {each.value}" for each in cgroup_limits(spec, platform) if each.limits]


_CGROUPS = 4096
"""How many cgroups a container may make below its own: each takes kernel memory. cgroup v1 has no such limit."""
_PERIOD = 100_000
"""Microseconds; the kernel's default for v2."""


def _quota(spec: Spec) -> int:
    return max(1000, round(spec.cpus * _PERIOD))  # the kernel accepts no less


def _asked_for(spec: Spec, platform: Platform) -> list[str]:
    """The operator's own keys, which go by an allow-list. Those for another version of cgroups mean nothing here: LXC would
    not start the container, or ignore them."""
    lines = [f"{key} = {value}" for key, value in raw_lxc.of_host(spec.lxc, cgroup2=platform.cgroup2)]
    return ["# As the spec asks.", *lines] if lines else []


def needed_controllers(spec: Spec) -> frozenset[str]:
    """The cgroup controllers without which the spec's limits can't be kept."""
    asked = (("memory", spec.memory), ("cpu", spec.cpus or spec.cpu_weight))
    return frozenset(name for name, value in asked if value)


def confinement(spec: Spec, platform: Platform) -> dict[str, str]:
    """The means that confine a container, in words, as ``info`` shows them."""
    own = "root inside is root outside" if spec.first_id is None else "ids and kernel limits of its own"
    return {
        "users": own,
        "system calls": "some denied (seccomp)" if platform.seccomp else "all: this host has no seccomp",
        "apparmor": "a profile of its own" if platform.apparmor else "none: this kernel has it off",
        "capabilities": f"all within it but {_dropped(spec).replace(' ', ', ')}",
        "new privileges": "none by setuid or file capabilities" if spec.no_new_privs else "by setuid and file capabilities",
        "devices": ", ".join(["null, zero, full, random, urandom, tty, console, ptmx, pts", *spec.devices])
        if platform.cgroup2 or "devices" in platform.controllers or spec.first_id is not None
        else "not limited: this host has no devices cgroup",
        "proc and sys": "whole ones for containers inside" if spec.nesting else "/proc/sys and /sys read-only",
    }


_DEVICES = (
    "deny = a",
    *(f"allow = c {device} rwm" for device in ("1:3", "1:5", "1:7", "1:8", "1:9", "5:0", "5:1", "5:2", "136:*")),
)
"""null, zero, full, random, urandom, tty, console, ptmx, pts/*; the numbers are from the kernel's devices.txt."""


def _devices(spec: Spec, paths: Paths, platform: Platform) -> list[str]:
    """Lines for the host's devices that it is given. It can't make nodes of these numbers itself: no m."""
    lines = []
    for each in (DEVICES[name] for name in spec.devices):
        create = "dir" if each.nodes else "file"
        lines.append(f"lxc.mount.entry = {paths.devices_mount}/{each.path} dev/{each.path} none bind,create={create} 0 0")
        if platform.cgroup2 or "devices" in platform.controllers:
            lines.append(f"lxc.cgroup{'2' if platform.cgroup2 else ''}.devices.allow = {each.rule} rw")
    return lines


def _network(spec: Spec, platform: Platform) -> list[str]:
    if spec.network is NetworkMode.HOST:
        return ["lxc.net.0.type = none"]
    if not spec.connected:
        return ["lxc.net.0.type = empty", "lxc.net.0.flags = up"]  # up: the loopback interface
    lines = [
        "lxc.net.0.type = veth",
        f"lxc.net.0.link = {spec.further_bridge or platform.bridge}",
        f"lxc.net.0.veth.pair = {spec.port}",
        f"lxc.net.0.hwaddr = {spec.mac}",
        "lxc.net.0.name = eth0",
        "lxc.net.0.flags = up",
    ]
    if spec.address is not None:
        # With the broadcast address, which liblxc 5 and 6.0 work out wrongly.
        lines.append(f"lxc.net.0.ipv4.address = {spec.address} {spec.address.network.broadcast_address}")
        lines.append(f"lxc.net.0.ipv4.gateway = {spec.address.network.network_address + 1}")
    if spec.address6 is not None and platform.ipv6:
        lines.append(f"lxc.hook.pre-mount = {_ADDRESS_AT_ONCE}")
        lines.append(f"lxc.net.0.ipv6.address = {spec.address6}")
        lines.append(f"lxc.net.0.ipv6.gateway = {spec.address6.network.network_address + 1}")
    return lines


def _uplink(spec: Spec, paths: Paths, platform: Platform) -> list[str]:
    """Lines for an interface of its own on one of the host's (macvlan). It reaches other containers there unless it is
    isolated, and never the host."""
    lines = [
        "lxc.net.0.type = macvlan",
        f"lxc.net.0.macvlan.mode = {'private' if spec.isolated else 'bridge'}",
        f"lxc.net.0.link = {spec.uplink.device}",
        f"lxc.net.0.hwaddr = {spec.mac}",
        "lxc.net.0.name = eth0",
        "lxc.net.0.flags = up",
    ]
    address = spec.uplink.address
    if address is not None:
        lines.append(f"lxc.net.0.ipv4.address = {address} {address.network.broadcast_address}")
    if spec.uplink.gateway is not None:
        lines.append(f"lxc.net.0.ipv4.gateway = {spec.uplink.gateway}")
    if spec.uplink.address6 is not None and platform.ipv6:
        lines.append(f"lxc.net.0.ipv6.address = {spec.uplink.address6}")
        if spec.uplink.gateway6 is not None:
            lines.append(f"lxc.net.0.ipv6.gateway = {spec.uplink.gateway6}")
    return [*lines, f"lxc.mount.entry = {paths.uplink_names(spec.name)} etc/resolv.conf none bind,ro,optional 0 0"]


_ADDRESS_AT_ONCE = (
    "</proc/net/dev 2>/dev/null; while IFS=' :' read -r n _; do echo 0 >/proc/sys/net/ipv6/conf/$n/accept_dad; done; :"
)
"""Without this, an IPv6 address answers one to two seconds after the start only: the kernel first asks whether somebody else
has it (RFC 4862, 5.4), which can't be here. The hook runs when the interface is in the container and has no address yet;
lxc.sysctl would come too late. liblxc puts ``exec`` before the line, and has a shell run it: without a command, exec only
opens files. The host's directory conf is not listed, as the kernel goes through the entries of all containers for that."""


def _system(spec: Spec, pending: Path) -> list[str]:
    return [
        "# A reboot in the same monitor would keep the old mount: stop, and owe the container a start.",
        f"lxc.hook.post-stop = {reboot_hook(pending)}",
        "lxc.init.cmd = /sbin/init",
        "lxc.mount.auto = proc:mixed sys:mixed cgroup:mixed",
        "lxc.signal.halt = SIGRTMIN+3",
        *([f"lxc.environment = CREDENTIALS_DIRECTORY={secrets.DIRECTORY}"] if spec.secrets else []),
    ]


def _app_sysfs(spec: Spec) -> list[str]:
    if spec.network is not NetworkMode.HOST:
        return ["lxc.mount.auto = proc:mixed sys:mixed cgroup:ro:force"]
    # A sysfs shows a network namespace, and only the owner of that namespace may mount one. So the host's sysfs is shown, in
    # which the container's root has no rights.
    return [
        "lxc.mount.auto = proc:mixed",
        "lxc.mount.entry = /sys sys none rbind,ro 0 0",
        "# And so are its name servers.",
        "lxc.mount.entry = /etc/resolv.conf etc/resolv.conf none bind,ro,optional 0 0",
    ]


def _app(spec: Spec, note: Foreground | None = None) -> list[str]:
    return [
        *(f"lxc.environment = {key}={value}" for key, value in _variables(spec).items()),
        f"lxc.init.cmd = {init_command(spec, note)}",
        *_app_sysfs(spec),
        *([] if any(each.target == "/tmp" for each in spec.volumes) else [_TMP]),
        f"lxc.signal.halt = SIG{stop_signal(spec)}",
    ]


_TMP = "lxc.mount.entry = tmpfs tmp tmpfs rw,nosuid,nodev,mode=1777,size=10% 0 0"


def stop_signal(spec: Spec) -> StopSignal:
    """The signal that asks an app container's command to end."""
    return spec.stop_signal or StopSignal.TERM


def stop_number(spec: Spec) -> int:
    """Its number."""
    return signal.Signals[f"SIG{stop_signal(spec)}"]


def _variables(spec: Spec) -> dict[str, str]:
    """The variables of each app's command; liblxc clears the rest and adds ``container=lxc`` (start.c, do_start)."""
    return {"PATH": APP_PATH, "LANG": USUAL_LANGUAGE, **({} if spec.user else {"HOME": "/root"})}


def init_command(spec: Spec, note: Foreground | None = None) -> str:
    """Tini with the command, and the variables that the operator set, as one line of LXC's configuration.

    liblxc splits this line at blanks and knows neither quotes nor escapes (lxccontainer.c, split_init_cmd). If no word can be
    misread, the words stand as they are. Else the whole command is one word without white space: the argument of env's -S,
    which has escapes for every character (coreutils, env(1), since 8.30); that costs a start 0.7 ms. env replaces itself by
    tini, so the variables, which may be passwords, are not in the command line of process 1, which all users may read.
    tini exits 127 if the command is not found and 126 if it can't be run.
    """
    words = _with_tini(spec, note)
    if not spec.environment and all(_PLAIN.fullmatch(word) for word in words):
        return " ".join(words)
    variables = {**_variables(spec), "container": "lxc", **spec.environment}
    words = ["--", *(f"{key}={value}" for key, value in variables.items()), *words]
    return "/usr/bin/env -i -S" + "\\_".join(map(_quote, words))


def arguments(spec: Spec, note: Foreground | None = None) -> tuple[str, ...]:
    """The words for liblxc's start(), which needs no escapes and so no env; empty: only ``init_command`` will do."""
    return () if spec.init is Init.SYSTEM or spec.environment else tuple(_with_tini(spec, note))


def _with_tini(spec: Spec, note: Foreground | None = None) -> list[str]:
    first = [*_joined(note), TINI, "--"]
    if spec.user is None:
        return [*first, *spec.command]
    own = " ".join(name for name in ("HOME", "USER", "LOGNAME") if name not in spec.environment)
    return [*first, "/bin/sh", "-c", _AS_USER.replace("@NAMES@", own or ":"), spec.user, *spec.command]


def _joined(note: Foreground | None) -> list[str]:
    """The shell that makes the pipes of `lxcfleet run` the streams of process 1, and waits until that can hear how it ends.

    Output is opened for reading, too, so that a write waits, and does not fail, while nobody reads.
    """
    if note is None:
        return []
    # Process 1 leads a session, so the terminal that it opens anew becomes the one that controls that session.
    streams = "<>/proc/self/fd/0 1>&0 2>&0" if note.tty else f"<{'$d/in' if note.stdin else '/dev/null'} 1<>$d/out 2<>$d/err"
    return ["/bin/sh", "-c", f'd={foreground.INSIDE}; [ -p $d/go ] || exec "$@"; : <$d/go; exec "$@" {streams}', "lxcfleet"]


_AS_USER = """\
fail() { echo "lxcfleet: can't run the command as $0: $1" >&2; exit 126; }
user=${0%%:*} gid= home=/ groups=--clear-groups name=$user
if entry=$(/usr/bin/getent passwd "$user"); then
    groups=--init-groups
    IFS=: read -r name _ user gid _ home _ <<END
$entry
END
else
    case $user in *[!0-9]*) fail "this container has no such user";; esac
fi
case $0 in *:*) gid=${0#*:};; esac
[ "$gid" ] || fail "it is not in this container's /etc/passwd; write it as UID:GID"
for own in @NAMES@; do
    case $own in
        HOME) export HOME="$home";;
        USER) export USER="$name";;
        LOGNAME) export LOGNAME="$name";;
    esac
done
exec /usr/bin/setpriv --reuid "$user" --regid "$gid" $groups -- "$@"
"""
"""Becomes the user $0 and then the command "$@". The shell looks names up inside, as each container has users of its own
(lxc.init.uid takes numbers only). tini stays root's, so that it may pass signals on."""


_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./-]+")

_ESCAPES = str.maketrans({
    " ": "\\_", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\f": "\\f", "\v": "\\v", "\\": "\\\\", '"': '\\"', "$": "\\$",
})  # fmt: skip


def _quote(word: str) -> str:
    return f'"{word.translate(_ESCAPES)}"'
