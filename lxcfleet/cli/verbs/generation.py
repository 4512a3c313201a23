"""generation list, freeze, verify, hold, release and rm; rollback."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import click

from lxcfleet.api.client import Client
from lxcfleet.api.generations import (
    FreezeRequest,
    GenerationRecord,
    HoldRecord,
    HoldRequest,
    ReleaseRequest,
    RemoveGenerationsRequest,
    RollbackRecord,
    RollbackRequest,
)
from lxcfleet.cli import complete, options
from lxcfleet.cli.session import connect
from lxcfleet.cli.statuses import FAILED, FOUND, SOME_FAILED
from lxcfleet.cli.ui import output, rolling
from lxcfleet.errors import InvalidInput
from lxcfleet.spec.reading.moments import parse_until
from lxcfleet.spec.reading.terms import MAX_GENERATION
from lxcfleet.spec.selection import Selection
from lxcfleet.units import counted, some

HOST = "host"
_FIELDS = ("number", "created", "bytes", "files", "containers", "held", "packages", "why", "rejected", "problem")
_NAMED = 5
"""So many containers are shown by name."""
_SHOWN = 20
"""So many packages are shown by name."""


@click.group(cls=options.Suggesting, short_help="Frozen bases: the way back from a bad patch.")
def generation() -> None:
    """Generations: frozen bases, which later changes of the host do not touch. They are the way back from a bad patch.

    One holds the host's programs, libraries and settings as they were: by links to the host's own files, so it takes little
    space, and containers on it share their memory with the others. Freeze one before a patch; `rollback` gives
    containers that base if the patch was bad. Freezing for the first time gives each file below /usr and /opt one link
    more, which moves its change time: see docs/generations.md for what backups and integrity checkers make of that.

    \b
    Examples:
      lxcfleet generation freeze --why "before the upgrade"
      lxcfleet generation list
    """


@generation.command("list")
@options.formatted
@options.quiet("Print only numbers.")
@click.pass_context
def list_(ctx: click.Context, *, style: str, quiet: bool) -> None:
    """Show all generations, the newest first: who stands on them, and how many packages the host has in another version.

    \b
    Examples:
      lxcfleet generation list
      lxcfleet generation list -f json | jq '.[0].packages'
    """
    records = connect(ctx).generations()
    output.show_list(
        style, quiet, records, _FIELDS, table=lambda: _table(records), text=_text,
        nothing="no generations: `lxcfleet generation freeze` makes one",
    )  # fmt: skip


def _table(records: Sequence[GenerationRecord]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("NUMBER", "FROZEN", "SIZE", "CONTAINERS", "DIFFERS IN", "WHY")]
    for record in records:
        problem = record["problem"]
        many = len(record["packages"])
        differs = counted(many, "package") if many else "nothing"
        rejected = [f"rejected: {record['rejected']}"] if record["rejected"] else []
        why = "; ".join([record["why"], *rejected, *_held(record["held"])])
        rows.append((
            str(record["number"]), record["created"][:16].replace("T", " "), output.size(record["bytes"]),
            str(len(record["containers"])), "" if problem else differs,
            f"! {problem.splitlines()[0]}" if problem else why,
        ))  # fmt: skip
    return rows


def _held(holds: Sequence[HoldRecord]) -> list[str]:
    """The containers that are held there, in words: once for each day and reason."""
    found: dict[str, list[str]] = {}
    for each in holds:
        why = f" ({each['why']})" if each["why"] else ""
        found.setdefault(f"until {each['until']}{', that is past' if each['past'] else ''}{why}", []).append(each["name"])
    return [f"{some(names, _NAMED)} held {words}" for words, names in found.items()]


def _text(record: GenerationRecord, key: str) -> str:
    value: Any = record[key]  # type: ignore[literal-required]
    if key == "held":
        return " ".join(each["name"] for each in record["held"])
    if isinstance(value, Mapping):
        return " ".join(value)
    return " ".join(value) if isinstance(value, list) else "" if value is None else str(value)


@generation.command()
@click.option("--why", metavar="TEXT", default="asked for", help="The reason, for `generation list`.")
@options.formatted
@options.quiet("Print only the number.")
@click.pass_context
def freeze(ctx: click.Context, *, why: str, style: str, quiet: bool) -> None:
    """Freeze the host's programs, libraries and settings as they are now. Nothing is done if the newest one is the same.

    \b
    Examples:
      lxcfleet generation freeze
      lxcfleet generation freeze --why "before openssl" -f json | jq .generation.number
    """
    record = connect(ctx).freeze_base(FreezeRequest.from_json({"why": why}))
    made = record["generation"]
    if quiet:
        output.write(f"{made['number']}\n")
        return
    said = f"froze generation {made['number']}: {counted(made['files'], 'file')}, {output.size(made['bytes'])}"
    same = f"generation {made['number']} is the same as the host is now"
    output.show(
        style, record, lines=lambda: [said if record["changed"] else same],
        rows=lambda: [("number", "changed"), (str(made["number"]), str(record["changed"]).lower())],
    )  # fmt: skip


@generation.command()
@click.argument("number", type=click.IntRange(1, MAX_GENERATION), shell_complete=complete.generations)
@options.formatted
@options.quiet("Print nothing.")
@click.pass_context
def verify(ctx: click.Context, *, number: int, style: str, quiet: bool) -> int:
    """Look whether a generation is still what was frozen.

    A program of the host that writes into an existing file, and does not replace it, changes the generation, too; so do
    chmod and chown. dpkg replaces files. Exit status 4: files were changed so, or are missing.

    \b
    Examples:
      lxcfleet generation verify 3
    """
    record = connect(ctx).check_generation(str(number))
    found = [("written in place", path) for path in record["written"]]
    found += [("mode, owner, access list or capabilities changed", path) for path in record["altered"]]
    found += [("missing", path) for path in record["missing"]] + [("not frozen", path) for path in record["strange"]]
    if not quiet:
        lines = [output.printable(f"{what}: {path}") for what, path in found]
        lines.append(f"generation {number}: {counted(record['files'], 'file')} looked at, of which {len(found)} changed")
        output.show(style, record, lines=lambda: lines, rows=lambda: [("what", "path"), *found])
    return FOUND if found else 0


@generation.command()
@click.argument(
    "numbers", nargs=-1, required=True, type=click.IntRange(1, MAX_GENERATION), metavar="NUMBER...",
    shell_complete=complete.generations,
)  # fmt: skip
@click.option("--last", is_flag=True, help="Also the last good one, so that there is no way back from a bad patch.")
@options.formatted
@options.quiet("Print only the numbers of those that were removed.")
@click.pass_context
def rm(ctx: click.Context, *, numbers: tuple[int, ...], last: bool, style: str, quiet: bool) -> None:
    """Remove generations. None is removed if a container stands on one of them. The host's files stay as they are.

    \b
    Examples:
      lxcfleet generation rm 1 2
    """
    record = connect(ctx).remove_generations(RemoveGenerationsRequest(numbers, last))
    removed = [str(number) for number in record["removed"]]
    if quiet:
        output.write("".join(f"{number}\n" for number in removed))
        return
    output.show(
        style, record, lines=lambda: [f"removed generation {number}" for number in removed],
        rows=lambda: [("number",), *((number,) for number in removed)],
    )  # fmt: skip


def _day(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    return None if value is None else parse_until(value, datetime.now().astimezone().date()).isoformat()


def _whom(patterns: tuple[str, ...], labels: tuple[str, ...], everything: bool) -> tuple[Selection, int | None]:
    """The chosen containers, or the number of the generation whose containers are meant."""
    if len(patterns) == 1 and patterns[0].isdecimal() and not labels and not everything:
        number = int(patterns[0][:8])
        if not 0 < number <= MAX_GENERATION:
            raise InvalidInput(f"{patterns[0]} is no generation's number", hint="`lxcfleet generation list` shows them")
        return Selection(), number
    return options.selection(patterns, labels, everything), None


@generation.command()
@options.selected
@click.option(
    "--until", metavar="DATE", required=True, callback=_day, help="The last day: 2027-01-31, or from today on 30d or 2w.",
)  # fmt: skip
@click.option("--why", metavar="TEXT", default="", help="The reason, for `generation list` and `doctor`.")
@options.dry_run
@options.formatted
@options.quiet("Print only the names of those that are held.")
@click.pass_context
def hold(
    ctx: click.Context,
    /,
    *,
    patterns: tuple[str, ...],
    labels: tuple[str, ...],
    everything: bool,
    until: str,
    why: str,
    dry_run: bool,
    style: str,
    quiet: bool,
) -> None:
    """Hold containers on the generation that they stand on, until a day: no patch takes them along before.

    A number alone stands for all containers on that generation. `verify` and `doctor` say until when they are held. Once
    the day is over they go along with the next patch that goes well. `rollback --until` gives containers a generation, and
    holds them.

    \b
    Examples:
      lxcfleet generation hold web1 --until 2027-01-31 --why "waits for the vendor"
      lxcfleet generation hold 41 --until 2w
    """
    selection, number = _whom(patterns, labels, everything)
    client = connect(ctx)
    record = client.hold(HoldRequest(selection, number, until, why, dry_run))
    if quiet:
        output.write("".join(f"{name}\n" for name in record["chosen"]))
        return
    word = "would be held" if dry_run else "held"
    rows = [(each["name"], str(each["generation"]), each["until"], each["why"]) for each in record["held"]]
    output.show(
        style, record, lines=lambda: [f"{name} {word} until {until}" for name in record["chosen"]],
        rows=lambda: [("name", "generation", "until", "why"), *rows],
    )  # fmt: skip
    if not record["chosen"] and style == "table":
        rolling.say_nothing(client, selection, "no container stands on it")


@generation.command()
@options.selected
@options.dry_run
@options.formatted
@options.quiet("Print only the names of those that are released.")
@click.pass_context
def release(
    ctx: click.Context,
    /,
    *,
    patterns: tuple[str, ...],
    labels: tuple[str, ...],
    everything: bool,
    dry_run: bool,
    style: str,
    quiet: bool,
) -> None:
    """Hold containers no longer: they go along with the next patch that goes well.

    `rollback --to host` puts them on the host's root at once.

    \b
    Examples:
      lxcfleet generation release web1
      lxcfleet generation release 41
    """
    selection, number = _whom(patterns, labels, everything)
    client = connect(ctx)
    record = client.release(ReleaseRequest(selection, number, dry_run))
    released = record["released"]
    if quiet:
        output.write("".join(f"{name}\n" for name in released))
        return
    word = "would go along" if dry_run else "goes along"
    lines = [f"{name} {word} with the next patch that goes well" for name in released]
    output.show(style, record, lines=lambda: lines, rows=lambda: [("name",), *((name,) for name in released)])
    if not released and style == "table":
        rolling.say_nothing(client, selection, "none of them is held")


def _goal(_: click.Context, __: click.Parameter, value: str | None) -> int | None:
    return None if value is None else goal(value)


def goal(value: str) -> int:
    """The number of a base: a generation's, or 0 for the host's root. Raises InvalidInput."""
    if value == HOST:
        return 0
    if not value.isdecimal() or not 0 < int(value[:8]) <= MAX_GENERATION:
        raise InvalidInput(
            f"{value!r} is no base", hint=f"write a generation's number (`lxcfleet generation list`), or {HOST}"
        )
    return int(value)


@click.command()
@options.selected
@click.option(
    "--to", metavar="NUMBER|host", default=None, callback=_goal,
    help="The generation, or the host's root. Default: the newest generation with other versions of packages than the host.",
)  # fmt: skip
@click.option(
    "--ignore-depends", is_flag=True,
    help="Also those whose own packages would then lack what they depend on. They are left alone otherwise.",
)
@click.option("--until", metavar="DATE", callback=_day, help="Hold them there until then: 2027-01-31, 30d, 2w.")
@click.option("--why", metavar="TEXT", default="", help="The reason, with --until.")
@rolling.policy_options
@options.dry_run
@options.formatted
@options.quiet("Print only the names of those that get another base.")
@click.pass_context
def rollback(
    ctx: click.Context,
    /,
    *,
    patterns: tuple[str, ...],
    labels: tuple[str, ...],
    everything: bool,
    to: int | None,
    ignore_depends: bool,
    until: str | None,
    why: str,
    dry_run: bool,
    style: str,
    quiet: bool,
    **more: Any,
) -> int:
    """Give containers the base that they had before a bad patch.

    What goes back are programs, libraries and the defaults in /etc, and dpkg's records of them; what stays is each
    container's own: its delta, its volumes. The host is not changed. Running containers are restarted in waves, gated by
    their health; `rollout undo` takes it back. Later patches pass these containers over, and `verify` says so, until
    `rollback --to host` puts them on the host's root again. With --until they go along with the first good patch after that
    day.

    A container that has installed packages of its own is left alone, and the packages are named, if one of them depends
    on a version that the base does not have. Exit status 3: some were left alone; 1: all of them were.

    \b
    Examples:
      lxcfleet rollback --all --dry-run
      lxcfleet rollback -l group=web --to 3
      lxcfleet rollback web1 --until 30d --why "waits for the vendor"
      lxcfleet rollback 'web*' --to host
    """
    chosen = options.selection(patterns, labels, everything)
    client = connect(ctx)
    record = client.rollback(RollbackRequest(chosen, to, rolling.policy_of(more), dry_run, ignore_depends, until, why))
    rollout = record["rollout"]
    if not quiet and style == "table":
        _tell(client, chosen, record)
    if rollout is not None and not more["no_wait"] and rollout["ended"] is None:
        try:
            record["rollout"] = rollout = rolling.follow(client, rollout, quiet=quiet)
        except KeyboardInterrupt:
            output.say("lxcfleet: left; the rollout goes on: `lxcfleet rollout status`")
            return rolling.INTERRUPTED
    names = record["containers"]
    if quiet:
        output.write("".join(f"{name}\n" for name in names))
    elif style != "table":
        output.show(style, record, lines=list, rows=lambda: [("name",), *((name,) for name in names)])
    elif rollout is not None:
        output.say(f"lxcfleet: restarted in waves: rollout {rollout['id']} is {rollout['status']}")
    status = 0 if rollout is None else rolling.tell_halt(rollout)
    if status or not record["left"]:
        return status
    return SOME_FAILED if names else FAILED


def _tell(client: Client, chosen: Selection, record: RollbackRecord) -> None:
    goal = f"generation {record['to']}" if record["to"] else "the host's root"
    for name, reasons in record["left"].items():
        output.say(f"lxcfleet: {name} is left alone: its own packages would break on {goal}")
        for reason in reasons:
            output.say(output.printable(f"  {reason}"))
    if record["left"]:
        output.say("lxcfleet: upgrade or remove these packages in the container, or use --ignore-depends")
    if not record["changed"] and record["left"]:
        return
    if record["containers"]:
        _tell_move(record, goal)
    else:
        rolling.say_nothing(client, chosen, f"all of them stand on {goal} already")
    if record["until"] is not None:
        output.say(f"lxcfleet: they {'would be' if record['dry_run'] else 'are'} held there until {record['until']}")


def _tell_move(record: RollbackRecord, goal: str) -> None:
    """Tell who gets another base, what goes back with it, and what stays."""
    many, restarts = len(record["containers"]), record["restarts"]
    noun, gets = ("container", "gets") if many == 1 else ("containers", "get")
    word = "would get" if record["dry_run"] else gets
    how = f"restarted in waves: {some(restarts, _NAMED)}" if restarts else "none of them runs"
    output.say(f"lxcfleet: {many} {noun} {word} {goal}; {how}")
    packages = record["packages"]
    for name in [*packages][:_SHOWN]:
        now, then = packages[name]
        output.say(f"  {name}: {now or 'not installed'} -> {then or 'not installed'}")
    if len(packages) > _SHOWN:
        output.say(f"  and {counted(len(packages) - _SHOWN, 'more package')}")
    if not packages:
        output.say("  no package is another one there")
    if record["to"]:
        output.say("  with their programs, libraries and defaults in /etc; deltas, volumes and the host stay as they are")


VERBS = {"generation": generation, "rollback": rollback}
