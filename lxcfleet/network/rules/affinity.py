"""Which member of a group serves a client, so that the same address always gets the same one. Pure.

The packet filter turns a client's address into the number of a slot, and each slot belongs to a member. To which one depends
on the slot and the member alone (rendezvous hashing): when a member leaves, its slots are shared by the others, and nobody
else's clients move. When one comes, it takes its part of the slots from all.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b

SLOTS = 512
"""So many slots: with 60 members each has some."""
_SEED = 0x6C786366
"""The kernel would choose another one for each new rule, and so another member for each client."""


def key(family: str) -> str:
    """The slot of a packet's sender, as nft(8) has it: jhash. ``family``: ip or ip6."""
    return f"jhash {family} saddr mod {SLOTS} seed {_SEED:#x}"


def owners(members: Sequence[str]) -> list[str]:
    """The member of each slot."""
    return [max(members, key=lambda member, slot=slot: _weight(slot, member)) for slot in range(SLOTS)]  # type: ignore[misc]


@lru_cache(maxsize=1 << 17)
def _weight(slot: int, member: str) -> bytes:
    return blake2b(f"{slot} {member}".encode(), digest_size=8).digest()
