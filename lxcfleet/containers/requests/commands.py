"""Whether a command can be run in a clone of this host."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from lxcfleet.base.mask import build
from lxcfleet.containers.masks import MaskKeeper
from lxcfleet.containers.requests import request
from lxcfleet.errors import InvalidInput, NoProgram
from lxcfleet.paths import Paths
from lxcfleet.spec.container.apps import AppUse, Form
from lxcfleet.spec.container.spec import Spec


async def check_command(paths: Paths, mask: MaskKeeper, spec: Spec) -> None:
    """Raise InvalidInput unless the command of an app container is a program that its clone has."""
    await mask.refresh()
    there: list[str] = []

    def runnable(path: str) -> bool:
        if spec.app is not None and (inside := spec.app.inside(path)) is not None:
            if _in_app(paths, spec.app, inside):
                return True
            if spec.app.form is Form.MOUNT:
                return False
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


def check_user(spec: Spec, etc: Path = Path("/etc")) -> None:
    """Raise InvalidInput unless a new container has the user that its command is to run as. It has the host's accounts,
    unless an app layer brings others."""
    if spec.user is None or (spec.app is not None and spec.app.form is Form.LAYER):
        return
    user, _, group = spec.user.partition(":")
    for what, name, file in (("user", user, "passwd"), ("group", group, "group")):
        if name and not name.isdigit() and name not in _names(etc / file):
            raise InvalidInput(
                f"its command can't run as {spec.user}", why=f"the host has no {what} {name}, and so no new container has",
                hint=f"make a system account of the host for it (adduser --system {name}), write it as UID:GID, or create"
                " with --no-start and add it in the container",
            )  # fmt: skip


def _names(file: Path) -> set[str]:
    try:
        lines = file.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return set()
    return {line.partition(":")[0] for line in lines}


def _in_app(paths: Paths, app: AppUse, path: str) -> bool:
    """Whether a release has a program at its ``path``. A link may lead anywhere in the container, so it counts as one."""
    tree = paths.release(app.name, app.version).tree
    try:
        found = os.lstat(tree / path)
    except OSError:
        return False
    return stat.S_ISLNK(found.st_mode) or (stat.S_ISREG(found.st_mode) and found.st_mode & 0o111 != 0)
