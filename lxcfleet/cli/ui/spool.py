"""Files without a name in the directory for temporary files: what goes to many containers, or comes from them, is kept here
meanwhile."""

from __future__ import annotations

import shutil
import sys
import tempfile
from typing import IO

from lxcfleet.errors import HostError

_PIECE = 1 << 20


def empty() -> IO[bytes]:
    """An empty one."""
    return tempfile.TemporaryFile(prefix="lxcfleet-")


def of_stdin() -> IO[bytes]:
    """One with all of our stdin. Raises HostError."""
    file = empty()
    try:
        if sys.stdin is not None:  # the caller closed it
            shutil.copyfileobj(sys.stdin.buffer, file, _PIECE)
        file.flush()
    except OSError as error:
        file.close()
        raise full(error) from error
    return file


def full(error: OSError) -> HostError:
    """The error for a file that can't be written."""
    where = tempfile.gettempdir()
    return HostError.from_os_error(
        "what is copied can't be kept meanwhile", error, path=where, hint="TMPDIR names another directory with more room"
    )
