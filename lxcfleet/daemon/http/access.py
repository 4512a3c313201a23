"""Which caller may use which call: root and the group lxcfleet all of them, the group lxcfleet-ro those that only read."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from lxcfleet.errors import Denied
from lxcfleet.host.process import peer
from lxcfleet.host.process.peer import Connection, Peer

FULL = "lxcfleet"
READERS = "lxcfleet-ro"
AT_ONCE = 64
"""How many calls of read-only callers are answered at the same moment."""
HIDDEN = "(hidden)"
"""Stands for the value of an environment variable, which may be a password."""


class Role(IntEnum):
    """The rights of a caller."""

    NOTHING = 0
    READ = 1
    ALL = 2


@dataclass(frozen=True)
class Access:
    """The two groups' ids; None where the host has no such group."""

    full: int | None
    readers: int | None

    @classmethod
    def of_host(cls) -> Access:
        """The ids that the host has now."""
        return cls(peer.group(FULL), peer.group(READERS))

    def judge(self, caller: Peer) -> Role:
        """The rights of ``caller``. That it could open the socket proves none: the mode of the file may have been changed."""
        if caller.uid == 0 or self.full in caller.groups:
            return Role.ALL
        return Role.READ if self.readers in caller.groups else Role.NOTHING

    def role(self, connection: Connection | None) -> Role:
        """The rights of the process at the other end: none, if the kernel does not tell its credentials."""
        try:
            return Role.NOTHING if connection is None else self.judge(peer.peer(connection))
        except OSError:
            return Role.NOTHING


def refuse(role: Role, needed: Role) -> None:
    """Raise Denied unless ``role`` is enough."""
    if role >= needed:
        return
    if role is Role.READ:
        raise Denied("this changes something, and you may only read", hint=f"be root or in the group {FULL}")
    raise Denied("you may not use lxcfleet", hint=f"be root or in the group {FULL}; to read, in {READERS}")
