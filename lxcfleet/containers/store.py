"""Specs on disk: the one record that everything else follows from.

``lxcfleet.yaml`` is written once, whole, and read strictly. One that can't be read makes its container broken
and no other.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path
from typing import TypeVar

from lxcfleet.containers.desired import Intent
from lxcfleet.errors import Broken, InvalidInput
from lxcfleet.paths import Paths
from lxcfleet.spec import health, strict_yaml
from lxcfleet.spec.addresses import is_hardware
from lxcfleet.spec.names import MAX_DRAIN, check_label, check_name, check_variable
from lxcfleet.spec.ports import check_ports, check_publications, parse_port, parse_publication
from lxcfleet.spec.reader import Fields
from lxcfleet.spec.spec import Spec
from lxcfleet.spec.terms import MAX_CPUS, MAX_ORDER, MAX_PIDS, PIDS, Init, Network

log = logging.getLogger(__name__)

_VERSION = 1


def render(spec: Spec) -> str:
    """The text of ``lxcfleet.yaml``."""
    values = {
        "version": _VERSION,
        "init": str(spec.init),
        "command": list(spec.command),
        "environment": dict(spec.environment),
        "labels": dict(spec.labels),
        "profile": spec.profile,
        "first_id": spec.first_id,
        "network": str(spec.network),
        "address": None if spec.address is None else str(spec.address),
        "address6": None if spec.address6 is None else str(spec.address6),
        "hardware": spec.hardware,
        "ports": [str(port) for port in spec.ports],
        "publish": [str(publication) for publication in spec.publish],
        "isolated": spec.isolated,
        "drain": spec.drain,
        "health": None if spec.health is None else spec.health.to_json(),
        "memory": spec.memory,
        "cpus": spec.cpus,
        "disk": spec.disk,
        "pids": spec.pids,
        "no_new_privs": spec.no_new_privs,
        "autostart": spec.autostart,
        "boot_order": spec.boot_order,
        "created": spec.created,
    }
    lines = [f"{key}: {strict_yaml.inline(value)}" for key, value in values.items()]
    return "\n".join(["# What was asked for when lxcfleet created this container.", *lines, ""])


def parse(name: str, text: bytes, where: str) -> Spec:
    """The spec of the container ``name``; raises Broken with everything that is wrong with ``text``."""
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
    spec = Spec(
        name=name,
        init=fields.choice("init", Init, Init.SYSTEM),
        command=fields.texts("command"),
        environment=fields.pairs("environment", check_variable),
        labels=fields.pairs("labels", check_label),
        profile=fields.optional_text("profile"),
        first_id=fields.integer("first_id", 0, 65536, 2**32 - 65537) if fields.has("first_id") else None,
        network=fields.choice("network", Network, Network.NONE),
        address=_interface(fields, "address", IPv4Interface),
        address6=_interface(fields, "address6", IPv6Interface),
        hardware=fields.optional_text("hardware"),
        ports=fields.parsed("ports", parse_port, check_ports),
        publish=fields.parsed("publish", parse_publication, check_publications),
        isolated=fields.flag("isolated"),
        drain=fields.number("drain", 0, 0, MAX_DRAIN) if fields.has("drain") else None,
        health=health.read(fields),
        autostart=fields.flag("autostart", True),
        boot_order=fields.integer("boot_order", 0, -MAX_ORDER, MAX_ORDER),
        created=fields.text("created"),
        memory=fields.size("memory", 0),
        cpus=fields.number("cpus", 0, 0, MAX_CPUS),
        disk=fields.size("disk", 0),
        pids=fields.integer("pids", PIDS, 0, MAX_PIDS),
        no_new_privs=fields.flag("no_new_privs"),
    )
    if not spec.created:
        fields.complain("created", "is missing; the file may have been cut off")
    if spec.connected != (spec.address is not None or spec.hardware is not None):
        fields.complain("address", "a container on the bridge has one, or a MAC address (hardware); others have none")
    if spec.hardware is not None and (spec.address is not None or not is_hardware(spec.hardware)):
        fields.complain("hardware", "is to be a MAC address, and instead of an address")
    if (spec.init is Init.APP) != bool(spec.command):
        fields.complain("command", "an app container has one, a system container has none")
    if spec.disk and spec.privileged:
        fields.complain("disk", "a privileged container could raise its limit, so it has none")
    fields.finish("")
    return spec


_Interface = TypeVar("_Interface", IPv4Interface, IPv6Interface)


def _interface(fields: Fields, key: str, kind: type[_Interface]) -> _Interface | None:
    text = fields.optional_text(key)
    try:
        return None if text is None else kind(text)
    except ValueError as error:
        fields.complain(key, str(error))
        return None


@dataclass(frozen=True)
class Leftovers:
    """What a crash may have left beside the containers: names that were being made, and being removed."""

    new: tuple[str, ...]
    gone: tuple[str, ...]


def load_all(paths: Paths) -> tuple[dict[str, Spec | Broken], Leftovers]:
    """Every container of ours below LXC's path by name, and leftovers. Containers of others are passed over, and so is
    what somebody put beside ours under a name that none can have, such as a copy NAME.bak."""
    specs: dict[str, Spec | Broken] = {}
    new: list[str] = []
    gone: list[str] = []
    if not paths.lxc.is_dir():
        return specs, Leftovers((), ())
    for directory in sorted(paths.lxc.iterdir()):
        if directory.name.startswith(Paths.NEW_PREFIX):
            new.append(directory.name)
        elif directory.name.startswith(Paths.GONE_PREFIX):
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
    """The spec of ``name``; Broken if it can't be used; None if this is no container of ours."""
    file = paths.container(name).spec
    try:
        return parse(name, file.read_bytes(), str(file))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return Broken(f"{name} is broken: its spec can't be read", why=f"{file}: {error.strerror}")
    except Broken as error:
        return error


def noted(paths: Paths, name: str) -> Intent | None:
    """What is to become of the container, as its file ``pending`` says; None: nothing else than it is."""
    try:
        return Intent.read(paths.container(name).pending.read_text(encoding="ascii", errors="replace"))
    except OSError:
        return None


def config(paths: Paths, name: str) -> str:
    """The LXC configuration of any container; empty if it can't be read."""
    try:
        return paths.container(name).config.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def foreign_configs(paths: Paths, ours: set[str]) -> list[str]:
    """LXC configurations of all but ``ours``, whose id ranges must be left alone."""
    names = (file.parent.name for file in paths.lxc.glob("*/config"))
    return [config(paths, name) for name in names if name not in ours and not name.startswith(".")]


def directory_of(paths: Paths, name: str) -> Path:
    """Where the container lives."""
    return paths.container(name).directory
