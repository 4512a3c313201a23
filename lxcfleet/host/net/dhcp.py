"""DHCP clients of containers: Debian's udhcpc, one for each.

A client is a process of the host's root, with the host's files. It is in the container's network namespace, whose interface
it sets up, and in its PID namespace, so the kernel ends it together with the container. Root of an unprivileged container
sees the client and can't touch it, as it is no process of that user namespace. Root of a privileged container could, and
so become root of the host. For these, the client stays in the host's PID namespace, and the daemon ends it. Clients keep
running when the daemon ends.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from lxcfleet.errors import HostError, Unsupported
from lxcfleet.host.kernel import syscalls
from lxcfleet.host.process import entering, proc
from lxcfleet.paths import Paths
from lxcfleet.spec.reading import ondisk

log = logging.getLogger(__name__)

PROGRAM = Path("/sbin/udhcpc")
SCRIPT = Path(__file__).resolve().parents[1] / "udhcpc-script"
INTERFACE = "eth0"
_TRIES, _PAUSE, _REST = 4, 2, 10
"""A client asks so many times, so many seconds apart, rests and begins again, for ever. A bridge may block a new port for
half a minute (spanning tree), and servers that check whether an address is in use take some seconds to answer."""
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_NO_TEXT = re.compile(rb"[^ -~\n]")


def known(paths: Paths) -> frozenset[str]:
    """The names of the containers that have or had a client."""
    try:
        return frozenset(os.listdir(paths.clients))
    except OSError:
        return frozenset()


@dataclass(frozen=True)
class DhcpClient:
    """The DHCP client of a container."""

    name: str
    paths: Paths

    @property
    def argv(self) -> list[str]:
        """The client's command line."""
        tries = ["-t", str(_TRIES), "-T", str(_PAUSE), "-A", str(_REST)]
        options = ["-O", "staticroutes", "-O", "mtu", "-x", f"hostname:{self.name}"]
        return [str(PROGRAM), "-f", "-i", INTERFACE, "-s", str(SCRIPT), *tries, *options]

    @property
    def lease(self) -> Path:
        """The file to which the client writes its answers; see network.rules.lan.parse_lease."""
        return self.paths.leases / self.name

    @property
    def pid_file(self) -> Path:
        """The file with its pid, as the host numbers it."""
        return self.paths.clients / self.name

    def running(self) -> int | None:
        """The client's pid, if it runs."""
        try:
            pid = int(ondisk.text(self.pid_file, "ascii", most=ondisk.SMALL))
            program = Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0]
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        # The whole command line is not compared, as another version of lxcfleet may have another one.
        ours = program == os.fsencode(PROGRAM) and f"LXCFLEET_LEASE={self.lease}".encode() in variables
        return pid if ours else None

    def forget(self) -> None:
        """End the client if it still runs, and remove its files. Its container has ended."""
        pid = self.running()
        process = None if pid is None else proc.open_pid(pid)
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, signal.SIGKILL)
            os.close(process)
        for file in (self.lease, self.lease.with_name(f"{self.name}.new"), self.pid_file):
            try:
                file.unlink(missing_ok=True)
            except OSError as error:  # what it says counts only while that client runs
                log.warning("%s: the remains of its DHCP client can't be removed: %s", self.name, error)

    def start(self, pid: int, began: float, daemon: int, *, privileged: bool) -> None:
        """Start the client for the container whose process 1 is ``pid``, begun at ``began``. Runs in a launcher's child.

        ``daemon``: a process in the host's mount namespace, as the launcher has one of its own. Does nothing if the container
        has ended. Raises HostError.
        """
        mounts = os.open(f"/proc/{daemon}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        try:
            with entering.process(pid, began) as container:
                if self.running() is not None:
                    return
                with entering.network(container, pids=not privileged):
                    self._spawn(mounts)
        except ProcessLookupError:
            return
        except OSError as error:
            raise HostError.from_os_error(f"{self.name}: its DHCP client can't be started", error) from error
        finally:
            os.close(mounts)

    def _spawn(self, mounts: int) -> None:
        """Start the client once its pid is written down, as a later daemon must find it."""
        wait, go = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(go)
            self._become(wait, mounts)
        os.close(wait)
        with open(go, "wb", buffering=0) as pipe:
            self.pid_file.write_text(f"{child}\n", encoding="ascii")
            pipe.write(b"y")

    def _become(self, wait: int, mounts: int) -> NoReturn:
        try:
            if os.read(wait, 1) != b"y":
                os._exit(1)
            syscalls.enter_mounts(mounts)
            os.setsid()
            os.chdir("/")
            null = os.open(os.devnull, os.O_RDWR)
            for stream in range(3):
                os.dup2(null, stream)
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))
            signal.alarm(0)
            proc.unignore_signals()
            os.execve(PROGRAM, self.argv, {"PATH": _PATH, "LXCFLEET_LEASE": str(self.lease)})
        finally:
            os._exit(1)


def check_installed() -> None:
    """Raise Unsupported if no client is installed."""
    if not os.access(SCRIPT, os.X_OK):
        raise Unsupported("containers can't get addresses by DHCP", why=f"{SCRIPT} can't be executed",
                          hint="install lxcfleet anew")  # fmt: skip
    if not PROGRAM.exists():
        raise Unsupported("containers can't get addresses by DHCP", why=f"{PROGRAM} is missing",
                          hint="apt install udhcpc")  # fmt: skip


def addresses6(pid: int) -> str:
    """The IPv6 addresses in the network namespace of a process, as the kernel lists them; empty if there are none.

    The names of interfaces, which root of a container may choose, have question marks for what could be taken for an end of
    a line or of a word.
    """
    with contextlib.suppress(OSError):
        return _NO_TEXT.sub(b"?", Path(f"/proc/{pid}/net/if_inet6").read_bytes()).decode("ascii")
    return ""
