"""Turns the user's request into specs: names, profile, kind of init, command. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from lxcfleet.api.requests import CreateRequest
from lxcfleet.containers.lxc_config import APP_PATH
from lxcfleet.errors import AlreadyExists, InvalidInput, NoProgram
from lxcfleet.spec.container.merging import left_to_settings, merge
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.files.profiles import Profile
from lxcfleet.spec.files.settings import Config
from lxcfleet.spec.reading.names import check_count, check_name, first, next_free

PREFIX = "c"
"""Containers without a requested name are c1, c2, …"""


@dataclass(frozen=True)
class WantedContainers:
    """The outcome of a create request: names to make, existing names, and the spec that all of them share."""

    new: tuple[str, ...]
    present: tuple[str, ...]
    like: Spec
    """The spec of all of them, without name, ids and time."""
    left: frozenset[str] = frozenset()
    """Keys of it that neither the request nor its profile sets: they come from the present settings."""


def resolve(request: CreateRequest, config: Config, taken: Collection[str]) -> WantedContainers:
    """The names and the spec that ``request`` asks for; raises InvalidInput, AlreadyExists."""
    names = _names(request, taken)
    present = tuple(name for name in names if name in taken)
    if present and not request.ensure:
        raise AlreadyExists(
            f"a container named {present[0]} exists already",
            hint="choose another name, or use --ensure if it only has to be there",
        )
    new = tuple(name for name in names if name not in present)
    profile = _profile(request, config)
    like = merge(request.said, profile.said, config)
    if like.static_addresses and len(names) > 1:
        raise InvalidInput(
            f"{len(names)} containers can't all have {like.static_addresses[0]}",
            hint="create one by one those that are to have addresses of your choice, or none: lxcfleet gives each its own",
        )
    return WantedContainers(new, present, like, left_to_settings(request.said, profile.said))


def _names(request: CreateRequest, taken: Collection[str]) -> tuple[str, ...]:
    if request.count is None and request.name is not None:
        return (check_name(request.name),)
    count = check_count(request.count if request.count is not None else 1)
    prefix = request.name if request.name is not None else PREFIX
    return first(prefix, count) if request.ensure else next_free(prefix, count, taken)


def _profile(request: CreateRequest, config: Config) -> Profile:
    name = request.said.get("profile")
    if name is None:
        return Profile()
    try:
        return config.profiles[name]
    except KeyError:
        known = ", ".join(sorted(config.profiles)) or "none"
        raise InvalidInput(
            f"there is no profile {name!r}",
            why=f"profiles that lxcfleetd has read: {known}",
            hint="after a change of lxcfleet.yaml: lxcfleet config check && systemctl reload lxcfleet",
        ) from None


def units_of(request: CreateRequest, config: Config) -> tuple[str, ...]:
    """The host's services that new containers of this request run. Raises InvalidInput."""
    units: tuple[str, ...] = {**_profile(request, config).said, **request.said}.get("units", ())
    return units


def find_command(command: str, environment: Mapping[str, str], runnable: Callable[[str], bool]) -> None:
    """Raise InvalidInput unless ``command`` is a program in a new clone; ``runnable`` tells whether a path there is one."""
    if "/" in command:
        if not command.startswith("/"):
            raise InvalidInput(f"{command!r} is a relative path", hint="give the command by name or by absolute path")
        places = [command]
    else:
        places = [f"{directory}/{command}" for directory in environment.get("PATH", APP_PATH).split(":")]
    if not any(runnable(place) for place in places):
        raise NoProgram(
            f"the command {command!r} can't be run in a clone of this host",
            why="it is not installed on the host, no program, or the mask hides it (below /home, /root, /srv, …)",
            hint="install it on the host, or show its directory by a rule in /etc/lxcfleet/mask.d",
        )
