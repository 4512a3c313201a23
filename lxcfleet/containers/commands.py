"""Whether a command can be run in a clone of this host."""

from __future__ import annotations

import os
import stat

from lxcfleet.base.mask import build
from lxcfleet.containers import request
from lxcfleet.containers.masks import MaskKeeper
from lxcfleet.errors import NoProgram
from lxcfleet.paths import Paths
from lxcfleet.spec.spec import Spec


async def check_command(paths: Paths, mask: MaskKeeper, spec: Spec) -> None:
    """Raise InvalidInput unless the command of an app container is a program that its clone has."""
    await mask.refresh()
    there: list[str] = []

    def runnable(path: str) -> bool:
        try:
            found = os.stat(path)
        except OSError:
            return False
        there.append(path)
        executable = stat.S_ISREG(found.st_mode) and found.st_mode & 0o111 != 0
        return executable and not build.hidden(paths, path)

    try:
        request.find_command(spec.command[0], spec.environment, runnable)
    except NoProgram as error:
        error.missing = not there
        raise
