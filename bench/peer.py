"""The other side of the benchmark: bare LXC containers with ready-made configurations, four lxc-start at a time.

There are four kinds. ``plain`` is as lean as LXC goes: privileged, no include, so no hooks, no seccomp, no rules for
devices; all share the host's own root, and can write to it. ``clone`` is as close to lxcfleet's containers as LXC's own
means come: an overlay over the host's root for each, and Debian's common.conf; privileged, too. ``unprivileged`` has what
lxcfleet's containers have: a uid range each, and an overlay over the base with shifted owners. LXC can't mount that, so it
is mounted before the clock starts. ``system`` boots the host's systemd over the same mask as lxcfleet's, privileged.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from bench import observe
from lxcfleet.capacity.ids import IdPool
from lxcfleet.host.facts import limits
from lxcfleet.host.kernel import syscalls
from lxcfleet.spec.reading.terms import RANGE_SIZE

PeerKind = Literal["plain", "clone", "unprivileged", "system"]

AT_ONCE = 4
PREFIX = "lfbare"

_COMMON = """\
lxc.uts.name = {name}
lxc.net.0.type = empty
lxc.pty.max = 1024
lxc.tty.max = 0
"""
_PLAIN = """\
lxc.rootfs.path = dir:/
lxc.mount.auto = proc:mixed sys:mixed
lxc.init.cmd = /bin/sh {script} {ready}
"""
_CLONE = """\
lxc.include = /usr/share/lxc/config/common.conf
lxc.rootfs.path = overlay:/:{own}/delta
lxc.init.cmd = /bin/sh {script} {ready}
"""
_UNPRIVILEGED = """\
lxc.include = /usr/share/lxc/config/common.conf
lxc.rootfs.path = dir:{own}/root
lxc.init.cmd = /bin/sh {script} {ready}
lxc.idmap = u 0 {first} {size}
lxc.idmap = g 0 {first} {size}
"""
_SYSTEM = """\
lxc.rootfs.path = dir:{own}/root
lxc.mount.auto = proc:mixed sys:mixed cgroup:mixed
lxc.init.cmd = /sbin/init
lxc.signal.halt = SIGRTMIN+3
lxc.cap.drop = mac_admin mac_override sys_module sys_rawio sys_time
"""
_APPARMOR = "lxc.apparmor.profile = generated\nlxc.apparmor.allow_nesting = 1\n"
_OVERLAY = "index=off,metacopy=off,redirect_dir=off,xino=off"


class Bare:
    """``count`` containers below ``directory``, which must be on the host's root file system."""

    def __init__(self, directory: Path, count: int) -> None:
        self._directory = directory
        self.names = [f"{PREFIX}{number}" for number in range(1, count + 1)]
        self._ready = directory / "ready"
        self._files: dict[str, Path] = {}
        self._mounts: _Mounts | None = None

    def make(self, kind: PeerKind, mask: Path | None = None) -> None:
        """Write all configurations, and mount what LXC can't. ``mask``: the image of the mask for system containers."""
        shutil.rmtree(self._directory, ignore_errors=True)
        self._ready.mkdir(parents=True)
        script = self._directory / "ready.sh"
        script.write_text('echo ready >"$1"\nexec sleep infinity\n', encoding="ascii")
        pool = IdPool(*limits.id_files())
        firsts = {name: pool.take() for name in self.names} if kind == "unprivileged" else {}
        for name in self.names:
            own = self._directory / name
            for part in ("root", "delta", "work"):
                (own / part).mkdir(parents=True)
            ready = self._ready / name
            # In a clone the file ends up in the delta.
            inside = kind in ("clone", "unprivileged")
            self._files[name] = own / "delta" / ready.relative_to("/") if inside else ready
            first = firsts.get(name)
            if first is not None:
                os.chown(own / "delta", first, first)
            values = {"name": name, "own": own, "script": script, "ready": ready, "first": first, "size": RANGE_SIZE}
            (own / "config").write_text(_text(kind).format(**values), encoding="ascii")
        if kind in ("unprivileged", "system"):
            self._mounts = _Mounts(self._directory, self.names, firsts, mask)

    def start(self) -> float:
        """Start all app containers; seconds until each has written its file."""
        began, clock = time.time(), time.perf_counter()
        self._each(["lxc-start", "-P", str(self._directory), "-n"])
        observe.wait_written(self._files, began)
        return time.perf_counter() - clock

    def stop(self) -> float:
        """Kill all containers; seconds until they have ended."""
        clock = time.perf_counter()
        self._each(["lxc-stop", "-P", str(self._directory), "-k", "-n"])
        return time.perf_counter() - clock

    def boot(self) -> float:
        """Start all system containers; seconds until each is up."""
        clock = time.perf_counter()
        self._each(["lxc-start", "-P", str(self._directory), "-p", "{pid}", "-n"])
        observe.wait_booted({name: self._init(name) for name in self.names})
        return time.perf_counter() - clock

    def remove(self) -> None:
        """Remove all mounts and files. No container may run any more."""
        if self._mounts is not None:
            self._mounts.end()
            self._mounts = None
        shutil.rmtree(self._directory, ignore_errors=True)

    def _init(self, name: str) -> int:
        """The pid of a container's process 1, which is the monitor's child."""
        monitor = (self._directory / name / "pid").read_text(encoding="ascii").strip()
        children = Path(f"/proc/{monitor}/task/{monitor}/children").read_text(encoding="ascii").split()
        return int(children[0])

    def _each(self, argv: Sequence[str]) -> None:
        """Run ``argv`` once for each container, with its name added, some at a time; ``{pid}`` stands for its pid file."""
        words = [word.replace("{pid}", f"{self._directory}/{{}}/pid") for word in argv]
        xargs = ["xargs", "-P", str(AT_ONCE), "-I", "{}", *words, "{}"]
        enter = [] if self._mounts is None else ["nsenter", f"--mount=/proc/{self._mounts.pid}/ns/mnt"]
        done = subprocess.run([*enter, *xargs], input="\n".join(self.names), text=True, capture_output=True, check=False)
        if done.returncode != 0:
            raise observe.Late(f"{argv[0]} failed: {done.stderr.strip()[-500:]}")


def _text(kind: PeerKind) -> str:
    text = {"plain": _PLAIN, "clone": _CLONE, "unprivileged": _UNPRIVILEGED, "system": _SYSTEM}[kind] + _COMMON
    return text + _APPARMOR if kind == "system" and Path("/sys/kernel/security/apparmor").exists() else text


class _Mounts:
    """The containers' roots, mounted in a namespace that a child process holds."""

    def __init__(self, directory: Path, names: Sequence[str], firsts: Mapping[str, int], mask: Path | None) -> None:
        self._directory = directory
        ready, tell = os.pipe()
        ending, self._open = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._open)
            try:
                self._mount(names, firsts, mask)
                os.write(tell, b"mounted")
                os.read(ending, 1)  # until the parent closes its end, or has ended
            finally:
                os._exit(0)
        os.close(tell)
        os.close(ending)
        with open(ready, "rb") as file:
            mounted = file.read(7)
        if not mounted:
            self.end()
            raise observe.Late("the roots of the bare containers could not be mounted")

    def end(self) -> None:
        """End the process that holds the namespace, and so the mounts."""
        os.close(self._open)
        os.waitpid(self.pid, 0)

    def _mount(self, names: Sequence[str], firsts: Mapping[str, int], image: Path | None) -> None:
        syscalls.unshare_mounts()
        syscalls.make_slave(Path("/"))
        lower = ""
        if image is not None:
            mask = self._directory / "mask"
            mask.mkdir()
            subprocess.run(["mount", "-t", "ext4", "-o", "loop,ro", str(image), str(mask)], check=True)
            lower = f"{mask}:"
        for name in names:
            own = self._directory / name
            first = firsts.get(name)
            base = own / "base"
            base.mkdir()
            users = None if first is None else syscalls.user_namespace(first, RANGE_SIZE)
            syscalls.clone_read_only(Path("/"), base, users)
            if users is not None:
                os.close(users)
            layers = f"lowerdir={lower}{base},upperdir={own}/delta,workdir={own}/work,{_OVERLAY}"
            syscalls.mount("bench", own / "root", "overlay", syscalls.MS_NODEV, layers)
