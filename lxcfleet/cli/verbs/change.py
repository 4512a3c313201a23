"""set: change the specs of existing containers."""

from __future__ import annotations

from typing import Any

import click

from lxcfleet.api.client import Client
from lxcfleet.api.records import SetRecord
from lxcfleet.api.requests import SetRequest
from lxcfleet.cli import complete, options
from lxcfleet.cli.session import connect
from lxcfleet.cli.ui import output, rolling
from lxcfleet.cli.ui.follow import show_changes, tell_notes, tell_planned
from lxcfleet.errors import InvalidInput
from lxcfleet.spec.container.assignments import parse_all
from lxcfleet.spec.container.fields import table


@click.command("set")
@click.argument(
    "words", nargs=-1, required=True, metavar="[NAME|GLOB]... KEY=VALUE...", shell_complete=complete.names_and_keys
)
@options.labelled("Only those that have this label; may be repeated.")
@click.option("--all", "everything", is_flag=True, help="All containers.")
@click.option("--no-restart", is_flag=True, help="Leave what takes a restart to their next one.")
@options.ignore_depends
@rolling.policy_options
@options.dry_run
@options.formatted
@options.quiet("Print only the names that changed.")
@click.pass_context
def set_(
    ctx: click.Context,
    /,
    *,
    words: tuple[str, ...],
    labels: tuple[str, ...],
    everything: bool,
    no_restart: bool,
    ignore_depends: bool,
    dry_run: bool,
    style: str,
    quiet: bool,
    **more: Any,
) -> int:
    """Change limits, labels, commands and more of containers.

    Nothing is changed unless all of it can be had by all of them. Limits, labels, ports, checks and the like change at
    once, also while a container runs. Lower limits, other checks and fewer published ports can harm many alike: containers
    that have a check get these in waves, without a restart, and one that is not healthy then halts them (--gate-live).
    What takes a restart (command, environment, network, …) comes in waves, as by `restart --rolling`: each gets it just
    before its turn, and `rollout undo` takes it back. With --no-restart it is in force from the next restart on.
    KEY= gives a key its default. Keys are those of a profile but for `privileged` and `rollout`: lxcfleet.yaml(5) explains
    them.

    \b
    Examples:
      lxcfleet set web1 memory=512M cpus=1.5
      lxcfleet set 'web*' labels.tier=front labels.old=        one label more, another one less
      lxcfleet set -l role=api publish=8080:80 --dry-run
      lxcfleet set -l role=api environment.MODE=night --max-unavailable 1
      lxcfleet set -l role=api memory=300M --gate-live none    all of them at once
      lxcfleet set --all pids=1000 -f json
      lxcfleet set db1 'command=/usr/bin/db --verbose' --no-restart
    """
    assignments = tuple(word for word in words if "=" in word)
    chosen = options.selection([word for word in words if "=" not in word], labels, everything)
    if not assignments:
        keys = [word for word in words if word in table()]
        why = f"{keys[0]} alone says no value" if keys else ""
        example = f"{keys[0]}=VALUE" if keys else "memory=512M"
        raise InvalidInput("nothing to set", why=why, hint=f"write what is to change as KEY=VALUE, for example {example}")
    parse_all(assignments)
    if no_restart:
        for option in rolling.refused({**more, "gate_live": None}):
            raise InvalidInput(f"{option} says how to restart", hint="leave out --no-restart")
    request = SetRequest(chosen, assignments, not no_restart, rolling.policy_of(more), dry_run, ignore_depends)
    client = connect(ctx)
    record = client.set(request)
    if not quiet:
        tell_notes(record)
    return _wait(client, record, style, quiet=quiet, wait=not more.get("no_wait"))


def _wait(client: Client, record: SetRecord, style: str, *, quiet: bool, wait: bool) -> int:
    """Follow the rollout that was begun, if there is one, and show what became of the containers; the exit status."""
    begun = rollout = record["rollout"]
    if rollout is not None and wait and rollout["ended"] is None:
        try:
            record["rollout"] = rollout = rolling.follow(client, rollout, quiet=quiet)
        except KeyboardInterrupt:
            output.say("lxcfleet: left; the rollout that changes the specs goes on: `lxcfleet rollout status`")
            return rolling.INTERRUPTED
    taken_back = begun is not None and rollout is not None and rollout["undoes"] == begun["id"]
    rolling.settle(record["results"], rollout, taken_back=taken_back)
    _show(record, style, quiet)
    if rollout is None:
        return 0
    if taken_back:
        raise rolling.tell_taken_back(rollout)
    return rolling.tell_halt(rollout)


def _show(record: SetRecord, style: str, quiet: bool) -> None:
    results = record["results"]
    if quiet:
        output.write("".join(f"{result['name']}\n" for result in results if result["changed"]))
        return
    if record["dry_run"]:
        rows = [["plan"], *([line] for line in record["plan"])]
        output.show(style, record, lines=lambda: map(output.printable, record["plan"]), rows=lambda: rows)
    else:
        show_changes(results, style, record)
    if style != "table":
        return
    if record["dry_run"]:
        tell_planned(results)
    if not results:
        output.say(output.NOTHING_CHOSEN)
    rollout = record["rollout"]
    if rollout is not None:
        how = "restarted" if record["restarts"] else "changed"
        more = ": `lxcfleet rollout status --follow` shows how far" if rollout["ended"] is None else ""
        output.say(f"lxcfleet: {how} in waves: rollout {rollout['id']} is {rollout['status']}{more}")
    if record["restart_needed"]:
        few = " ".join(record["restart_needed"][:5]) + (" …" if len(record["restart_needed"]) > 5 else "")
        output.say(f"lxcfleet: in force after a restart: lxcfleet restart --rolling {few}")


VERBS = {"set": set_}
