"""The host's own look-ups of the fleet's names, where systemd-resolved does them; resolvectl(1)."""

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
"""The first has the servers themselves, where the second has systemd-resolved's own address; resolved.conf(5)."""


def tell(bridge: str, server: str, domain: str) -> None:
    """Have it ask ``server`` for the names in ``domain``, and for no others; empty: for none. Nothing where it does not run.

    It belongs to the interface and goes with it. That it can't be done is no reason to have no network.
    """
    if not (PROGRAM.exists() and _RUNS.exists()):
        return
    try:
        if not domain:
            command.run([str(PROGRAM), "revert", bridge], timeout=10)
            return
        command.run([str(PROGRAM), "dns", bridge, server], timeout=10)
        # The ~: names in this domain go there; and nothing else does.
        command.run([str(PROGRAM), "domain", bridge, f"~{domain}"], timeout=10)
        command.run([str(PROGRAM), "default-route", bridge, "false"], timeout=10)
        # Nobody has signed it.
        command.run([str(PROGRAM), "dnssec", bridge, "no"], timeout=10)
    except HostError as error:
        log.warning("systemd-resolved does not take the fleet's names: %s", error)


def servers() -> str:
    """A resolv.conf with the host's own name servers, but for those on its loopback, which nobody else can ask."""
    for file in _SERVERS:
        with contextlib.suppress(OSError):
            lines = [line.split() for line in file.read_text(encoding="utf-8", errors="replace").splitlines()]
            kept = [words for words in lines if words[:1] in (["nameserver"], ["search"]) and words[1:]]
            return "".join(f"{' '.join(words)}\n" for words in kept if not words[1].startswith(("127.", "::1")))
    return ""
