"""Makes the host itself find the fleet's names, if it uses systemd-resolved; resolvectl(1)."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

from lxcfleet.errors import HostError
from lxcfleet.host.process import command

log = logging.getLogger(__name__)

PROGRAM = Path("/usr/bin/resolvectl")
_RUNS = Path("/run/systemd/resolve/io.systemd.Resolve")
_SERVERS = (Path("/run/systemd/resolve/resolv.conf"), Path("/etc/resolv.conf"))
"""The first has the name servers themselves, even if the second has systemd-resolved's own address; resolved.conf(5)."""


def tell(bridge: str, server: str, domain: str) -> None:
    """Have systemd-resolved ask ``server`` for names in ``domain`` only; empty: for none. Does nothing if it does not run.

    The setting belongs to the interface and goes with it. A failure is no reason to have no network.
    """
    if not (PROGRAM.exists() and _RUNS.exists()):
        return
    try:
        if not domain:
            command.run([str(PROGRAM), "revert", bridge], timeout=10)
            return
        command.run([str(PROGRAM), "dns", bridge, server], timeout=10)
        # With ~, names in this domain go to the server, and no others do.
        command.run([str(PROGRAM), "domain", bridge, f"~{domain}"], timeout=10)
        command.run([str(PROGRAM), "default-route", bridge, "false"], timeout=10)
        # The domain is not signed.
        command.run([str(PROGRAM), "dnssec", bridge, "no"], timeout=10)
    except HostError as error:
        log.warning("systemd-resolved does not take the fleet's names: %s", error)


def has_servers() -> bool:
    """Whether resolv.conf is there, or could come: it may be a link into a directory that does not exist."""
    return _SERVERS[-1].resolve().parent.is_dir()


def servers() -> str:
    """A resolv.conf with the host's own name servers, without those on its loopback, which no container can reach."""
    for file in _SERVERS:
        with contextlib.suppress(OSError):
            lines = [line.split() for line in file.read_text(encoding="utf-8", errors="replace").splitlines()]
            kept = [words for words in lines if words[:1] in (["nameserver"], ["search"]) and words[1:]]
            return "".join(f"{' '.join(words)}\n" for words in kept if not words[1].startswith(("127.", "::1")))
    return ""
