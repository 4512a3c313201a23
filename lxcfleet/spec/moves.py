"""Moves of containers to another host: which side has the authority over a container, and what comes next. Pure.

Each side keeps a journal of the move beside the container. The side that sends it goes ``sending``, ``handed``, ``healthy``,
and then the container is gone there, or ``kept``. The side that takes it goes ``received``, ``granted``, ``healthy``, and
then forgets the move; or ``revoked``. Each step is on disk before anything follows from it, in this order:

    sending            it is stopped here and copied there
    sending, received  the whole copy is on the other side's disk
    handed,  received  from here on this side starts it no more. It runs nowhere
    handed,  granted   from here on the other side may start it
    handed,  healthy   it runs there, and was seen healthy
    healthy, healthy   this side knows that; it may remove its own delta

So a side has the authority by what its own journal says, and at no moment do both have it. Where a move is taken back, the
other side revokes first: a copy that never ran is removed, one that ran stays there, stopped for good.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from lxcfleet.errors import InvalidInput
from lxcfleet.spec.reading import ondisk

PROTOCOL = 2
"""Counts the forms of what two hosts say to each other. A host understands its own form, and all before it."""
HANDED_OVER = b"handed over\n"
"""The line that the sending daemon has the other host told, once it has noted that the container belongs there."""
MOST_HOST = 255
_ID = re.compile("[0-9a-f]{16}")
_HOST = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9._-]*@)?(?:[A-Za-z0-9][A-Za-z0-9._-]*|[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*)")


class MoveStep(StrEnum):
    """How far a side is."""

    SENDING = "sending"
    HANDED = "handed"
    HEALTHY = "healthy"
    KEPT = "kept"
    RECEIVED = "received"
    GRANTED = "granted"
    REVOKED = "revoked"


_SENDS = (MoveStep.SENDING, MoveStep.HANDED, MoveStep.HEALTHY, MoveStep.KEPT)
_TAKES = (MoveStep.RECEIVED, MoveStep.GRANTED, MoveStep.HEALTHY, MoveStep.REVOKED)


@dataclass(frozen=True)
class Journal:
    """One side's record of a move."""

    id: str
    away: bool
    """Whether the container leaves this side; otherwise it comes."""
    step: MoveStep
    host: str
    """The other side: how ssh reaches it, or the name that it gave itself."""
    since: str
    """When the move began, ISO 8601 in UTC."""
    ran: bool
    """Whether the container ran before, and is to run afterwards."""
    port: int = 0
    """Of ssh; 0: as its configuration says."""
    config: str = ""
    """The file of ssh's configuration; empty: the usual ones."""

    def render(self) -> str:
        """The text of the file."""
        return json.dumps(asdict(self)) + "\n"


def parse(text: str) -> Journal:
    """The journal that ``text`` is. Raises ValueError."""
    data: Any = ondisk.parse(text)
    try:
        own: dict[str, Any] = {**data, "step": MoveStep(data["step"])}
        found = Journal(**own)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{error} is missing or wrong") from error
    kinds = {"id": str, "away": bool, "host": str, "since": str, "ran": bool, "port": int, "config": str}
    if any(type(getattr(found, key)) is not kind for key, kind in kinds.items()):
        raise ValueError("a value is of another kind")
    if found.step not in (_SENDS if found.away else _TAKES):
        raise ValueError(f"no side is {found.step} there")
    return found


def check_id(text: str) -> str:
    """Return ``text`` if it may name a move. Raises InvalidInput."""
    if not _ID.fullmatch(text):
        raise InvalidInput(f"{text!r} names no move")
    return text


def check_host(text: str) -> str:
    """Return ``text`` if ssh may be given it as a host: a name or address, maybe with a user. Raises InvalidInput."""
    if len(text) > MOST_HOST or not _HOST.fullmatch(text):
        raise InvalidInput(
            f"{text[:MOST_HOST]!r} is not a host", why="it is to be [USER@]HOST, a name or an address",
            hint="a port goes to --port; all else into ssh's configuration, as a Host of its own",
        )  # fmt: skip
    return text


def has_authority(journal: Journal | None) -> bool:
    """Whether the container belongs to the side with this journal: it, and no other side, decides over it."""
    if journal is None:
        return True
    if journal.away:
        return journal.step is MoveStep.SENDING
    return journal.step in (MoveStep.GRANTED, MoveStep.HEALTHY)


def may_start(journal: Journal | None) -> bool:
    """Whether the container may start on the side with this journal. While it is copied, it must not."""
    return has_authority(journal) and not (journal is not None and journal.step is MoveStep.SENDING)


def may_be_destroyed(journal: Journal | None) -> bool:
    """Whether an operator may destroy it there: not what may be the only whole copy, for all that this side knows."""
    return journal is None or not journal.away or journal.step in (MoveStep.HEALTHY, MoveStep.KEPT)


def why_not(journal: Journal) -> str:
    """In a few words, why it does not start there."""
    if not journal.away:
        word = "comes" if journal.step is MoveStep.RECEIVED else "was taken back"
        return f"it {word} from {journal.host}" if word == "comes" else f"{journal.host} has taken it back"
    if journal.step is MoveStep.SENDING:
        return f"it is moved to {journal.host}"
    return f"it was {'handed' if journal.step is MoveStep.HANDED else 'moved'} to {journal.host}"


class Next(StrEnum):
    """The next thing to do in a move, told to the side that sends."""

    ANEW = "anew"
    """Begin it anew: all of it is here."""
    CLEAR = "clear"
    """First have the other side remove what a broken off move left there."""
    HAND = "hand"
    """Note here that it belongs to the other side."""
    GRANT = "grant"
    """Have the other side take it, start it, and say that it is healthy."""
    NOTE = "note"
    """Note here that the other side said so."""
    END = "end"
    """Remove it here, or keep it as a copy."""
    REVOKE = "revoke"
    """Have the other side give it up."""
    BACK = "back"
    """It belongs here again: start it."""
    DONE = "done"
    """Nothing is left to do here; the other side may forget the move."""
    LOST = "lost"
    """The other side has it no more, though it belongs there. An operator has to say what counts."""
    STAYS = "stays"
    """It can't be taken back, as it runs well on the other side."""


def onward(here: Journal | None, there: Journal | None, move: str) -> Next:
    """The next thing to do on the way to the other side. ``move``: the id; ``there``: of the other side's container of that
    name, None: it has none that came by a move."""
    if here is None:
        return Next.DONE if there is not None and there.id == move and has_authority(there) else Next.ANEW
    ours = there if there is not None and there.id == move and not there.away else None
    if here.step is MoveStep.KEPT:
        return Next.DONE
    if here.step is MoveStep.SENDING:
        return Next.HAND if ours is not None and ours.step is MoveStep.RECEIVED else Next.ANEW if ours is None else Next.CLEAR
    if ours is None:
        return Next.LOST
    if ours.step is MoveStep.REVOKED:
        return Next.BACK
    if here.step is MoveStep.HEALTHY:
        return Next.END if ours.step is MoveStep.HEALTHY else Next.GRANT
    return Next.NOTE if ours.step is MoveStep.HEALTHY else Next.GRANT


def after_failure(there: Journal | None, move: str, *, cut: bool) -> Next:
    """The next thing to do if the other side was to start what was handed over, and that failed. ``there``: its journal by
    then; ``cut``: the line was, or something else was at work on it: that tells nothing of the container itself."""
    ours = there if there is not None and there.id == move and not there.away else None
    if ours is None:
        return Next.LOST
    if ours.step is MoveStep.HEALTHY:
        return Next.NOTE
    return Next.GRANT if cut and ours.step is not MoveStep.REVOKED else Next.REVOKE


def backward(here: Journal | None, there: Journal | None, move: str) -> Next:
    """The next thing to do on the way back; see ``onward``."""
    if here is None:
        return Next.CLEAR if there is not None and there.id == move and there.step is MoveStep.RECEIVED else Next.DONE
    ours = there if there is not None and there.id == move and not there.away else None
    if here.step is MoveStep.KEPT:
        return Next.STAYS
    if ours is not None and here.step is MoveStep.SENDING:
        return Next.REVOKE if ours.step is not MoveStep.REVOKED else Next.BACK
    if ours is not None and ours.step is MoveStep.HEALTHY:
        return Next.STAYS
    return Next.BACK if ours is None or ours.step is MoveStep.REVOKED else Next.REVOKE
