"""list and info."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import click

from lxcfleet.api.records import ContainerDetails, ContainerRecord
from lxcfleet.cli import complete, options
from lxcfleet.cli.session import connect
from lxcfleet.cli.ui import output
from lxcfleet.spec.names import check_name

_FIELDS = (
    "name", "state", "health", "init", "privileged", "network", "addresses", "ports", "publish", "isolated", "labels",
    "command", "profile", "pid", "created", "busy", "problem", "restart_needed",
)  # fmt: skip

_OF_SPEC = frozenset((
    "init", "command", "labels", "profile", "privileged", "network", "ports", "isolated", "publish", "created",
    "first_id", "hardware", "environment", "memory_limit_bytes", "cpus_limit", "disk_limit_bytes", "processes_limit",
    "autostart", "boot_order", "check",
))  # fmt: skip
"""Fields that are unknown for a container whose spec can't be read."""

_TOLD = _OF_SPEC | {"address", "address6", "health", "memory", "cpus", "disk", "pids", "no_new_privs"}
"""Fields of a spec that ``info`` shows under other names. It shows all other fields, also future ones, as they are."""

_WORDS = {
    "boot_order": "boot order", "restart_needed": "restart needed",
    "delta_bytes": "delta", "memory_bytes": "memory", "cpu_seconds": "cpu", "first_id": "uids and gids",
    "hardware": "mac address",
    "health_reason": "reason", "memory_limit_bytes": "memory limit", "cpus_limit": "cpu limit",
    "processes_limit": "process limit", "disk_limit_bytes": "disk limit",
}  # fmt: skip


@click.command("list")
@options.selected
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(options.STATES),
    help="Only those in this state; may be repeated.",
)
@options.formatted
@options.quiet("Print only names.")
@click.pass_context
def list_(
    ctx: click.Context,
    *,
    patterns: tuple[str, ...],
    labels: tuple[str, ...],
    everything: bool,
    states: tuple[str, ...],
    style: str,
    quiet: bool,
) -> None:
    """Show containers (also: ls): all, or those chosen.

    HEALTH is starting, healthy or unhealthy. KIND says what runs as process 1, and `privileged` where root inside
    is root on the host.

    \b
    Examples:
      lxcfleet list
      lxcfleet list 'web*' --state stopped
      lxcfleet list -q -l tier=front
      lxcfleet list -f json | jq -r '.[] | select(.privileged) | .name'
    """
    containers = connect(ctx).containers(options.optional_selection(patterns, labels, everything))
    if states:
        containers = [container for container in containers if container["state"] in states]
    if quiet:
        output.write("".join(f"{container['name']}\n" for container in containers))
        return
    output.show(
        style,
        containers,
        lines=lambda: output.columns(_table(containers), output.terminal_width()) if containers else [],
        rows=lambda: [_FIELDS, *([_text(container, name) for name in _FIELDS] for container in containers)],
    )
    if style == "table" and not containers:
        chosen = bool(patterns or labels or states)
        output.say(output.NOT_CHOSEN if chosen else "lxcfleet: no containers")


_COLUMNS = ("NAME", "STATE", "HEALTH", "KIND", "ADDRESSES", "PUBLISHED", "LABELS", "COMMAND")


def _table(containers: Sequence[ContainerRecord]) -> list[tuple[str, ...]]:
    """The table of containers. The column PUBLISHED is there only if a container publishes ports."""
    published = _COLUMNS.index("PUBLISHED")
    rows = [_COLUMNS, *map(_row, containers)]
    return rows if any(row[published] for row in rows[1:]) else [row[:published] + row[published + 1 :] for row in rows]


def _row(container: ContainerRecord) -> tuple[str, ...]:
    kind = container["init"] + (",privileged" if container["privileged"] else "")
    problem = container["problem"]
    last = f"! {problem.splitlines()[0]}" if problem else shlex.join(container["command"])
    addresses, labels = _text(container, "addresses"), _text(container, "labels")
    published = ",".join(each.replace(":", "->", 1) if each.count(":") == 1 else each for each in container["publish"])
    return container["name"], container["state"], container["health"] or "", kind, addresses, published, labels, last


def _text(container: Mapping[str, Any], field: str) -> str:
    """A field as one text; empty if the field has no value."""
    value = container[field]
    if field == "command":
        return shlex.join(value)
    if isinstance(value, Mapping):
        return ",".join(f"{key}={inner}" for key, inner in value.items())
    if isinstance(value, list):
        return ",".join(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return "" if value is None else str(value)


@click.command()
@click.argument("name", shell_complete=complete.names)
@options.formatted
@click.pass_context
def info(ctx: click.Context, name: str, style: str) -> None:
    """Show all about one container.

    \b
    Examples:
      lxcfleet info web1
      lxcfleet info web1 -f json | jq .pid
    """
    details = connect(ctx).info(check_name(name))
    fields = tuple(field for field in details if field != "spec")
    output.show(
        style,
        details,
        lines=lambda: output.columns(_lines(details)),
        rows=lambda: [fields, [_text(details, field) for field in fields]],
    )


def _lines(details: ContainerDetails) -> list[tuple[str, str]]:
    first = details["first_id"]
    ids = "the host's own: root inside is root outside" if first is None else f"{first} to {first + 65535}"
    cpu = details["cpu_seconds"]
    cpus, memory, processes = details["cpus_limit"], details["memory_limit_bytes"], details["processes_limit"]
    disk = details["disk_limit_bytes"]
    texts = {
        "delta_bytes": output.size(details["delta_bytes"]),
        "memory_bytes": output.size(details["memory_bytes"]),
        "first_id": ids,
        "cpu_seconds": "" if cpu is None else f"{cpu:.2f} s",
        "privileged": "PRIVILEGED" if details["privileged"] else "no",
        "isolated": "yes" if details["isolated"] else "no",
        "memory_limit_bytes": "none" if memory is None else output.size(memory),
        "disk_limit_bytes": "none" if disk is None else output.size(disk),
        "cpus_limit": "none" if cpus is None else f"{cpus:g} processors",
        "processes_limit": "none" if processes is None else str(processes),
        "autostart": "yes" if details["autostart"] else "no",
        "environment": shlex.join(f"{key}={value}" for key, value in details["environment"].items()),
        "check": " ".join(f"{key}={_setting(value)}" for key, value in (details["check"] or {}).items()),
    }
    left_out = {"confinement", "spec", *(_OF_SPEC if details["problem"] else ())}
    plain = [field for field in details if field not in left_out]
    lines = [(f"{_WORDS.get(field, field)}:", texts.get(field, _text(details, field))) for field in plain]
    more = [(f"{key.replace('_', ' ')}:", _text(details["spec"], key)) for key in details["spec"] if key not in _TOLD]
    return [*lines, *more, *((f"{what}:", how) for what, how in details["confinement"].items())]


def _setting(value: object) -> str:
    """A value of a health check in the form in which it is typed."""
    if isinstance(value, list):
        return shlex.quote(value[-1] if value[:2] == ["/bin/sh", "-c"] else shlex.join(value))
    return f"{value:g}" if isinstance(value, float) else str(value)


VERBS = {"list": list_, "info": info}
