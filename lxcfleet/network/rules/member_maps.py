"""Which of the members behind a port of the host serves a connection, as maps of the packet filter. Pure.

The maps have names, and are kept for one exchange of the rules longer than rules lead to them. The kernel asks anew for each
look into a map which state of the tables counts: a packet that began with the former rules would find a map without a name
empty, as that goes with its rule. Then no rule led it anywhere, and the host itself refused the client: so it was for 64 of
412,000 connections during 1,500 exchanges, with 600 rules before the one that counts, and for none of 445,000 with names.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

from lxcfleet.network.rules import affinity
from lxcfleet.spec.reading.terms import Affinity


@dataclass(frozen=True)
class MemberMap:
    """The map by which one of ``members``, addresses as texts, is chosen. Ports with the same members share it."""

    family: str
    """ip or ip6."""
    members: tuple[str, ...]
    affinity: Affinity = Affinity.NONE

    @property
    def expression(self) -> str:
        """The member, as nft(8) has it."""
        return self.members[0] if self._is_plain else f"{self._key} map @{self.name}"

    @cached_property
    def name(self) -> str:
        """The map's: it follows from what is in it, so a map of that name never changes."""
        digest = blake2b(" ".join((self.affinity, *self.members)).encode(), digest_size=8).hexdigest()
        return f"members_{self.family}_{digest}"

    @property
    def lines(self) -> list[str]:
        """The definition of the map, in a table."""
        if self._is_plain:
            return []
        pairs = ", ".join(f"{number} : {member}" for number, member in enumerate(self._places))
        return [f"  map {self.name} {{ {self._kind}; elements = {{ {pairs} }}; }}"]

    def removal(self, table: str) -> list[str]:
        """The lines that take the map away, whether it is there or not. ``table``: with its family."""
        if self._is_plain:
            return []
        return [f"add map {table} {self.name} {{ {self._kind}; }}", f"delete map {table} {self.name}"]

    @property
    def _is_plain(self) -> bool:
        return len(self.members) == 1

    @property
    def _kind(self) -> str:
        count = affinity.SLOTS if self.affinity is Affinity.CLIENT else len(self.members)
        # For slots, too: nft(8), version 1.0.6, can't list a map whose keys are told by jhash.
        return f"typeof numgen random mod {count} : {self.family} daddr"

    @property
    def _key(self) -> str:
        if self.affinity is Affinity.CLIENT:
            return affinity.key(self.family)
        return f"numgen random mod {len(self.members)}"

    @property
    def _places(self) -> Sequence[str]:
        return affinity.owners(self.members) if self.affinity is Affinity.CLIENT else self.members


@dataclass(frozen=True)
class LoadedMaps:
    """The maps that are in the kernel's table: those that rules lead to, and those of the rules before."""

    present: frozenset[MemberMap] = frozenset()
    former: frozenset[MemberMap] = frozenset()

    def after(self, wanted: Collection[MemberMap]) -> LoadedMaps:
        """When rules for ``wanted`` were exchanged for the present ones."""
        return LoadedMaps(frozenset(wanted), self.present - {*wanted})

    def added(self, wanted: Collection[MemberMap]) -> list[MemberMap]:
        """The maps to define before rules for ``wanted``."""
        return [each for each in wanted if each not in self.present and each not in self.former]

    def removed(self, wanted: Collection[MemberMap]) -> list[MemberMap]:
        """The maps to remove with that exchange."""
        return [each for each in self.former if each not in wanted]
