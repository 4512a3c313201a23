"""The packages behind a halt: those that changed since a container was last well, and the way back. Pure.

The packages at the last good start have to be noted before the restart, as the next start replaces the container's record
of it. So the driver keeps them in a file of their own, by the name of the base's snapshot.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from lxcfleet.containers.ends.endings import RUNS
from lxcfleet.patch.rollout.state import Halt, Rollout
from lxcfleet.spec.reading import ondisk
from lxcfleet.units import some

MOST = 20
"""The most packages in one command line."""
_LONGEST = 16384
"""The most characters of one variable of the environment."""

Versions = Mapping[str, str]
"""Versions of packages, by NAME:ARCHITECTURE."""


def changes(before: Versions, now: Versions) -> dict[str, list[str]]:
    """For each package that differs, its version then and now. An empty version: it is not installed.

    The architecture is part of the name only if there are several packages of the same name.
    """
    differ = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    names = [name.partition(":")[0] for name in differ]
    short = {name: base if names.count(base) == 1 else name for name, base in zip(differ, names, strict=True)}
    return {short[name]: [before.get(name, ""), now.get(name, "")] for name in differ}


def cure(packages: Mapping[str, list[str]]) -> list[str]:
    """Commands that restore the former versions on the host; none if nothing changed."""
    back = [name for name, (before, _) in packages.items() if before][:MOST]
    commands = []
    if back:
        wanted = " ".join(f"{name}={packages[name][0]}" for name in back)
        commands.append(f"apt install {wanted} && apt-mark hold {' '.join(back)}")
    elif new := [name for name, (before, now) in packages.items() if now and not before][:MOST]:
        commands.append(f"apt remove {' '.join(new)}")
    return commands


def in_words(halt: Halt) -> str:
    """The end of process 1, and the changes, in words, for an event; empty if neither is known."""
    ended = f"; process 1: {halt.ended}" if halt.ended and halt.ended != RUNS else ""
    if halt.packages is None:
        return ended
    said = [f"{name} {before or 'new'} -> {now or 'removed'}" for name, (before, now) in halt.packages.items()]
    return f"{ended}; packages that changed since it was well: {some(said, MOST) or 'none'}"


def environment(rollout: Rollout, halt: Halt) -> dict[str, str]:
    """The facts for a command that is run when a rollout halts."""
    packages = halt.packages or {}
    facts = {
        "ROLLOUT": rollout.id,
        "CONTAINER": halt.container or "",
        "WHY": halt.why,
        "LOG": halt.log,
        "EXIT_STATUS": "" if halt.exit_status is None else str(halt.exit_status),
        "ENDED": halt.ended,
        "PACKAGES": "\n".join(" ".join((name, *(version or "-" for version in both))) for name, both in packages.items()),
        "COMMANDS": "\n".join(cure(packages)),
    }
    return {f"LXCFLEET_{key}": value.replace("\0", "")[:_LONGEST] for key, value in facts.items()}


def text_of(versions: Mapping[str, Versions]) -> str:
    """The file's text, which has the versions for these bases."""
    return json.dumps({base: dict(each) for base, each in versions.items()})


def recall(text: str, base: str) -> dict[str, str] | None:
    """The versions for ``base``; None if they are not known."""
    return read(text).get(base)


def read(text: str) -> dict[str, dict[str, str]]:
    """The versions in the file's text, by base."""
    try:
        data = ondisk.parse(text)
    except ValueError:
        return {}
    return {base: each for base, each in data.items() if isinstance(each, dict)} if isinstance(data, dict) else {}
