"""The packet filter, by the program nft."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

from lxcfleet.errors import Unsupported
from lxcfleet.host.process import command

PROGRAM = Path("/usr/sbin/nft")
_ENGLISH = {"LC_ALL": "C"}


def apply(rules: str) -> None:
    """Load ``rules``, all or none of them. Raises Unsupported or HostError."""
    if not PROGRAM.exists():
        raise Unsupported("containers can't be connected", why=f"{PROGRAM} is missing",
                          hint="apt install nftables, or use --network none")  # fmt: skip
    command.run([str(PROGRAM), "-f", "-"], input=rules.encode())


def pairs(family: str, table: str, name: str) -> list[tuple[str, int]]:
    """The elements of a set of pairs, an interface and a number; none if there is no such set. Raises HostError."""
    try:
        text = command.run([str(PROGRAM), "-j", "list", "set", family, table, name], environment=_ENGLISH)
    except command.ProgramFailed as error:
        # nft has one exit status for all failures. A missing table or set is told by the text of strerror(3).
        if os.strerror(errno.ENOENT) in error.said:
            return []
        raise
    found = []
    for each in json.loads(text).get("nftables", []):
        for element in each.get("set", {}).get("elem", []):
            value = element["elem"]["val"] if "elem" in element else element
            interface, number = value["concat"]
            found.append((str(interface), int(str(number), 0)))
    return found
