"""move."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import click

from lxcfleet.api.client import Client
from lxcfleet.api.moves import ForgetMoveRequest, MoveRecord
from lxcfleet.cli import complete, options
from lxcfleet.cli.session import connect
from lxcfleet.cli.statuses import SOME_FAILED
from lxcfleet.cli.ui import output
from lxcfleet.cli.ui.mover import How, Mover, Outcome
from lxcfleet.cli.ui.ssh import Way
from lxcfleet.errors import FleetError, InvalidInput, NotFound, WrongState
from lxcfleet.spec.container.depends import Graph
from lxcfleet.spec.moves import check_host
from lxcfleet.spec.reading.names import check_name

_FIELDS = ("name", "step", "host", "since", "authority")
_HEADER = ("NAME", "STEP", "HOST", "SINCE", "BELONGS")


@click.command()
@click.argument("words", nargs=-1, metavar="[NAME|GLOB]... [USER@]HOST", shell_complete=complete.names)
@options.labelled("Only those that have this label; may be repeated.")
@click.option("--all", "everything", is_flag=True, help="All containers.")
@click.option("--continue", "onward", is_flag=True, help="Go on with moves that were broken off; no HOST is named.")
@click.option("--abort", is_flag=True, help="Take moves back that were broken off; no HOST is named.")
@click.option("--forget", is_flag=True, help="You know that it runs nowhere else: it belongs to this host.")
@click.option("--list", "listed", is_flag=True, help="Only show the moves that are not over.")
@click.option("--keep", is_flag=True, help="Keep its files here in the end, as a copy that does not start.")
@click.option("--timeout", type=options.Time(1, 86400), default=120.0, metavar="TIME",
              help="How long it may take there to become healthy; default: 120.")
@click.option("--port", type=click.IntRange(1, 65535), default=None, metavar="PORT", help="Of ssh.")
@click.option("--ssh-config", "config", type=click.Path(exists=True, dir_okay=False, resolve_path=True), default=None,
              metavar="FILE", help="ssh's configuration, in the place of the usual one.")
@options.dry_run
@options.formatted
@options.quiet("Print only the names of those that were moved.")
@click.pass_context
def move(
    ctx: click.Context, /, *, words: tuple[str, ...], labels: tuple[str, ...], everything: bool, onward: bool, abort: bool,
    forget: bool, listed: bool, keep: bool, timeout: float, port: int | None, config: str | None,
    dry_run: bool, style: str, quiet: bool,
) -> int:  # fmt: skip
    """Move containers to another host by ssh.

    A container is stopped, its archive goes to `lxcfleet import` on the other host, and it starts there. Once that host has
    said that it is healthy, it is removed here; --keep keeps its files. If it does not become healthy, it runs here again.
    Both hosts note each step, so that never both run it: after anything was killed or a line was cut, `--continue` goes on,
    and `--abort` takes it back. The other host needs lxcfleet, of this release or a newer one, room, the container's secrets,
    apps and volumes, and a key of yours; ssh has to know its host key. Snapshots do not go along.

    \b
    Examples:
      lxcfleet move web1 root@other
      lxcfleet move --all root@other
      lxcfleet move --list
      lxcfleet move web1 --continue
    """
    said = {"--continue": onward, "--abort": abort, "--forget": forget, "--list": listed}
    chosen = [option for option, value in said.items() if value]
    if len(chosen) > 1:
        raise InvalidInput(f"{chosen[0]} and {chosen[1]} exclude each other", hint="leave out one of them")
    if chosen and dry_run:
        options.refuse(["--dry-run"], f"{chosen[0]} does what the journal says", "leave it out; --list shows the journal")
    client = connect(ctx)
    if listed:
        return _list(client, words, style, quiet=quiet)
    if chosen:
        return _go_on(client, words, chosen[0], How(Way(""), keep, timeout=timeout), (style, quiet))
    if not words or (len(words) == 1 and not everything and not labels):
        raise click.UsageError("name containers, and last the host to which they go", ctx)
    how = How(Way(check_host(words[-1]), port or 0, config or ""), keep, timeout, dry_run)
    selection = options.selection(words[:-1], labels, everything)
    names = [each["name"] for each in client.containers(selection)]
    if not names:
        output.say(output.NOTHING_CHOSEN)
    outcomes = [_attempt(name, lambda name: Mover(client, name, how).begin()) for name in _in_order(client, names)]
    return _show(outcomes, style, quiet)


def _in_order(client: Client, names: Sequence[str]) -> list[str]:
    """The names in order: those that others depend on move first, as the other host takes none that could not start there."""
    if len(names) < 2:
        return [*names]
    depends: dict[str, Collection[str]] = {}
    groups: dict[str, list[str]] = {}
    for name in names:
        try:
            spec = client.info(name)["spec"] or {}
        except NotFound:
            spec = {}  # it went meanwhile, which its own move tells
        depends[name] = spec.get("depends_on") or ()
        groups.setdefault(spec.get("group") or "", []).append(name)
    return [name for turn in Graph(depends, groups).turns_to_start(names) for name in turn]


def _go_on(client: Client, names: Sequence[str], option: str, how: How, shown: tuple[str, bool]) -> int:
    if not names:
        raise InvalidInput("no container chosen", hint="give the names that `lxcfleet move --list` shows")
    records = {each["name"]: each for each in client.moves()}

    def one(name: str) -> Outcome:
        check_name(name)
        if option == "--forget":
            record = client.forget_move(ForgetMoveRequest(name))
            return Outcome(name, "forgotten", notes=[f"it was {record['step']}, with {record['host']}"])
        if name not in records:
            raise NotFound(f"{name} does not move", hint="`lxcfleet move --list` shows those that do")
        record = records[name]
        if not record["away"]:
            raise WrongState(
                f"{name} came from {record['host']}, which leads its move", why=f"here it is {record['step']}",
                hint=f"there: lxcfleet move {name} {option}; if that host is lost, here: lxcfleet move {name} --forget",
            )  # fmt: skip
        way = Way(record["host"], record["port"], record["config"])
        each = Mover(client, name, How(way, how.keep, timeout=how.timeout), record["id"])
        return each.go_on(record) if option == "--continue" else each.abort(record)

    return _show([_attempt(name, one) for name in names], *shown)


def _attempt(name: str, work: Any) -> Outcome:
    try:
        outcome: Outcome = work(name)
    except FleetError as error:
        outcome = Outcome(name, "failed", error)
        output.say_error(error, name)
    for note in outcome.notes:
        output.say(output.printable(f"lxcfleet: {name}: {note}"))
    return outcome


# -- what is shown ------------------------------------------------------------------------------------------------


def _list(client: Client, names: Sequence[str], style: str, *, quiet: bool) -> int:
    records = [each for each in client.moves() if not names or each["name"] in names]
    output.show_list(
        style, quiet, records, _FIELDS, table=lambda: [_HEADER, *([_text(each, key) for key in _FIELDS] for each in records)],
        text=_text, nothing="no moves",
    )  # fmt: skip
    return 0


def _text(record: MoveRecord, key: str) -> str:
    if key == "authority":
        return "here" if record["authority"] else "there"
    return str(record[key])  # type: ignore[literal-required]


def _show(outcomes: Sequence[Outcome], style: str, quiet: bool) -> int:
    done = [each for each in outcomes if each.error is None]
    if quiet:
        output.write("".join(f"{each.name}\n" for each in done))
    else:
        rows = [["name", "status"], *([each.name, each.status] for each in outcomes)]
        data = {"changed": any(each.to_json()["changed"] for each in outcomes), "results": [e.to_json() for e in outcomes]}
        output.show(style, data, lines=lambda: output.columns(rows[1:]) if outcomes else [], rows=lambda: rows)
    if len(done) == len(outcomes):
        return 0
    errors = [each.error.exit_status for each in outcomes if each.error is not None]
    return SOME_FAILED if done else errors[0]


VERBS = {"move": move}
