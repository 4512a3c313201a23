"""Whether a command can be run in a clone of this host."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from lxcfleet.base.mask import build
from lxcfleet.containers.masks import MaskKeeper
from lxcfleet.containers.requests import request
from lxcfleet.errors import InvalidInput, NoProgram
from lxcfleet.host.kernel import tree
from lxcfleet.paths import Paths
from lxcfleet.spec.container.apps import AppForm, AppUse
from lxcfleet.spec.container.spec import Spec

_MOST = 1 << 20
"""Bytes of a container's list of accounts that is read."""


async def check_command(paths: Paths, mask: MaskKeeper, spec: Spec) -> None:
    """Raise InvalidInput unless the command of an app container is a program that its clone has."""
    await mask.refresh()
    there: list[str] = []

    def runnable(path: str) -> bool:
        if spec.app is not None and (inside := spec.app.inside(path)) is not None:
            if _in_app(paths, spec.app, inside):
                return True
            if spec.app.form is AppForm.MOUNT:
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


def check_user(spec: Spec, etc: Path = Path("/etc"), delta: Path | None = None) -> None:
    """Raise InvalidInput unless a container has the user that its command is to run as. It has the host's accounts, unless an
    app layer brings others. ``delta``: of one that exists, and may have accounts of its own."""
    if spec.user is None or (spec.app is not None and spec.app.form is AppForm.LAYER):
        return
    user, _, group = spec.user.partition(":")
    for what, name, file in (("user", user, "passwd"), ("group", group, "group")):
        if not name or name.isdigit() or name in _names(etc / file) or (delta is not None and _may_have(delta, file, name)):
            continue
        none = "and so no new container has" if delta is None else "nor has the container"
        first = "create with --no-start and add it in the container" if delta is None else "add it in the container first"
        raise InvalidInput(
            f"its command can't run as {spec.user}", why=f"the host has no {what} {name}, {none}",
            hint=f"make a system account of the host for it (adduser --system {name}), write it as UID:GID, or {first}",
        )  # fmt: skip


def _may_have(delta: Path, file: str, name: str) -> bool:
    """Whether a container's own list of accounts has the name, or can't be read."""
    try:
        found = tree.read_within(delta, f"etc/{file}", _MOST)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    if found is None:
        return os.path.lexists(delta / "etc" / file)
    return any(line.partition(b":")[0] == os.fsencode(name) for line in found[0].splitlines())


def _names(file: Path) -> set[str]:
    try:
        lines = file.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return set()
    return {line.partition(":")[0] for line in lines}


def _in_app(paths: Paths, app: AppUse, path: str) -> bool:
    """Whether a release has a program at its ``path``. A link may lead anywhere in the container, so it counts as one."""
    release = paths.release(app.name, app.version).tree
    try:
        found = os.lstat(release / path)
    except OSError:
        return False
    return stat.S_ISLNK(found.st_mode) or (stat.S_ISREG(found.st_mode) and found.st_mode & 0o111 != 0)
