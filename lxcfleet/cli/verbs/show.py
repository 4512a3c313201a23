"""list and info."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from lxcfleet.cli import complete, options
from lxcfleet.cli.session import connect
from lxcfleet.cli.ui import output
from lxcfleet.spec.container.ports import gather_publications, parse_publication
from lxcfleet.spec.states import State

if TYPE_CHECKING:
    from lxcfleet.api.records import ContainerDetails, ContainerRecord

_FIELDS = (
    "name", "state", "health", "init", "privileged", "network", "addresses", "ports", "publish", "volumes", "app", "secrets",
    "isolated", "labels", "command", "profile", "pid", "created", "busy", "problem", "restart_needed", "exit", "blocked",
    "gave_up", "starts_in", "foreground", "start_error",
)  # fmt: skip

_OF_SPEC = frozenset((
    "init", "command", "labels", "profile", "privileged", "network", "ports", "isolated", "publish", "volumes", "app",
    "secrets", "created", "first_id", "hardware", "environment", "memory_limit_bytes", "cpus_limit", "disk_limit_bytes",
    "processes_limit", "autostart", "boot_order", "check",
))  # fmt: skip
"""Fields of the record that follow from the spec. ``info`` shows the spec itself instead."""

_SHOWN = frozenset(("name", "first_id", "address", "address6", "hardware", "environment"))
"""Keys of the spec that ``info`` shows in a form of its own, or with what there is."""

_LIMITS = {"memory": "memory limit", "cpus": "cpu limit", "disk": "disk limit", "pids": "process limit"}
"""Keys of the spec for which 0 means no limit, and their names in ``info``, where "memory" is what is in use."""

_NAMES = {**_LIMITS, "health": "check"}
"""Names in ``info`` of keys of the spec whose own name says something else there."""

_CONFINED = {"devices": "device nodes"}
"""Names in ``info`` of what confines a container, where the spec has a key of the same name."""

_WORDS = {
    "restart_needed": "restart needed", "delta_bytes": "delta", "memory_bytes": "memory", "memory_kills": "killed for memory",
    "last_memory_kill": "last kill", "cpu_seconds": "cpu",
    "throttled_seconds": "throttled", "pressure": "waited for",
    "health_reason": "reason", "exit": "last exit", "exit_lines": "last lines", "starts_in": "starts in",
    "gave_up": "gave up", "foreground": "run by", "start_error": "start failed",
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

    STATE says of one that ended by itself how, and when, of one in backoff when it is started again, and of one that
    is blocked by what.
    HEALTH is starting, healthy or unhealthy. KIND says what runs as process 1, `privileged` where root inside
    is root on the host, and `run` where `lxcfleet run` starts it and nobody else.

    \b
    Examples:
      lxcfleet list
      lxcfleet list 'web*' --state stopped
      lxcfleet list -q -l tier=front
      lxcfleet list -f json | jq -r '.[] | select(.privileged) | .name'
    """
    client = connect(ctx)
    containers = client.containers(options.optional_selection(patterns, labels, everything))
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
    if style == "table" and (drained := client.drain()) is not None:
        why = output.printable(f" ({drained['why']})" if drained["why"] else "")
        output.say(f"lxcfleet: this host is drained since {drained['since']}{why}: `lxcfleet drain --end` ends that")


_COLUMNS = ("NAME", "STATE", "HEALTH", "KIND", "ADDRESSES", "PUBLISHED", "LABELS", "COMMAND")


def _table(containers: Sequence[ContainerRecord]) -> list[tuple[str, ...]]:
    """The table of containers. The column PUBLISHED is there only if a container publishes ports."""
    published = _COLUMNS.index("PUBLISHED")
    rows = [_COLUMNS, *map(_row, containers)]
    return rows if any(row[published] for row in rows[1:]) else [row[:published] + row[published + 1 :] for row in rows]


def _row(container: ContainerRecord) -> tuple[str, ...]:
    words = {"privileged": container["privileged"], "run": container["foreground"]}
    kind = ",".join([container["init"], *(word for word, holds in words.items() if holds)])
    problem = container["problem"]
    last = f"! {problem.splitlines()[0]}" if problem else shlex.join(container["command"])
    addresses, labels = _text(container, "addresses"), _text(container, "labels")
    ports = gather_publications(map(parse_publication, container["publish"]))
    published = ",".join(each.replace(":", "->", 1) if each.count(":") == 1 else each for each in ports)
    return container["name"], _state(container), container["health"] or "", kind, addresses, published, labels, last


def _state(container: ContainerRecord) -> str:
    """The state, and for one that ended by itself how that was, and when."""
    state, ended, left = container["state"], container["exit"], container["starts_in"]
    if container["blocked"] is not None:
        return f"{state}: {container['blocked']}"
    failed = " · start failed" if container.get("start_error") else ""
    if left is not None or failed:
        return f"{state}{f' {output.duration(left)}' if left is not None else ''}{failed}"
    if ended is not None and state == State.STOPPED and not ended["asked"]:
        return f"{state}, status not known · {_when(ended)}"
    if ended is None or state not in (State.EXITED, State.FAILED):
        return state
    if ended["out_of_memory"]:
        gave_up = f"{State.FAILED}, " if container["gave_up"] else ""
        return f"{gave_up}killed for memory · {output.duration(ended['ago'])} ago"
    status = "?" if ended["status"] is None else ended["status"]
    return f"{State.FAILED if container['gave_up'] else State.EXITED} {status} · {output.duration(ended['ago'])} ago"


def _exit(ended: Mapping[str, Any] | None) -> str:
    """The end of the last run in one line."""
    if ended is None:
        return ""
    took = "" if ended["seconds"] is None else f", after {output.duration(ended['seconds'])}"
    asked = ", as somebody wanted" if ended["asked"] else ""
    return f"{ended['words']}{asked}{took}; {_when(ended)}, at {ended['at']}"


def _when(ended: Mapping[str, Any]) -> str:
    """When it ended; if nobody saw that, when it was noticed."""
    unseen = ended["status"] is None and ended["seconds"] is None
    return f"{'noticed ' if unseen else ''}{output.duration(ended['ago'])} ago"


def _text(container: Mapping[str, Any], field: str) -> str:
    """A field as one text; empty if the field has no value, or the daemon is of a former version that does not tell it."""
    value: Any = container.get(field)
    if field == "exit":
        return _exit(value)
    if field == "exit_lines":
        return "\n".join(value)
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
    details = connect(ctx).info(options.one_name(name))
    fields = tuple(field for field in details if field != "spec")
    output.show(
        style,
        details,
        lines=lambda: output.columns(_lines(details)),
        rows=lambda: [fields, [_text(details, field) for field in fields]],
    )


def _lines(details: ContainerDetails) -> list[tuple[str, str]]:
    cpu = details["cpu_seconds"]
    texts = {
        "delta_bytes": _size_of_delta(details),
        "memory_bytes": output.size(details["memory_bytes"]),
        "cpu_seconds": "" if cpu is None else f"{cpu:.2f} s",
        "throttled_seconds": "" if not details["throttled_seconds"] else f"{details['throttled_seconds']:.2f} s",
        "pressure": ", ".join(f"{what} {seconds:.2f} s" for what, seconds in details["pressure"].items()),
        "state": _state(details),
        "foreground": "lxcfleet run" if details["foreground"] else "",
        "gave_up": "yes" if details["gave_up"] else "no",
        "starts_in": "" if details["starts_in"] is None else output.duration(details["starts_in"]),
    }
    observed = [field for field in details if field not in {"confinement", "spec", *_OF_SPEC}]
    lines = []
    for field in observed:
        texts.setdefault(field, _text(details, field))
        first, *more = details["exit_lines"] or [""] if field == "exit_lines" else [texts[field]]
        lines += [(_WORDS.get(field, field), first), *(("", line) for line in more)]
    if details["spec"]:
        lines += _asked(details)
    lines += [(_CONFINED.get(name, name), text) for name, text in details["confinement"].items()]
    return [(f"{name}:" if name else "", text) for name, text in lines]


def _size_of_delta(details: ContainerDetails) -> str:
    size = details["delta_bytes"]
    if size is None:
        return f"not known: it could not be added up in time; `lxcfleet du {details['name']}` takes longer"
    return output.size(size)


def _asked(details: ContainerDetails) -> list[tuple[str, str]]:
    """The lines of the spec: its fields as the table tells them, and the values that follow from them."""
    # `list` has no need of the table.
    from lxcfleet.spec.container.fields import stored
    from lxcfleet.spec.reading.reader import Fields

    spec, first = details["spec"], details["first_id"]
    fields, rows = Fields(spec, "spec"), stored()
    lines = []
    for key in spec:
        if key in _SHOWN:
            continue
        if key not in rows:  # the daemon is newer than this program
            told = _text(spec, key)
        elif not fields.has(key):
            told = ""
        else:
            value = rows[key].read(fields)
            told = "none" if key in _LIMITS and not value else rows[key].tell(value)
        lines.append((_NAMES.get(key, key.replace("_", " ")), told))
    more = {
        "environment": shlex.join(f"{key}={value}" for key, value in details["environment"].items()),
        "privileged": "PRIVILEGED" if details["privileged"] else "no",
        "uids and gids": "the host's own: root inside is root outside" if first is None else f"{first} to {first + 65535}",
        "mac address": details["hardware"] or "",
    }
    return [*lines, *more.items()]


VERBS = {"list": list_, "info": info}
