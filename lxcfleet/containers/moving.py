"""The journals of moves to and from other hosts, beside the containers that move; see spec.moves."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from lxcfleet.containers.desired import Lack
from lxcfleet.errors import HostError, WrongState
from lxcfleet.host.kernel import tree
from lxcfleet.paths import Paths
from lxcfleet.spec import moves
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.moves import Journal, MoveStep
from lxcfleet.spec.reading import ondisk

log = logging.getLogger(__name__)

_NOBODY = "0" * 16


def load(paths: Paths, name: str) -> Journal | None:
    """The journal of a container; None: it does not move.

    One that can't be read counts as that of a container which is elsewhere: better none that runs than two.
    """
    file = paths.container(name).move
    try:
        return moves.parse(ondisk.content(file, ondisk.SMALL).decode())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        log.error("%s can't be read, so %s counts as handed to another host: %s", file, name, error)
        return Journal(_NOBODY, True, MoveStep.HANDED, f"somewhere: {file} can't be read", "1970-01-01T00:00:00Z", ran=False)


def all_of(paths: Paths, names: Iterable[str]) -> dict[str, Journal]:
    """The journals of those that move, by name."""
    return {name: found for name in names if (found := load(paths, name)) is not None}


def note(paths: Paths, name: str, journal: Journal | None) -> None:
    """Note how far a move is, for good from the return on; None: it does not move any more. Raises HostError."""
    file = paths.container(name).move
    try:
        if journal is None:
            file.unlink(missing_ok=True)
            tree.sync_directory(file.parent)
        else:
            tree.write(file, journal.render(), sync=True)
    except OSError as error:
        raise HostError.from_os_error(f"{name}: how far its move is can't be noted", error, path=file) from error


def refuse_destroy(paths: Paths, name: str) -> None:
    """Raise WrongState if what is here may be the only whole copy of a container that moves."""
    journal = load(paths, name)
    if journal is not None and not moves.may_be_destroyed(journal):
        raise WrongState(
            f"{name} is not destroyed: {moves.why_not(journal)}",
            why="that host has not said yet that it runs there, so this may be the only copy",
            hint=f"end the move: lxcfleet move {name} --continue, or --abort",
        )


def refuse_start(paths: Paths, name: str) -> None:
    """Raise WrongState if a container must not start here, as it moves."""
    journal = load(paths, name)
    if journal is not None and not moves.may_start(journal):
        raise WrongState(f"{name} can't start: {moves.why_not(journal)}", hint="see `lxcfleet move --list`")


class AtHome:
    """A prerequisite of starts: the container belongs to this host, and is not on its way."""

    waived = False

    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    async def look(self, spec: Spec) -> None:
        """See Prerequisite. The journal is read in ``lack``."""

    def lack(self, spec: Spec) -> Lack | None:
        """See Prerequisite."""
        journal = load(self._paths, spec.name)
        return None if journal is None or moves.may_start(journal) else Lack(moves.why_not(journal))
