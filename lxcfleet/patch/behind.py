"""What a container on a generation lacks of the host's patches, in words. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_NAMED = 5


def words(generation: int, held: str, names: Sequence[str]) -> str:
    """The reason why it is not proven: *on generation 41, held until 2027-01-31, 3 packages behind (libc6, openssl, …)*.

    ``held``: the hold, in words; empty: it is not held. ``names``: the packages of which the host has another version; none:
    it lacks nothing, and the reason is empty.
    """
    if not names:
        return ""
    many = f"{len(names)} package{'' if len(names) == 1 else 's'} behind"
    parts = [f"on generation {generation}", *([held] if held else []), f"{many} ({listed(names)})"]
    return ", ".join(parts)


def listed(names: Iterable[str]) -> str:
    """The packages, the first ones by name. What is known of one, such as what its patch closed, is to be added to its name
    here."""
    ordered = sorted(names)
    more = f" and {len(ordered) - _NAMED} more" if len(ordered) > _NAMED else ""
    return f"{', '.join(ordered[:_NAMED])}{more}"
