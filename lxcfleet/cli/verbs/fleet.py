"""apply, diff, scale and fleet: the fleet as a file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import click

from lxcfleet.api.calls import MAX_BODY
from lxcfleet.api.disk import MOST_CHANGES, parse_path
from lxcfleet.api.fleets import (
    ApplyRecord,
    FleetRecord,
    FleetRequest,
    PlanRecord,
    RemoveFleetRequest,
    ScaleRequest,
)
from lxcfleet.cli import complete, options
from lxcfleet.cli.session import connect
from lxcfleet.cli.statuses import FOUND
from lxcfleet.cli.ui import follow, output, rolling
from lxcfleet.cli.verbs import disk
from lxcfleet.errors import HostError, InvalidInput, from_body
from lxcfleet.spec.files.fleet_sources import Sources, env_files
from lxcfleet.spec.reading.marked_yaml import MAX_BYTES
from lxcfleet.spec.reading.names import MAX_COUNT, check_name
from lxcfleet.units import as_size, counted, some

MAX_ENV_FILE = 64 * 1024
_FORMS = "`diff -f FILE` compares a fleet file, `diff NAME` a container's files"
_NOTHING = "nothing to do"
_ALL_AS_IT_IS = f"{_NOTHING}: all is as the file has it"
_NAMED = 5
_CHANGED = ("changes", "volumes", "secrets", "apps")
"""The keys of a plan with what it changes."""
"""How many containers with the same change are named in a line."""


def _file(function: options.F) -> options.F:
    text = "The fleet file; - is standard input."
    return click.option("-f", "--file", "file", required=True, metavar="FILE", type=click.Path(), help=text)(function)


def _formatted(function: options.F) -> options.F:
    text = "How to print; default: table."
    return click.option("--format", "style", type=click.Choice(output.FORMATS), default="table", help=text)(function)


def _chosen(function: options.F) -> options.F:
    """The options that decide what a plan has."""
    function = click.option(
        "--adopt", is_flag=True, help="Take over containers of these names that belong to no fleet."
    )(function)
    return click.option(
        "--prune", is_flag=False, flag_value="yes", default="no", type=click.Choice(["no", "yes", "all"]), metavar="[=all]",
        help="Destroy containers that the fleet owns, and the file does not have; =all: also more than half of them, or a"
        " whole group.",
    )(function)  # fmt: skip


@click.command()
@_file
@_chosen
@click.option("--dry-run", is_flag=True, help="Only say what would be done, as `diff` does.")
@click.option("--plan", metavar="ID", help="Do just what `diff` printed with this id, or fail with the code conflict.")
@rolling.policy_options
@_formatted
@options.quiet("Print only the names that changed.")
@click.pass_context
def apply(
    ctx: click.Context,
    /,
    *,
    file: str,
    prune: str,
    adopt: bool,
    dry_run: bool,
    plan: str | None,
    style: str,
    quiet: bool,
    **more: Any,
) -> int:
    """Have the containers of a fleet as its file says.

    Containers that are missing are created. Limits, labels, ports and checks change at once. What takes a restart is a
    rollout: in waves, gated by health; each container gets its new spec just before its turn, and a halt leaves the rest
    as it was. So do lower limits and other checks, without a restart, where containers have a check. What `set` and
    `scale` changed since the last apply stays, as long as the file's own value is the same as then. A group with a lower
    count has its last members stopped; nothing is destroyed without --prune.

    \b
    Examples:
      lxcfleet diff -f fleet.yaml && lxcfleet apply -f fleet.yaml
      lxcfleet apply -f fleet.yaml --plan 3f2a9c0b1d7e
      lxcfleet apply -f fleet.yaml --max-unavailable 1 --canaries 2
      lxcfleet apply -f fleet.yaml --prune
      lxcfleet apply -f fleet.yaml --dry-run --format json
    """
    request = _request(file, prune, adopt, plan, rolling.policy_of(more))
    if dry_run:
        plan_ = connect(ctx).fleet_plan(request)
        status = _show_plan(plan_, style, quiet)
        if plan_["refused"] is not None:
            raise from_body(plan_["refused"])
        return status
    client = connect(ctx)
    begun = client.fleet_apply(request)
    return _finish(ctx, begun, style=style, quiet=quiet, wait=not more.get("no_wait"))


@click.command(short_help="Show what `apply` would change, or a container has.")
@click.argument("name", required=False, shell_complete=complete.names)
@click.argument("path", required=False)
@click.option("-f", "--file", "file", metavar="FILE", type=click.Path(), help="The fleet file; - is standard input.")
@_chosen
@click.option("--most", type=click.IntRange(1, MOST_CHANGES), default=None, metavar="N",
              help="List at most so many changes of a container; default: 2000.")
@click.option("--format", "style", type=click.Choice(output.FORMATS), default=None, help="How to print; default: table.")
@options.quiet("Print only the names that would change, or the paths that are changed.")
@click.pass_context
def diff(
    ctx: click.Context, /, *, name: str | None, path: str | None, file: str | None, prune: str, adopt: bool,
    most: int | None, style: str | None, quiet: bool,
) -> int:  # fmt: skip
    """Show what `apply` would change, or what a container has changed.

    Changes nothing.

    With -f FILE: what `apply` would change. What is not as the file has it, and stays so, is told, too. Each change is of a
    class: create, live (nothing is restarted), restart, start, stop, destroy. The last line has the plan's id, for
    `apply --plan`.

    With NAME: what a container changed against mask and base, of all or at PATH and below: added, removed, type, changed
    (the content), mode, owner, and touched: copied into its delta, and the same so far, so that a patch of the host does not
    reach it. -f may have the format here: -f json.

    The exit status is 4 if something would change, or is changed.

    \b
    Examples:
      lxcfleet diff -f fleet.yaml
      lxcfleet diff -f fleet.yaml --prune
      lxcfleet diff web1
      lxcfleet diff web1 /etc -f json | jq '.changes[] | select(.change != "added") | .path'
    """
    if name is None:
        if file is None:
            raise InvalidInput("nothing to compare", hint=_FORMS)
        options.refuse(["--most"] if most is not None else [], "a plan is always told whole", "leave it out")
        plan = connect(ctx).fleet_plan(_request(file, prune, adopt, None, {}))
        status = _show_plan(plan, style or "table", quiet)
        if plan["refused"] is not None and plan["changed"]:
            output.say_error(plan["refused"], "an apply would be refused now")
        return status
    if file is not None and (file not in output.FORMATS or style is not None):
        raise InvalidInput(
            "a container and a fleet file exclude each other", why=f"NAME is {name}, and -f says {file}",
            hint=_FORMS,
        )
    said = [option for option, given in (("--prune", prune != "no"), ("--adopt", adopt)) if given]
    options.refuse(said, "it is about a fleet file", "leave it out, or give -f FILE instead of a name")
    how = style or file or "table"
    if quiet and how != "table":
        raise InvalidInput(f"-q and -f {how} exclude each other", hint="leave out one of them")
    return disk.changes(ctx, name, parse_path(path or "/"), most or 2000, how, quiet=quiet)


@click.command()
@click.argument("group", shell_complete=complete.groups)
@click.argument("count", type=click.IntRange(0, MAX_COUNT))
@click.option("--fleet", metavar="NAME", help="The fleet that has the group.", shell_complete=complete.fleets)
@options.dry_run
@options.formatted
@options.quiet("Print only the names that changed.")
@click.pass_context
def scale(
    ctx: click.Context, /, *, group: str, count: int, fleet: str | None, dry_run: bool, style: str, quiet: bool
) -> int:
    """Give a group of a fleet another number of containers.

    With more, those that were stopped start again, and the rest is created. With fewer, the last ones stop, and keep their
    data. The number stays until the count in the fleet's file changes.

    \b
    Examples:
      lxcfleet scale web 12
      lxcfleet scale web 0 --fleet shop
    """
    request = ScaleRequest(check_name(group), count, fleet, dry_run)
    begun = connect(ctx).scale(request)
    if dry_run:
        _show_plan(begun["fleet_plan"], style, quiet, title="all in all")
        return 0
    return _finish(ctx, begun, style=style, quiet=quiet, wait=True)


@click.group("fleet", cls=options.Suggesting)
def fleet_() -> None:
    """List and forget fleets that were applied from a file.

    \b
    Examples:
      lxcfleet fleet list
      lxcfleet fleet rm shop
    """


@fleet_.command("list")
@options.formatted
@options.quiet("Print only the names.")
@click.pass_context
def list_(ctx: click.Context, *, style: str, quiet: bool) -> None:
    """Show the fleets that were applied on this host, and their groups.

    \b
    Examples:
      lxcfleet fleet list
    """
    fleets = connect(ctx).fleets()
    if quiet:
        output.write("".join(f"{each['name']}\n" for each in fleets))
        return
    rows = [["fleet", "group", "file has", "count", "containers", "running", "applied", "file"], *_rows(fleets)]
    table = [[column.upper() for column in rows[0]], *rows[1:]]
    output.show(style, fleets, lines=lambda: output.columns(table) if fleets else [], rows=lambda: rows)
    if not fleets and style == "table":
        output.say("lxcfleet: no fleets: `lxcfleet apply -f FILE` makes one")


def _rows(fleets: Sequence[FleetRecord]) -> Iterator[list[str]]:
    for each in fleets:
        for group in each["groups"]:
            now = str(group["now"] if group["now"] is not None else 1)
            count = str(group["count"] if group["count"] is not None else 1)
            held = [str(len(group["containers"])), str(group["running"])]
            yield [each["name"], group["name"], count, now, *held, each["applied"], each["file"]]


@fleet_.command("rm")
@click.argument("name", shell_complete=complete.fleets)
@click.option("--orphan", is_flag=True, help="Also if it has containers: they stay, and belong to no fleet.")
@click.pass_context
def remove(ctx: click.Context, *, name: str, orphan: bool) -> None:
    """Forget a fleet, and what was applied of its file. No container is destroyed.

    \b
    Examples:
      lxcfleet fleet rm shop
      lxcfleet fleet rm shop --orphan
    """
    record = connect(ctx).fleet_remove(RemoveFleetRequest(check_name(name), orphan))
    count = sum(len(group["containers"]) for group in record["groups"])
    more = f"; no fleet owns its {counted(count, 'container')} now" if count else ""
    output.say(f"lxcfleet: the fleet {name} is forgotten{more}")


# -- what is sent --------------------------------------------------------------------------------------------


def sources(file: str) -> Sources:
    """The fleet file with all files that it names. Raises FleetError."""
    where = "stdin" if file == "-" else file
    text = _read(file)
    files: dict[str, str] = {}
    missing: dict[str, str] = {}
    if "env_files" in text:
        for name in env_files(text, where):
            _take(Path(file).parent / name if file != "-" else Path(name), name, files, missing)
    return Sources(text, where, files, missing)


def _request(file: str, prune: str, adopt: bool, plan: str | None, policy: dict[str, Any]) -> FleetRequest:
    read = sources(file)
    request = FleetRequest(read.text, read.where, read.files, read.missing, prune, adopt, plan, policy)
    if len(json.dumps(request.to_json())) > MAX_BODY:
        why = f"with the files that it names, it has more than {as_size(MAX_BODY)}"
        raise InvalidInput(f"{read.where} is too large", why=why)
    return request


def _read(file: str) -> str:
    try:
        with click.open_file(file, "rb") as opened:
            content: bytes = opened.read(MAX_BYTES + 1)
    except OSError as error:
        hint = f"-f is the fleet file here: say --format {file}" if file in output.FORMATS else ""
        raise HostError.from_os_error("the fleet file can't be read", error, path=file, hint=hint) from error
    if len(content) > MAX_BYTES:
        raise InvalidInput(f"{file} is too large", why=f"a fleet file has {as_size(MAX_BYTES)} at most")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{file} is no text in UTF-8", why=str(error)) from error


def _take(path: Path, name: str, files: dict[str, str], missing: dict[str, str]) -> None:
    try:
        with path.open("rb") as opened:
            content = opened.read(MAX_ENV_FILE + 1)
        if len(content) > MAX_ENV_FILE:
            missing[name] = f"is longer than {as_size(MAX_ENV_FILE)}"
        else:
            files[name] = content.decode("utf-8")
    except OSError as error:
        missing[name] = str(error.strerror)
    except UnicodeDecodeError:
        missing[name] = "is no text in UTF-8"


# -- what is shown -------------------------------------------------------------------------------------------


def _finish(ctx: click.Context, begun: ApplyRecord, *, style: str, quiet: bool, wait: bool) -> int:
    """Follow the operation and show its results; gives the exit status."""
    if style == "table" and not quiet:
        _tell_kept(begun["fleet_plan"])
    if not begun["total"]:
        if style != "table":
            data = {"changed": False, "operation": begun["id"], "results": [], "plan": begun["fleet_plan"]}
            output.show(style, data, lines=list, rows=lambda: [["name", "status", "changed", "error"]])
        elif not quiet:
            output.say(f"lxcfleet: {_NOTHING if begun['fleet_plan']['kept'] else _ALL_AS_IT_IS}")
        return 0
    if not wait:
        output.say(f"lxcfleet: operation {begun['id']} goes on in the daemon: `lxcfleet events -f` follows it")
        return 0
    return follow.finish(ctx, begun, style=style, quiet=quiet, more={"plan": begun["fleet_plan"]})


def _show_plan(plan: PlanRecord, style: str, quiet: bool, title: str = "") -> int:
    if quiet:
        output.write("".join(f"{each['name']}\n" for each in plan["changes"]))
    else:
        changes = [[f"secret {each['name']}", "", each["change"], _what(each)] for each in plan["secrets"]]
        changes += [[f"volume {each['name']}", "", each["change"], _what(each)] for each in plan["volumes"]]
        changes += [[f"app {each['name']}", "", each["change"], _what(each)] for each in plan["apps"]]
        changes += [[each["name"], each["group"], each["change"], _what(each)] for each in plan["changes"]]
        rows = [["name", "group", "change", "what"], *changes]
        output.show(style, plan, lines=lambda: map(output.printable, _lines(plan, title)), rows=lambda: rows)
        if style == "table":
            _tell_kept(plan)
    return FOUND if plan["changed"] else 0


def _what(change: Any) -> str:
    parts = [f"{key}: {has} -> {wanted}" for key, (has, wanted) in change["differs"].items()]
    if change.get("delta_bytes"):
        parts.append(f"{as_size(change['delta_bytes'])} of its own data go")
    return "; ".join([*parts, *([change["why"]] if change.get("why") else [])])


def _lines(plan: PlanRecord, title: str) -> Iterator[str]:
    """``title``: instead of the plan's id, for a plan that `apply --plan` does not take."""
    for secret in plan["secrets"]:
        yield f"{secret['change']} secret {secret['name']}: {_what(secret)}"
    for volume in plan["volumes"]:
        what = _what(volume)
        yield f"{volume['change']} volume {volume['name']}" + (f": {what}" if what else "")
    for app in plan["apps"]:
        yield f"{app['change']} app {app['name']}: {_what(app)}"
    alike: dict[tuple[str, str], list[str]] = {}
    for each in plan["changes"]:
        alike.setdefault((each["change"], _what(each)), []).append(each["name"])
    for (change, what), names in alike.items():
        yield f"{change} {some(names, _NAMED)}" + (f": {what}" if what else "")
    if plan["changed"]:
        title = title or (f"plan {plan['id']}" if plan["id"] else "what you may see of the plan")
        yield f"{title}: {counted(sum(len(cast(Any, plan)[each]) for each in _CHANGED), 'change')}"
    else:
        yield _NOTHING if plan["kept"] else _ALL_AS_IT_IS


def _tell_kept(plan: PlanRecord) -> None:
    alike: dict[tuple[str, ...], list[str]] = {}
    for each in plan["kept"]:
        alike.setdefault((each["key"], each["file"], each["now"], each["why"]), []).append(each["name"])
    for (key, file, now, why), names in alike.items():
        start = "; `lxcfleet start` has it run" if key == "state" and now != "backoff" else ""
        output.say(output.printable(f"lxcfleet: {some(names, _NAMED)}: {key} {file}, now {now} ({why}): left so{start}"))
    if keys := plan["not_compared"]:
        output.say(f"lxcfleet: {', '.join(keys)}: not compared, as you may only read; root's plan may have more changes")
    _tell_left(plan["left"])


def _tell_left(left: Iterable[str]) -> None:
    if names := [*left]:
        output.say(f"lxcfleet: not in the file any more, and left: {some(names, _NAMED)} (--prune destroys them)")


VERBS = {"apply": apply, "diff": diff, "scale": scale, "fleet": fleet_}
