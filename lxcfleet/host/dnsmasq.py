"""The fleet's name server: Debian's dnsmasq, on the bridge only, with its own files."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from lxcfleet.errors import HostError, Unsupported
from lxcfleet.host import command, proc

PROGRAM = Path("/usr/sbin/dnsmasq")
_END_SECONDS = 3.0


def render(bridge: str, domain: str, hosts: Path, pid_file: Path) -> str:
    """Its configuration; dnsmasq(8).

    It answers for the domain from ``hosts``, a directory that it watches (inotify): a file there that comes,
    changes or goes is known at once. All else it asks the host's own name servers.
    """
    return "\n".join(
        [
            "# Written by lxcfleet.",
            f"interface={bridge}",
            "except-interface=lo",
            "bind-dynamic",
            "no-hosts",
            f"hostsdir={hosts}",
            f"domain={domain}",
            f"local=/{domain}/",
            "domain-needed",
            "bogus-priv",
            "user=dnsmasq",
            f"pid-file={pid_file}",
            "",
        ]
    )


def running(config: Path, pid_file: Path) -> int | None:
    """Its pid, if it runs with this configuration."""
    try:
        pid = int(pid_file.read_text(encoding="ascii"))
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    return pid if f"--conf-file={config}".encode() in words else None


def start(config: Path) -> None:
    """Start it; it goes on by itself when the daemon ends. Raises Unsupported or HostError."""
    if not PROGRAM.exists():
        raise Unsupported("the fleet has no name server", why=f"{PROGRAM} is missing",
                          hint="apt install dnsmasq-base, or set network.dns: false in lxcfleet.yaml")  # fmt: skip
    command.run([str(PROGRAM), f"--conf-file={config}"], timeout=10)


def stop(config: Path, pid_file: Path) -> None:
    """End it and wait for that. Fine if it does not run."""
    pid = running(config, pid_file)
    if pid is None:
        return
    process = proc.open_pid(pid)
    if process is None:
        return
    try:
        signal.pidfd_send_signal(process, signal.SIGTERM)
        deadline = time.monotonic() + _END_SECONDS
        while running(config, pid_file) is not None:
            if time.monotonic() > deadline:
                raise HostError("the fleet's name server does not end", why=f"pid {pid}")
            time.sleep(0.01)
    except ProcessLookupError:
        return
    finally:
        os.close(process)
