"""lxcfleet's side of the benchmark: its command line as a user has it, with a daemon and directories of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench import alone, observe
from lxcfleet.capacity.ids import IdPool, installer_line
from lxcfleet.host.facts import limits
from lxcfleet.paths import Paths

PROGRAM = Path(__file__).resolve().parent.parent / "bin/lxcfleet"
PREFIX = "lfbench"
BRIDGE = "lfbench0"
_SETTINGS = """\
network:
  bridge: {bridge}
  default: {network}
"""
_INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")


class Failed(Exception):
    """A command of lxcfleet failed."""


class Fleet:
    """The benchmark's fleet, below ``directory`` (on the host's root file system) and ``run``."""

    def __init__(
        self,
        directory: Path,
        run: Path,
        count: int,
        network: str = "none",
        *,
        program: Path = PROGRAM,
        prefix: str = PREFIX,
    ) -> None:
        """``program``: of which version; ``prefix``: of the containers' names, as no two fleets' cgroups may clash."""
        alone.hold()
        self.paths = Paths(lxc=directory / "lxc", run=run, etc=directory / "etc")
        self._directory = directory
        self._count = count
        self._network = network
        self._program = program
        self._prefix = prefix
        self.names = [f"{prefix}{number}" for number in range(1, count + 1)]
        self._files = {name: self.paths.container(name).delta / "ready" for name in self.names}
        self._environment = {**os.environ, **self.paths.environment()}

    def cli(self, *arguments: str) -> str:
        """Run `lxcfleet ARGUMENTS`; returns its output, raises Failed."""
        argv = [str(self._program), *arguments]
        done = subprocess.run(argv, env=self._environment, text=True, capture_output=True, check=False)
        if done.returncode != 0:
            line = " ".join(arguments[:4])
            raise Failed(f"`lxcfleet {line} …` ended with {done.returncode}:\n{done.stderr.strip()[-2000:]}")
        return done.stdout

    def json(self, *arguments: str) -> Any:
        """Run a command with JSON output; returns the parsed output."""
        return json.loads(self.cli(*arguments, "-f", "json"))

    def prepare(self) -> None:
        """Start the daemon."""
        self.clear()
        for needed in (self.paths.lxc, self.paths.etc):
            needed.mkdir(parents=True)
        settings = _SETTINGS.format(bridge=BRIDGE, network=self._network)
        self.paths.config_file.write_text(settings, encoding="ascii")
        self.have_mask()

    def have_mask(self) -> None:
        """Have the daemon build the mask for the host as it is now. No measurement includes that."""
        self.cli("create", f"{self._prefix}0", "--", "sleep", "infinity")
        self.cli("destroy", f"{self._prefix}0", "--force")

    def clear(self) -> None:
        """Remove every directory, including those of a run that was cut short."""
        shutil.rmtree(self._directory, ignore_errors=True)
        shutil.rmtree(self.paths.run, ignore_errors=True)

    def create(self) -> float:
        """Create and start all app containers; seconds until each has written its file."""
        script = "echo ready >/ready; exec sleep infinity"
        began, clock = time.time(), time.perf_counter()
        self.cli("create", self._prefix, "-n", str(self._count), "--", "sh", "-c", script)
        observe.wait_written(self._files, began)
        return time.perf_counter() - clock

    def restart(self) -> float:
        """Restart all containers; seconds until each has written its file anew."""
        began, clock = time.time(), time.perf_counter()
        self.cli("restart", "--all")
        observe.wait_written(self._files, began)
        return time.perf_counter() - clock

    def destroy(self) -> float:
        """Remove all containers; seconds until they are gone."""
        clock = time.perf_counter()
        self.cli("destroy", "--all", "--force")
        return time.perf_counter() - clock

    def boot(self) -> float:
        """Create and start all system containers; seconds until each is up."""
        clock = time.perf_counter()
        self.cli("create", self._prefix, "-n", str(self._count))
        observe.wait_booted({str(c["name"]): int(c["pid"]) for c in self.json("list")})
        return time.perf_counter() - clock

    def mask_stamp(self) -> int:
        """A number that changes when the daemon builds the mask anew. That takes a second, and is no part of a start."""
        return self.paths.mask_image.stat().st_ino

    def ranges_free(self) -> int:
        """How many uid ranges the daemon has left."""
        findings = self.json_of_doctor()["findings"]
        return next(int(f["have"]) for f in findings if f["check"] == "uid-ranges")

    def json_of_doctor(self) -> Any:
        """The record of doctor, whose exit status is 4 when it finds something."""
        argv = [str(self._program), "doctor", "-f", "json"]
        done = subprocess.run(argv, env=self._environment, text=True, capture_output=True, check=False)
        return json.loads(done.stdout)

    def daemons(self) -> list[int]:
        """The pids of the daemon and its launcher, without the containers' monitors, which the launcher started."""
        mine = f"LXCFLEET_RUN={self.paths.run}".encode()
        found = []
        for pid, line in observe.processes():
            if re.search(r"lxcfleet\.(daemon|launcher)|bin/lxcfleetd", line):
                try:
                    environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                except OSError:
                    continue
                if mine in environment:
                    found.append(pid)
        return found

    def processes(self) -> list[int]:
        """The pids of the daemon, which is the first, and of all that it started and that are its children still."""
        daemon = next(pid for pid in self.daemons() if "daemon" in _line(pid))
        return [daemon, *(pid for pid, _ in observe.processes() if observe.parent(pid) == daemon)]

    def end(self) -> None:
        """Stop the daemon, and wait until it and its launcher have ended; raises Failed."""
        deadline = time.monotonic() + 10
        while pids := self.daemons():
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGTERM)
                except ProcessLookupError:
                    continue
            if time.monotonic() > deadline:
                raise Failed(f"processes {pids} of lxcfleet do not end")
            time.sleep(0.05)


def _line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")


class Host:
    """Makes room for the benchmark on a host that was not prepared, and undoes each change at the end."""

    def __init__(self, count: int) -> None:
        self._instances = count * 8 + 128
        self._restore: list[tuple[Path, str]] = []
        self._line: str | None = None

    def __enter__(self) -> Host:
        alone.hold()
        present = _INOTIFY.read_text(encoding="ascii")
        if int(present) < self._instances:
            _INOTIFY.write_text(str(self._instances), encoding="ascii")
            self._restore.append((_INOTIFY, present))
        if IdPool(*limits.id_files()).free < self._instances // 8:
            self._line = installer_line(*limits.id_files())
            _edit_id_files(self._line, add=True)
        return self

    def __exit__(self, *_: object) -> None:
        for file, text in self._restore:
            file.write_text(text, encoding="ascii")
        _edit_id_files(self._line, add=False)


@contextmanager
def prepared(directory: Path, run: Path, count: int) -> Iterator[Fleet]:
    """A fleet with room for ``count`` containers on a host that can have them; nothing of it stays."""
    ours = Fleet(directory, run, count)
    with Host(count):
        try:
            ours.prepare()
            yield ours
        finally:
            try:
                ours.cli("destroy", "--all", "--force")
            finally:
                ours.end()
                ours.clear()


def _edit_id_files(line: str | None, *, add: bool) -> None:
    for file in (Path("/etc/subuid"), Path("/etc/subgid")) if line else ():
        lines: Sequence[str] = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        kept = [present for present in lines if present != line] + ([line] if add and line else [])
        file.write_text("".join(f"{kept_line}\n" for kept_line in kept), encoding="utf-8")
