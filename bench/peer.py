"""The other side: bare, privileged LXC containers, configurations ready-made, four lxc-start at a time.

Three kinds. ``plain`` is as lean as LXC goes: no include, so no hooks, no seccomp, no rules for devices, and
for a root the host's own, which all share and can write to. ``clone`` is what comes closest to ours with LXC's
own means: an overlay of its own over the host's root, and Debian's common.conf. ``system`` boots the host's
systemd over the same mask as ours.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from bench import observe
from lxcfleet.host import kernel

Kind = Literal["plain", "clone", "system"]

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

    def make(self, kind: Kind) -> None:
        """Write all configurations."""
        shutil.rmtree(self._directory, ignore_errors=True)
        self._ready.mkdir(parents=True)
        script = self._directory / "ready.sh"
        script.write_text('echo ready >"$1"\nexec sleep infinity\n', encoding="ascii")
        apparmor = Path("/sys/kernel/security/apparmor").exists()
        for name in self.names:
            own = self._directory / name
            for part in ("root", "delta", "work"):
                (own / part).mkdir(parents=True)
            ready = self._ready / name
            # In a clone the file ends up in the delta.
            self._files[name] = own / "delta" / ready.relative_to("/") if kind == "clone" else ready
            text = {"plain": _PLAIN, "clone": _CLONE, "system": _SYSTEM}[kind] + _COMMON
            if kind == "system" and apparmor:
                text += _APPARMOR
            values = {"name": name, "own": own, "script": script, "ready": ready}
            (own / "config").write_text(text.format(**values), encoding="ascii")

    def start(self) -> float:
        """Start all app containers; seconds until each has written its file."""
        began, clock = time.time(), time.perf_counter()
        self._each(["lxc-start", "-P", str(self._directory), "-n"])
        observe.wait_written(self._files, began)
        return time.perf_counter() - clock

    def stop(self) -> float:
        """Kill all; seconds until they have ended."""
        clock = time.perf_counter()
        self._each(["lxc-stop", "-P", str(self._directory), "-k", "-n"])
        return time.perf_counter() - clock

    def boot(self, mask: Path) -> float:
        """Start all system containers; seconds until each is up. ``mask``: the image of the mask.

        The overlays are mounted before the clock runs, in a mount namespace that a child of ours makes.
        """
        receive, send = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                self._mount(mask)
                began = time.time()
                self._each(["lxc-start", "-P", str(self._directory), "-p", "{pid}", "-n"])
                os.write(send, str(began).encode())
            finally:
                os._exit(0)
        os.close(send)
        with open(receive, encoding="ascii") as file:
            answer = file.read()
        os.waitpid(pid, 0)
        if not answer:
            raise observe.Late("the bare system containers could not be started")
        observe.wait_booted({name: self._init(name) for name in self.names})
        return time.time() - float(answer)

    def remove(self) -> None:
        """Remove all files. Nothing may run any more."""
        shutil.rmtree(self._directory, ignore_errors=True)

    def _mount(self, image: Path) -> None:
        kernel.unshare_mounts()
        kernel.make_slave(Path("/"))
        mask, base = self._directory / "mask", self._directory / "base"
        for point in (mask, base):
            point.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "ext4", "-o", "loop,ro", str(image), str(mask)], check=True)
        kernel.clone_read_only(Path("/"), base, None)
        for name in self.names:
            own = self._directory / name
            layers = f"lowerdir={mask}:{base},upperdir={own}/delta,workdir={own}/work,{_OVERLAY}"
            kernel.mount("bench", own / "root", "overlay", kernel.MS_NODEV, layers)

    def _init(self, name: str) -> int:
        """Process 1: the monitor's child."""
        monitor = (self._directory / name / "pid").read_text(encoding="ascii").strip()
        children = Path(f"/proc/{monitor}/task/{monitor}/children").read_text(encoding="ascii").split()
        return int(children[0])

    def _each(self, argv: Sequence[str]) -> None:
        """Run ``argv`` with each name added, some at a time; ``{pid}`` is the container's pid file."""
        words = [word.replace("{pid}", f"{self._directory}/{{}}/pid") for word in argv]
        xargs = ["xargs", "-P", str(AT_ONCE), "-I", "{}", *words, "{}"]
        done = subprocess.run(xargs, input="\n".join(self.names), text=True, capture_output=True, check=False)
        if done.returncode != 0:
            raise observe.Late(f"{argv[0]} failed: {done.stderr.strip()[-500:]}")
