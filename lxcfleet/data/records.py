"""Records on disk: a small file in the directory of the volume, the snapshot or the release that it is about."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from lxcfleet.errors import Broken
from lxcfleet.host.kernel import tree
from lxcfleet.spec.reading import ondisk

log = logging.getLogger(__name__)

R = TypeVar("R")


def load(record: Path, what: str, parse: Callable[[bytes], R], most: int = ondisk.SMALL) -> R | Broken | None:
    """The content of a record; Broken if it can't be used; None if the directory in which it should be is not there.

    ``what``: what it is about, for complaints; ``parse``: raises Broken; ``most``: bytes that it may have.
    """
    try:
        return parse(ondisk.content(record, most))
    except FileNotFoundError:
        if not record.parent.is_dir():
            return None
        return Broken(f"{what} is broken: its record is gone", why=f"there is no {record}")
    except OSError as error:
        return Broken(f"{what} is broken: its record can't be read", why=f"{record}: {error.strerror}")
    except Broken as error:
        return error


def have_name_gone(directory: Path, what: str) -> None:
    """Have on disk that ``what`` has lost its name in a directory, or else tell in the log what a loss of power may do. The
    name is gone in any case, so whoever asked for that goes on."""
    try:
        tree.sync_directory(directory)
    except OSError as error:
        log.error("%s is removed, and may be there again after a loss of power: %s", what, error)
