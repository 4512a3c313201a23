"""Specs on disk: the one record from which everything else follows.

``lxcfleet.yaml`` is written once, whole, and read strictly. If it can't be read, its container is broken, and no other
container is.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from lxcfleet.containers.desired import Intent
from lxcfleet.errors import Broken, InvalidInput
from lxcfleet.host.process import proc
from lxcfleet.paths import Paths
from lxcfleet.spec.container import combinations
from lxcfleet.spec.container.fields import stored
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.reading import ondisk, strict_yaml
from lxcfleet.spec.reading.names import check_name
from lxcfleet.spec.reading.reader import Fields
from lxcfleet.spec.reading.rows import read_said

log = logging.getLogger(__name__)

_VERSION = 1


def render(spec: Spec) -> str:
    """The text of ``lxcfleet.yaml``."""
    values = {key: row.render(getattr(spec, key)) for key, row in stored().items()}
    lines = [f"{key}: {strict_yaml.inline(value)}" for key, value in {"version": _VERSION, **values}.items()]
    return "\n".join(["# What was asked for when lxcfleet created this container.", *lines, ""])


def parse(name: str, text: bytes, where: str) -> Spec:
    """The spec of the container ``name``; raises Broken with every mistake in ``text``."""
    try:
        return _parse(name, text, where)
    except (InvalidInput, ValueError) as error:
        why = error.why if isinstance(error, InvalidInput) else f"{where}: {error}"
        raise Broken(
            f"{name} is broken: its spec can't be used",
            why=why,
            hint=f"restore {where} from a backup, or remove the container: lxcfleet destroy {name}",
        ) from error


def _parse(name: str, text: bytes, where: str) -> Spec:
    fields = Fields(strict_yaml.load(text), where)
    if not fields.has("version"):
        fields.complain("version", "is missing; the file may have been cut off")
    fields.integer("version", _VERSION, _VERSION, _VERSION)
    spec = Spec(name=name, **read_said(stored().values(), fields))
    for key, problem in combinations.on_disk(spec):
        fields.complain(key, problem)
    fields.finish("")
    return combinations.as_it_is(spec)


@dataclass(frozen=True)
class Leftovers:
    """Leftovers of a crash beside the containers: names that were being made, and names that were being removed, or in which
    overlays were tried."""

    new: tuple[str, ...]
    gone: tuple[str, ...]


def load_all(paths: Paths) -> tuple[dict[str, Spec | Broken], Leftovers]:
    """Every container of ours below LXC's path by name, and leftovers. Containers of others are skipped, and so are
    directories under a name that no container can have, such as a copy NAME.bak."""
    specs: dict[str, Spec | Broken] = {}
    new: list[str] = []
    gone: list[str] = []
    if not paths.lxc.is_dir():
        return specs, Leftovers((), ())
    for directory in sorted(paths.lxc.iterdir()):
        if directory.name.startswith(Paths.NEW_PREFIX):
            new.append(directory.name)
        elif directory.name.startswith((Paths.GONE_PREFIX, Paths.PROBE_PREFIX)):
            gone.append(directory.name)
        else:
            spec = load(paths, directory.name)
            if spec is not None and _may_be_ours(directory):
                specs[directory.name] = spec
    return specs, Leftovers(tuple(new), tuple(gone))


def _may_be_ours(directory: Path) -> bool:
    try:
        check_name(directory.name)
    except InvalidInput as error:
        log.warning("%s has a spec and is left alone: %s", directory, str(error).replace("\n", "; "))
        return False
    return True


def load(paths: Paths, name: str) -> Spec | Broken | None:
    """The spec of ``name``; Broken if it can't be used; None if ``name`` is no container of ours."""
    file = paths.container(name).spec
    try:
        return parse(name, ondisk.content(file, ondisk.SMALL), str(file))
    except (FileNotFoundError, NotADirectoryError):
        if not os.path.islink(file):  # nor if the disk does not tell
            return None
        return Broken(f"{name} is broken: its spec can't be read", why=f"{file} is a link that leads nowhere")
    except OSError as error:
        return Broken(f"{name} is broken: its spec can't be read", why=f"{file}: {error.strerror}")
    except Broken as error:
        return error


def started(paths: Paths, name: str) -> Spec | None:
    """The spec of a container's run; None if it is the one on disk, as far as is known."""
    own = paths.container(name)
    try:
        text = ondisk.content(own.started, ondisk.SMALL)
        return None if text == ondisk.content(own.spec, ondisk.SMALL) else parse(name, text, str(own.started))
    except FileNotFoundError:
        return None  # a former version started the container
    except (OSError, Broken) as error:
        log.warning("%s: the spec that it was started with can't be read: %s", name, error)
        return None


def noted(paths: Paths, name: str) -> Intent | None:
    """The intent in the container's file ``pending``; None: there is none.

    An empty file is one that LXC's post-stop hook could not write to, as the disk was full: a reboot was asked for. If it was
    left by an earlier boot of the host, a power failure may have emptied it, and it says nothing.
    """
    pending = paths.container(name).pending
    try:
        text = ondisk.content(pending, ondisk.SMALL).decode("ascii", errors="replace")
        if not text and pending.stat().st_mtime > proc.as_time(0.0):
            return Intent.RUN
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        log.warning("%s can't be read: %s. What is to become of %s is not known", pending, error.strerror, name)
        return None
    return Intent.read(text)


def config(paths: Paths, name: str) -> str:
    """The LXC configuration of any container; empty if it can't be read."""
    try:
        return ondisk.text(paths.container(name).config, errors="replace", most=ondisk.SMALL)
    except OSError:
        return ""


def foreign_configs(paths: Paths, ours: set[str]) -> list[str]:
    """The LXC configurations of all containers but ``ours``: their id ranges must be left alone."""
    names = (file.parent.name for file in paths.lxc.glob("*/config"))
    return [config(paths, name) for name in names if name not in ours and not name.startswith(".")]


def directory_of(paths: Paths, name: str) -> Path:
    """The directory of the container."""
    return paths.container(name).directory
