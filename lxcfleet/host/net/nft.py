"""The packet filter, by the program nft."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

from lxcfleet.errors import Unsupported
from lxcfleet.host.process import command

PROGRAM = Path("/usr/sbin/nft")
MARK = "lxcfleet_loads"
"""A table that each of our transactions makes and removes: nobody sees it but who watches, and so knows them from those of
other programs. The kernel tells a transaction's process, too, but that is `nft` whoever calls it."""
_ENGLISH = {"LC_ALL": "C"}


def apply(rules: str) -> None:
    """Load ``rules``, all or none of them, as a transaction of ours. Raises Unsupported or HostError."""
    if not PROGRAM.exists():
        raise Unsupported("containers can't be connected", why=f"{PROGRAM} is missing",
                          hint="apt install nftables, or use --network none")  # fmt: skip
    # The mark is first: who watches has nothing to read of the rest.
    text = f"table inet {MARK} {{}}\ndelete table inet {MARK}\n{rules}"
    command.run([str(PROGRAM), "-f", "-"], input=text.encode())


def tables(family: str) -> list[str]:
    """The names of all tables of a family; none without the program. Raises HostError."""
    if not PROGRAM.exists():
        return []
    return [str(each["table"]["name"]) for each in _listed("tables", family) if "table" in each]


def chain(family: str, table: str, name: str) -> list[dict[str, Any]]:
    """The rules of a chain, as libnftables-json(5) has them; none if there is no such chain. Raises HostError."""
    return [each["rule"] for each in _listed("chain", family, table, name) if "rule" in each]


def chains() -> list[dict[str, Any]]:
    """All chains of the host, as libnftables-json(5) has them; none without the program. Raises HostError."""
    return [each["chain"] for each in _listed("chains") if "chain" in each] if PROGRAM.exists() else []


def rules(family: str, table: str) -> list[dict[str, Any]]:
    """The rules of a table, those of its chains one after the other; none if there is no such table. Raises HostError."""
    return [each["rule"] for each in _listed("table", family, table) if "rule" in each]


def pairs(family: str, table: str, name: str) -> list[tuple[str, int]]:
    """The elements of a set of pairs, an interface and a number; none if there is no such set. Raises HostError."""
    found = []
    for each in _listed("set", family, table, name):
        for element in each.get("set", {}).get("elem", []):
            value = element["elem"]["val"] if "elem" in element else element
            interface, number = value["concat"]
            found.append((str(interface), int(str(number), 0)))
    return found


def _listed(*what: str) -> list[dict[str, Any]]:
    """The objects that `nft list` tells; none if there is no such thing."""
    try:
        text = command.run([str(PROGRAM), "-j", "list", *what], environment=_ENGLISH)
    except command.ProgramFailed as error:
        # nft has one exit status for all failures. A missing table or set is told by the text of strerror(3).
        if os.strerror(errno.ENOENT) in error.said:
            return []
        raise
    found: list[dict[str, Any]] = json.loads(text).get("nftables", [])
    return found
