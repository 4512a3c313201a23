"""From what the user asked for to specs: names, profile, kind of init, command. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from lxcfleet.api.requests import CreateRequest
from lxcfleet.containers.lxc_config import APP_PATH
from lxcfleet.errors import AlreadyExists, InvalidInput
from lxcfleet.spec.health import HealthCheck
from lxcfleet.spec.names import check_count, check_name, first, next_free
from lxcfleet.spec.settings import Config, Profile
from lxcfleet.spec.spec import Spec
from lxcfleet.spec.terms import Init, Network
from lxcfleet.units import as_size

PREFIX = "c"
"""Containers for which no name is given are c1, c2, …"""


@dataclass(frozen=True)
class Wanted:
    """What a create request comes to: names to make, names that are there already, and what all are like."""

    new: tuple[str, ...]
    present: tuple[str, ...]
    like: Spec
    """The spec of all of them but for name, ids and time."""
    left: frozenset[str] = frozenset()
    """What neither the request nor its profile said of that: it is as the settings are now."""


def resolve(request: CreateRequest, config: Config, taken: Collection[str]) -> Wanted:
    """What ``request`` asks for; raises InvalidInput, AlreadyExists."""
    names = _names(request, taken)
    present = tuple(name for name in names if name in taken)
    if present and not request.ensure:
        raise AlreadyExists(
            f"a container named {present[0]} exists already",
            hint="choose another name, or use --ensure if it only has to be there",
        )
    new = tuple(name for name in names if name not in present)
    profile = _profile(request, config)
    left = {key for key in _BY_SETTINGS if getattr(request, key) is None and getattr(profile, key) is None}
    return Wanted(new, present, _like(request, profile, config), frozenset(left))


_BY_SETTINGS = ("memory", "cpus", "disk", "pids", "network", "drain")
_ASKED = (
    "init", "command", "environment", "labels", "profile", "privileged", "network", "ports", "publish", "isolated",
    "drain", "health", "memory", "cpus", "disk", "pids", "no_new_privs", "autostart", "boot_order",
)  # fmt: skip


def differences(spec: Spec, wanted: Wanted) -> dict[str, tuple[str, str]]:
    """In what ``spec`` is not as it would be if it were made now: what it has and what is wanted, in words, by key.

    Of variables only the names: their values may be secrets, and this ends in logs.
    """
    found: dict[str, tuple[str, str]] = {}
    for key in _ASKED:
        has, asked = getattr(spec, key), getattr(wanted.like, key)
        if key in wanted.left or has == asked:
            continue
        if isinstance(has, Mapping) and isinstance(asked, Mapping):
            told = "{}=…" if key == "environment" else "{}={}"
            found[key] = (_items(told, has, asked), _items(told, asked, has))
        else:
            found[key] = (_told(key, has), _told(key, asked))
    return found


def _items(told: str, values: Mapping[str, object], others: Mapping[str, object]) -> str:
    """The items that ``others`` has not."""
    some = (told.format(*item) for item in sorted(values.items()) if item not in others.items())
    return ", ".join(some) or "none"


def _told(key: str, value: Any) -> str:
    """A part of a spec, much as ``create`` takes it."""
    if key == "command":
        return shlex.join(value)
    if key in ("memory", "disk"):
        return as_size(value)
    if isinstance(value, HealthCheck):
        return _items("{}={}", value.to_json(), {})
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _names(request: CreateRequest, taken: Collection[str]) -> tuple[str, ...]:
    if request.count is None and request.name is not None:
        return (check_name(request.name),)
    count = check_count(request.count if request.count is not None else 1)
    prefix = request.name if request.name is not None else PREFIX
    return first(prefix, count) if request.ensure else next_free(prefix, count, taken)


def _profile(request: CreateRequest, config: Config) -> Profile:
    if request.profile is None:
        return Profile()
    try:
        return config.profiles[request.profile]
    except KeyError:
        known = ", ".join(sorted(config.profiles)) or "none"
        raise InvalidInput(
            f"there is no profile {request.profile!r}",
            why=f"profiles that lxcfleetd has read: {known}",
            hint="after a change of lxcfleet.yaml: lxcfleet config check && systemctl reload lxcfleet",
        ) from None


def _like(request: CreateRequest, profile: Profile, config: Config) -> Spec:
    command = request.command or profile.command
    init = request.init or (Init.APP if request.command else profile.init)
    if init is None:
        init = Init.APP if command else Init.SYSTEM
    if init is Init.SYSTEM and request.command:
        hint = "leave out --init or the command"
        raise InvalidInput("a system container runs systemd and takes no command", hint=hint)
    if init is Init.APP and not command:
        raise InvalidInput("an app container needs a command", hint="give it after --, for example: -- sleep infinity")
    if init is Init.SYSTEM and request.no_new_privs:
        hint = "systemd's services use sudo and its like; leave it out, or run a single command"
        raise InvalidInput("no-new-privs is for app containers", hint=hint)
    if init is Init.SYSTEM and request.environment:
        hint = "write it to a unit's Environment= inside, or give a command after --"
        raise InvalidInput("environment variables are for app containers", why="systemd hands none on", hint=hint)
    if command and "=" in command[0]:
        raise InvalidInput(f"{command[0]!r} can't be a command", why="env would take it for a variable")
    network = request.network or profile.network or config.network.default
    health = request.health or profile.health
    if health is not None and health.needs_address and network is not Network.BRIDGE:
        raise InvalidInput(
            f"the check {health} needs a network of its own", why=f"the container would have none with --network {network}",
            hint="leave out --network, or check it from inside with --health-exec",
        )  # fmt: skip
    environment = {**profile.environment, **request.environment} if init is Init.APP else {}
    for text in (*command, *environment, *environment.values(), *(health.command if health else ())):
        _check_encoding(text)
    if network is Network.HOST and init is Init.SYSTEM:
        raise InvalidInput(
            "a system container can't use the host's network", why="its systemd would take it for its own",
            hint="give a command after --, or leave out --network host",
        )  # fmt: skip
    if network is not Network.BRIDGE and (request.ports or request.publish):
        raise InvalidInput(
            f"a container with --network {network} has no ports of its own", hint="leave out the ports, or --network"
        )
    if network is Network.HOST and request.isolated:
        raise InvalidInput(
            "a container on the host's network can't be isolated", why="it has the host's own interfaces",
            hint="leave out --isolated or --network host",
        )  # fmt: skip
    privileged = request.privileged or profile.privileged
    if privileged and _first(request.disk, profile.disk, 0):
        raise InvalidInput(
            "a privileged container's disk space can't be limited", why="its root is the host's, and could raise the limit",
            hint="leave out --privileged or the limit",
        )  # fmt: skip
    return Spec(
        name="",
        init=init,
        command=command if init is Init.APP else (),
        environment=environment,
        labels={**profile.labels, **request.labels},
        profile=request.profile,
        ports=request.ports or profile.ports,
        isolated=request.isolated or profile.isolated,
        publish=request.publish or profile.publish,
        drain=profile.drain if request.drain is None else request.drain,
        network=network,
        health=health,
        autostart=profile.autostart if request.autostart is None else request.autostart,
        boot_order=profile.boot_order if request.boot_order is None else request.boot_order,
        first_id=None if privileged else 0,
        memory=_first(request.memory, profile.memory, config.memory),
        cpus=_first(request.cpus, profile.cpus, config.cpus),
        disk=0 if privileged else _first(request.disk, profile.disk, config.disk),
        pids=_first(request.pids, profile.pids, config.pids),
        no_new_privs=request.no_new_privs or (profile.no_new_privs and init is Init.APP),
    )


_Number = TypeVar("_Number", int, float)


def _first(asked: _Number | None, profile: _Number | None, default: _Number) -> _Number:
    return asked if asked is not None else profile if profile is not None else default


def _check_encoding(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidInput(f"{text!r} is not UTF-8") from None


def find_command(command: str, environment: Mapping[str, str], runnable: Callable[[str], bool]) -> None:
    """Raise InvalidInput unless ``command`` is a program in a new clone; ``runnable`` says so of a path there."""
    if "/" in command:
        if not command.startswith("/"):
            raise InvalidInput(f"{command!r} is a relative path", hint="give the command by name or by absolute path")
        places = [command]
    else:
        places = [f"{directory}/{command}" for directory in environment.get("PATH", APP_PATH).split(":")]
    if not any(runnable(place) for place in places):
        raise InvalidInput(
            f"the command {command!r} can't be run in a clone of this host",
            why="it is not installed on the host, no program, or the mask hides it (below /home, /root, /srv, …)",
            hint="install it on the host, or show its directory by a rule in /etc/lxcfleet/mask.d",
        )
