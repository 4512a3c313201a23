"""The host's services that containers are to run: whether they can, and what may keep them from it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from lxcfleet.base.mask import build
from lxcfleet.base.services import layer
from lxcfleet.base.services.problems import problems
from lxcfleet.base.stack import Services
from lxcfleet.base.tree import Tree
from lxcfleet.capacity.needs import Finding
from lxcfleet.containers.container import Container
from lxcfleet.errors import HostError, InvalidInput
from lxcfleet.paths import Paths
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.files import mask_rules
from lxcfleet.spec.files.profiles import Profile
from lxcfleet.units import some

_ROOT = Path("/")
SHOWN = 3
"""A finding names at most so many containers."""
_HINT = "`lxcfleet shell NAME`, then `systemctl status UNIT`, shows how it is there"


async def check(spec: Spec) -> None:
    """Raise InvalidInput unless the host has all the services that a container is to run."""
    if spec.units:
        plan = await asyncio.to_thread(layer.plan, Tree(_ROOT), Services.of(spec))
        plan.check()


async def lost(containers: Iterable[Container]) -> dict[str, str]:
    """The containers that ask for services which the host does not have, as a package may be gone by now: why, by name. A
    frozen generation keeps what it has."""
    asked = {c.name: c.wanted.units for c in containers if c.wanted is not None and not c.wanted.generation}
    found = {}
    for units in {units for units in asked.values() if units}:
        plan = await asyncio.to_thread(layer.plan, Tree(_ROOT), Services(units))
        if plan.wrong:
            found[units] = "; ".join(error.message for error in plan.wrong.values())
    return {name: found[units] for name, units in asked.items() if units in found}


async def notes(paths: Paths, units: Sequence[str]) -> list[str]:
    """The problems that may keep these services from running, one line each."""
    return [each.message for each in await asyncio.to_thread(_look, paths, units) if each.level == "warning"]


async def findings(paths: Paths, asked: Mapping[str, Sequence[str]]) -> list[Finding]:
    """The problems of these services; ``asked``: who asks for them, and their names."""
    found = []
    for who, units in asked.items():
        for each in await asyncio.to_thread(_look, paths, units):
            told = f"{who}: {each.message}" if who else each.message
            found.append(Finding("units", each.level, told, hint=each.hint))
    return found


def all_asked(paths: Paths, containers: Iterable[Container], profiles: Mapping[str, Profile]) -> dict[str, Sequence[str]]:
    """All services that are asked for: by containers, profiles and the operator's rules for the mask."""
    by_units: dict[tuple[str, ...], list[str]] = {}
    for container in containers:
        if container.wanted is not None and container.wanted.units:
            by_units.setdefault(container.wanted.units, []).append(container.name)
    found: dict[str, Sequence[str]] = {some(names, SHOWN): units for units, names in by_units.items()}
    found |= {f"profile {name}": each.said["units"] for name, each in profiles.items() if each.said.get("units")}
    try:
        rules = mask_rules.load(paths.mask_rules)
    except InvalidInput:
        return found  # the mask itself is told to be wrong
    return found | ({str(paths.mask_rules): rules.units} if rules.units else {})


def _look(paths: Paths, units: Sequence[str]) -> list[Finding]:
    tree = Tree(_ROOT)
    plan = layer.plan(tree, Services(tuple(units)))
    wrong = [
        Finding("units", "fail", f"{error.message}{f': {error.why}' if error.why else ''}", hint=error.hint or "")
        for error in plan.wrong.values()
    ]
    found = problems(tree, plan, _hidden(paths))
    return [*wrong, *(Finding("units", "warning", f"{each.unit}: {each.text}", hint=_HINT) for each in found)]


def _hidden(paths: Paths) -> Callable[[str], bool]:
    """Whether a clone lacks a path, by the present mask. As long as there is none, nothing is known to be hidden."""

    def hidden(path: str) -> bool:
        try:
            return build.hidden(paths, path)
        except HostError:
            return False

    return hidden
