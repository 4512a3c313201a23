"""Programs that the daemon starts and that outlive it: found again by their pid file, watched, ended."""

from __future__ import annotations

import os
import pwd
import select
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from lxcfleet.errors import HostError
from lxcfleet.host.process import command, proc
from lxcfleet.spec.reading import ondisk

_END_SECONDS = 3.0
_ANEW_SECONDS = 5.0


@dataclass(frozen=True)
class Standing:
    """One such program. It forks itself into the background and writes its pid."""

    title: str
    """The name for messages."""
    argv: Sequence[str]
    pid_file: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    """The program's whole environment."""
    user: str = ""
    """The user that the program becomes; empty: it stays root's."""

    def running(self) -> int | None:
        """The program's pid, if it runs with these arguments."""
        pid = self.present()
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]
        except OSError:
            return None
        return pid if [word.encode() for word in self.argv] == words else None

    def start(self) -> None:
        """Start the program; raises HostError with its output."""
        command.run(self.argv, timeout=10, environment=self.environment)

    def stop(self) -> None:
        """End the program, whatever its arguments, and wait for that. Does nothing if it does not run. Raises HostError.

        Its children are waited for, too: dnsmasq, which tells them to end, has one for each client over TCP, and each of them
        has the sockets that its successor wants.
        """
        pid = self.present()
        if pid is None:
            return
        with ExitStack() as stack:
            processes = []
            for each in (pid, *proc.children(pid)):
                if (process := proc.open_pid(each)) is not None:
                    stack.callback(os.close, process)
                    processes.append(process)
            if self.present() != pid:
                return  # it has ended by itself, and another process may have its number
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(processes[0], signal.SIGTERM)
            self._wait(pid, processes)

    def _wait(self, pid: int, processes: Sequence[int]) -> None:
        """Wait for the ends of the processes with these descriptors. Without its command line a process may have its sockets
        for a while: the kernel takes its memory away first."""
        deadline = time.monotonic() + _END_SECONDS
        for process in processes:
            poll = select.poll()  # not select.select: the daemon has more than 1,024 descriptors
            poll.register(process, select.POLLIN)
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise HostError(f"{self.title} does not end", why=f"pid {pid}")

    def run_anew(self) -> bool:
        """Have the program run itself anew, as it is on disk now, which SIGHUP asks it for; returns whether it did."""
        pid = self.running()
        process = None if pid is None else proc.open_pid(pid)
        if pid is None or process is None:
            return False
        before, deadline = proc.ran_anew(pid), time.monotonic() + _ANEW_SECONDS
        try:
            signal.pidfd_send_signal(process, signal.SIGHUP)
            while self.running() == pid and time.monotonic() < deadline:
                if proc.ran_anew(pid) != before:
                    return True
                time.sleep(0.01)
        except ProcessLookupError:
            pass
        finally:
            os.close(process)
        return False

    def present(self) -> int | None:
        """The program's pid, if it runs, whatever its arguments: they name our pid file or its directory."""
        try:
            pid = int(ondisk.text(self.pid_file, "ascii", most=ondisk.SMALL))
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return self._lost()
        return pid if str(self.pid_file.parent).encode() in line else self._lost()

    def _lost(self) -> int | None:
        """The program's pid, if its pid file does not tell it: a full disk may leave that empty.

        Everybody can start a process with these arguments, so it must be root's or the program's user's, and in no container.
        """
        if not self.argv:
            return None
        marks = [word.encode() for word in self.argv if str(self.pid_file.parent) in word]
        ours = os.stat("/proc/self/ns/pid").st_ino
        for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if words[0] == self.argv[0].encode() and all(mark in words for mark in marks) and self._is_own(pid, ours):
                    return pid
            except (OSError, KeyError):  # it has ended, or there is no such user
                continue
        return None

    def _is_own(self, pid: int, namespace: int) -> bool:
        directory = Path(f"/proc/{pid}")
        owner = directory.stat().st_uid
        own = owner == 0 or (self.user and owner == pwd.getpwnam(self.user).pw_uid)
        return bool(own) and os.stat(directory / "ns/pid").st_ino == namespace
