"""What a run of the tests leaves on the host when it is broken off, and its removal.

    /usr/bin/python3 -m tests.leftovers     # remove what runs that have ended left; `make clean-tests` is that

A run notes in a file of its own what it is about to make, and holds a lock on that file for as long as it lives. A
helper process outlives the run and then removes what is noted there; should the helper be killed too, the next run does
it. Only what bears a mark of a noted fleet is ever touched: its directories, cgroups, interfaces, namespaces and nft tables
have the fleet's random tag in their names, its processes have the directories in their environment or in their command line.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

MARK = "TESTS_OF_LXCFLEET"
"""A variable that all programs of a run have in their environment."""

TAG = re.compile(r"[0-9a-f]{6}")


def registry() -> Path:
    """The directory of the runs' files: root's where only root writes, others' in their temporary directory."""
    if os.geteuid() == 0:
        return Path("/run/lxcfleet-tests")
    return Path(tempfile.gettempdir()) / f"lxcfleet-tests-{os.geteuid()}"


class Note(NamedTuple):
    """One thing that a run makes."""

    kind: str
    """``fleet`` or ``directory``."""
    value: str
    """The fleet's tag, or the path."""


class _Run:
    """This process's run."""

    def __init__(self) -> None:
        directory = registry()
        directory.mkdir(mode=0o700, exist_ok=True)
        self.file = directory / f"{os.getpid()}-{secrets.token_hex(4)}"
        with locked(directory):
            self._descriptor = os.open(self.file, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o600)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        os.environ[MARK] = self.file.name
        # Its stdin ends with this process, however that ends. A session of its own: Ctrl-C is not for it.
        self._helper = subprocess.Popen(
            [sys.executable, "-I", __file__, "--when-stdin-ends"],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True, cwd="/",
        )  # fmt: skip

    def note(self, note: Note) -> None:
        os.write(self._descriptor, (json.dumps(note) + "\n").encode())

    def end(self) -> None:
        os.close(self._descriptor)
        assert self._helper.stdin is not None
        self._helper.stdin.close()
        self._helper.wait()


_run: _Run | None = None


def begin() -> None:
    """Remove what former runs left, and begin one."""
    global _run  # noqa: PLW0603  # there is one run in a process
    sweep()
    _run = _Run()


def end() -> None:
    """The run has ended: whatever is still there is removed."""
    global _run  # noqa: PLW0603
    if _run is not None:
        _run.end()
    _run = None


def note(kind: str, value: str) -> None:
    """Say what is about to be made, so that it is removed if this process can't do that."""
    if _run is not None:
        _run.note(Note(kind, value))


def sweep() -> list[str]:
    """Remove what runs left that have ended. Returns the names of their files."""
    directory = registry()
    swept = []
    if directory.is_dir() and directory.lstat().st_uid == os.geteuid():
        for file in sorted(directory.iterdir()):
            if _ended(file, directory):
                swept.append(file.name)
    return swept


def _sweep_after(file: Path) -> None:
    """Remove what the run of this file left. The kernel may end the pipe of a killed process before its lock is free."""
    deadline = time.monotonic() + 60
    sweep()
    while file.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
        sweep()


def _ended(file: Path, directory: Path) -> bool:
    """Clean up after that run if it has ended: then nobody holds the lock."""
    try:
        with locked(directory):
            descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(descriptor)
                raise
    except OSError:  # it lives, or another one has just removed it
        return False
    try:
        notes = list(_notes(file))
        fleets = [value for kind, value in notes if kind == "fleet" and TAG.fullmatch(value)]
        for tag in fleets:  # a child of the launcher that entered a frozen container can't be killed either
            _thaw(tag)
        _kill(lambda: _marked(MARK, file.name))
        for tag in fleets:
            _remove_fleet(tag)
        for kind, value in notes:
            if kind == "directory" and Path(value).name.startswith("lxcfleet-"):
                shutil.rmtree(value, ignore_errors=True)
        file.unlink(missing_ok=True)
    finally:
        os.close(descriptor)
    return True


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the lock of the registry: nobody begins a run meanwhile, or removes what one has left."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _notes(file: Path) -> Iterator[Note]:
    for line in file.read_text().splitlines():
        with contextlib.suppress(ValueError, TypeError):  # the last line of one that was killed
            yield Note(*json.loads(line))


# -- one fleet ----------------------------------------------------------------------------------------------------


def _remove_fleet(tag: str) -> None:
    name = f"lxcfleet-t{tag}"
    directories = [Path("/var/lib") / name, Path("/run") / name, Path("/etc") / name]
    _thaw(tag)
    containers, run, _ = directories
    _kill(lambda: [*_marked("LXCFLEET_RUN", str(run)), *_monitors(containers), *_servants(run), *_inside(tag)])
    deadline = time.monotonic() + 30
    while (cgroups := _cgroups(tag)) and time.monotonic() < deadline:  # one whose last process is just ending is busy
        for cgroup in sorted(cgroups, key=len, reverse=True):
            with contextlib.suppress(OSError):
                os.rmdir(cgroup)
    for point in reversed(_mounts(directories)):
        subprocess.run(["umount", "-l", point], stderr=subprocess.DEVNULL, check=False)
    _remove_from_network(tag)
    if not _mounts(directories):
        for directory in directories:
            shutil.rmtree(directory, ignore_errors=True)
    for place in ("", "lock/"):  # liblxc's own
        shutil.rmtree(f"/run/lxc/{place}var/lib/{name}", ignore_errors=True)


def _remove_from_network(tag: str) -> None:
    """Its bridge, the interfaces and namespaces that its tests made, and the tables whose names end with the bridge's."""
    bridge = f"lt{tag}"
    for directory, kind in (("/run/netns", "netns"), ("/sys/class/net", "link")):
        for name in os.listdir(directory) if os.path.isdir(directory) else ():
            if re.fullmatch(f"[a-z]{{1,2}}{tag}[a-z]?", name):
                subprocess.run(["ip", kind, "del", name], stderr=subprocess.DEVNULL, check=False)
    if shutil.which("nft", path="/usr/sbin") is None:
        return
    said = subprocess.run(["/usr/sbin/nft", "list", "tables"], capture_output=True, text=True, check=False).stdout
    for line in said.splitlines():
        words = line.split()  # table FAMILY NAME
        if len(words) == 3 and bridge in words[2]:
            subprocess.run(["/usr/sbin/nft", "delete", *words], stderr=subprocess.DEVNULL, check=False)


def _kill(found: Callable[[], Iterable[int]]) -> None:
    """End processes until none is found any more."""
    deadline = time.monotonic() + 60
    while (pids := set(found()) - {os.getpid()}) and time.monotonic() < deadline:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def _marked(variable: str, value: str) -> Iterator[int]:
    """Processes that have this variable in their environment."""
    mark = f"{variable}={value}".encode()
    for pid in _pids():
        if mark in _read(pid, "environ").split(b"\0"):
            yield pid


def _monitors(containers: Path) -> Iterator[int]:
    """liblxc's monitors of containers in that directory."""
    for pid in _pids():
        if _read(pid, "cmdline").startswith(f"[lxc monitor] {containers} ".encode()):
            yield pid


def _servants(run: Path) -> Iterator[int]:
    """The daemon's servants that have nothing in their environment: they are told their files."""
    for pid in _pids():
        program, *arguments = _read(pid, "cmdline").split(b"\0")
        ours = os.path.basename(program) == b"dnsmasq" or b"lxcfleet.network.responder" in arguments
        if ours and any(f"{run}/".encode() in argument for argument in arguments):
            yield pid


def _inside(tag: str) -> Iterator[int]:
    """Processes in cgroups of the fleet's containers."""
    for cgroup in _cgroups(tag):
        with contextlib.suppress(OSError):
            yield from map(int, Path(cgroup, "cgroup.procs").read_text().split())


def _cgroups(tag: str) -> list[str]:
    """The cgroups of the fleet's containers and what is below them, in every hierarchy."""
    of_ours = re.compile(rf"/lxc\.(payload|monitor|pivot)\.t{tag}-")
    return [directory for directory, _, _ in os.walk("/sys/fs/cgroup") if of_ours.search(directory)]


def _thaw(tag: str) -> None:
    """In a frozen cgroup of version 1 nothing can be killed."""
    for cgroup in _cgroups(tag):
        file = Path(cgroup, "freezer.state")
        if file.exists():
            with contextlib.suppress(OSError):
                file.write_text("THAWED")


def _mounts(directories: list[Path]) -> list[str]:
    """Mount points at and below these directories, in the order of mounting."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in points if any(Path(point).is_relative_to(directory) for directory in directories)]


def _pids() -> Iterator[int]:
    """All processes but those that have ended and wait for their parent."""
    for name in os.listdir("/proc"):
        if name.isdigit() and _read(int(name), "cmdline"):
            yield int(name)


def _read(pid: int, file: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{file}").read_bytes()
    except OSError:
        return b""


def main(arguments: list[str]) -> None:
    """As a program of its own."""
    if arguments == ["--when-stdin-ends"]:
        while os.read(0, 4096):
            pass
        _sweep_after(registry() / os.environ[MARK])
        return
    for name in sweep():
        print(f"removed what run {name} left")


if __name__ == "__main__":
    main(sys.argv[1:])
