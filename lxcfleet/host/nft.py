"""The packet filter, by nft."""

from __future__ import annotations

from pathlib import Path

from lxcfleet.errors import Unsupported
from lxcfleet.host import command

PROGRAM = Path("/usr/sbin/nft")


def apply(rules: str) -> None:
    """Have it take over ``rules``, all or nothing. Raises Unsupported or HostError."""
    if not PROGRAM.exists():
        raise Unsupported("containers can't be connected", why=f"{PROGRAM} is missing",
                          hint="apt install nftables, or use --network none")  # fmt: skip
    command.run([str(PROGRAM), "-f", "-"], input=rules.encode())
