"""Who may call what: root and the group lxcfleet everything, the group lxcfleet-ro what only reads."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from lxcfleet.errors import Denied
from lxcfleet.host.process import peer
from lxcfleet.host.process.peer import Connection, Peer

FULL = "lxcfleet"
READERS = "lxcfleet-ro"
AT_ONCE = 64
"""How many calls of readers are answered at the same moment."""
HIDDEN = "(hidden)"
"""Instead of the values of variables, which may be passwords."""


class Role(IntEnum):
    """What a caller may do."""

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
        """As the host has them now."""
        return cls(peer.group(FULL), peer.group(READERS))

    def judge(self, caller: Peer) -> Role:
        """What ``caller`` may do. It got as far as the socket, but that its file's mode may have been changed."""
        if caller.uid == 0 or self.full in caller.groups:
            return Role.ALL
        return Role.READ if self.readers in caller.groups else Role.NOTHING

    def role(self, connection: Connection | None) -> Role:
        """The same of who is at the other end; nothing, if that is not to be found out."""
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
