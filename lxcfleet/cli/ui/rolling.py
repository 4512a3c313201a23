"""Following a rollout and showing its outcome; the options for a rollout's policy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from lxcfleet.api import way_back
from lxcfleet.api.client import Client
from lxcfleet.api.requests import RolloutRequest
from lxcfleet.cli.options import F
from lxcfleet.cli.rows import option_of
from lxcfleet.cli.session import connect
from lxcfleet.cli.statuses import FAILED, SOME_FAILED
from lxcfleet.cli.ui import output
from lxcfleet.cli.ui.progress import Progress
from lxcfleet.errors import FleetError, InvalidInput, Unreachable
from lxcfleet.spec.policies.rollout import RolloutSettings
from lxcfleet.spec.reading.rows import Row, rows_of
from lxcfleet.spec.selection import Selection
from lxcfleet.units import counted

if TYPE_CHECKING:
    from lxcfleet.api.records import HaltRecord, ResultRecord, RolloutMemberRecord, RolloutRecord, TrialRecord

INTERRUPTED = 130
SHORT = 20
"""Up to this many containers get a line each; of more containers only those with a note or a failure do."""


def _policy() -> Sequence[Row]:
    """The rows of the policy that have an option."""
    return [row for row in rows_of(RolloutSettings).values() if row.option]


def policy_options(function: F) -> F:
    """Add the options for a rollout's policy."""
    function = click.option("--no-wait", is_flag=True, help="Begin it, and leave the rest to the daemon.")(function)
    for row in reversed(_policy()):
        function = option_of(row)(function)
    return function


def rolling_options(function: F) -> F:
    """Add the options of ``restart --rolling``."""
    return click.option("--rolling", is_flag=True, help="In waves; what follows says how, lxcfleet.yaml else.")(
        policy_options(function)
    )


def policy_of(more: Mapping[str, Any]) -> dict[str, Any]:
    """The values of ``policy_options`` that were given, as requests have them."""
    given = {row.key: row for row in _policy() if more.get(row.key) is not None}
    for key, problem in replace(RolloutSettings(), **{key: more[key] for key in given}).problems():
        raise InvalidInput(f"{given[key].option[-1]}: {problem}")
    return {key: row.render(more[key]) for key, row in given.items()}


def refused(more: dict[str, Any]) -> Iterator[str]:
    """The options of a rollout that were given though no rollout begins. Takes all such options out of ``more``."""
    for row in _policy():
        if more.pop(row.key, None) is not None:
            yield row.option[-1]
    if more.pop("no_wait", False):
        yield "--no-wait"


def restart(
    ctx: click.Context, chosen: Selection, more: Mapping[str, Any], *, style: str, quiet: bool, dry_run: bool
) -> int:
    """``restart --rolling``; gives the exit status."""
    for key in ("timeout", "drain"):
        if more.get(key) is not None:
            raise InvalidInput(f"--{key} does not go with --rolling", hint="each container's own and lxcfleet.yaml's hold")
    if more.get("no_deps"):
        raise InvalidInput("--no-deps does not go with --rolling", hint="a rollout restarts what can start again")
    request = RolloutRequest("restart", chosen, policy_of(more), dry_run)
    return roll(ctx, request, wait=not more["no_wait"], style=style, quiet=quiet)


def roll(ctx: click.Context, request: RolloutRequest, *, wait: bool, style: str, quiet: bool) -> int:
    """Begin a rollout and follow it to its end; gives the exit status."""
    client = connect(ctx)
    record = client.roll(request)
    if request.dry_run:
        _show_waves(record, style, quiet)
        if not record["total"] and style == "table" and not quiet:
            _say_nothing(client, request)
        return 0
    if not record["total"] and style == "table" and not quiet:
        _say_nothing(client, request)
        return 0
    if wait and record["ended"] is None:
        try:
            record = follow(client, record, quiet=quiet)
        except KeyboardInterrupt:
            output.say("lxcfleet: left; the rollout goes on in the daemon: `lxcfleet rollout status`, `pause`, `abort`")
            return INTERRUPTED
    return show(record, style, quiet=quiet)


def follow(client: Client, record: RolloutRecord, *, quiet: bool = False) -> RolloutRecord:
    """Draw the rollout's progress, and give the rollout once it has ended or is halted. Raises Unreachable."""
    with Progress("rollout", 0 if quiet else record["total"]) as progress:
        try:
            for latest in client.rollout_follow():
                record = latest
                waits = f", {record['waits_for']}" if record["waits_for"] else ""
                progress.show(record["done"], f"wave {record['wave']}{waits}"[:60])
        except Unreachable as error:
            raise _lost(record, error.why) from error
    if record["status"] in ("running", "paused"):
        raise _lost(record, "it closed the connection")
    return record


def tell_taken_back(record: RolloutRecord) -> FleetError:
    """Tell how the rollout is that puts the former values back, and whom it leaves out; gives the error for the values."""
    tell_halt(record)
    message = f"the rollout halted, and {way_back.in_words(record, 'the former values')}"
    return FleetError(message, why=record["about"], hint="`lxcfleet events` says why it halted")


def settle(results: Sequence[ResultRecord], rollout: RolloutRecord | None, *, taken_back: bool = False) -> None:
    """Tell of containers that got their specs in their turns what has become of them, once the rollout has come so far.
    ``taken_back``: whether it is another one, which puts the former values back."""
    if rollout is None or rollout["kind"] != "change" or rollout["status"] in ("running", "paused"):
        return
    phases = {each["name"]: (each["phase"], each["wave"]) for each in rollout["containers"]}
    for result in results:
        phase, wave = phases.get(result["name"], ("", None))
        if result["status"] == "begun":
            result["status"] = {"done": "changed", "failed": "failed", "skipped": "skipped"}.get(phase, "not begun")
            result["changed"] = wave is not None
        error = way_back.lack(rollout, result["name"]) if taken_back else None
        if error is not None:  # it may have what the other one gave it
            result["status"], result["changed"], result["error"] = "failed", True, error
        elif result["status"] != "unchanged" and taken_back and result.get("differs"):
            result["status"], result["changed"] = "taken back", False


def _lost(record: RolloutRecord, why: str) -> Unreachable:
    return Unreachable(
        f"the daemon went away before rollout {record['id']} had ended",
        why=f"{why}; {record['done']} of {counted(record['total'], 'container')} were told to be done",
        hint="it goes on once the daemon is there again: `lxcfleet rollout status --follow`",
    )  # fmt: skip


def _show_waves(record: RolloutRecord, style: str, quiet: bool) -> None:
    waves = record["waves"]
    if quiet:
        output.write("".join(f"{name}\n" for wave in waves for name in wave))
        return
    rows = [["wave", "name"], *([str(n), name] for n, wave in enumerate(waves, 1) for name in wave)]
    lines = [f"wave {number}: {' '.join(wave)}" for number, wave in enumerate(waves, 1)]
    left = [each["name"] for each in record["containers"] if each["name"] not in {name for wave in waves for name in wave}]
    output.show(style, record, lines=lambda: lines, rows=lambda: rows)
    if style == "table" and left:
        output.say(f"lxcfleet: as things are, not restarted: {' '.join(left)}")


def _say_nothing(client: Client, request: RolloutRequest) -> None:
    patch = request.kind == "patch"
    say_nothing(client, request.selection, "no container is stale" if patch else "no container that runs is chosen by that")


def say_nothing(client: Client, chosen: Selection, why: str) -> None:
    """Tell that there is nothing to do, and why; where no container is chosen, that is why."""
    none = chosen.narrow and not client.containers(chosen)
    output.say(output.NOTHING_CHOSEN if none else f"lxcfleet: nothing to do: {why}")


def show(record: RolloutRecord, style: str, *, quiet: bool = False) -> int:
    """Print a rollout; gives its exit status."""
    if quiet:
        output.write("".join(f"{each['name']}\n" for each in record["containers"] if each["wave"] is not None))
    elif style == "table" and not record["containers"] and record["undoes"] and not record["left_out"]:
        output.say(f"lxcfleet: {record['undoes']} is ended, and no container had its new spec yet")
    else:
        output.show(style, record, lines=lambda: _lines(record), rows=lambda: _rows(record))
    return tell_halt(record)


def tell_halt(record: RolloutRecord) -> int:
    """Say why a rollout is halted, if it is, and whom it leaves out; gives its exit status."""
    for name, error in record["left_out"].items():
        output.say_error(error, name)
    halted = record["halted"]
    if halted is not None and record["status"] == "halted":
        where = f" at {halted['container']}" if halted["container"] else ""
        output.say_error(FleetError(f"the rollout is halted{where}", why=halted["why"], hint=_next_step(record)))
        if record["not_reverted"]:
            output.say(output.printable(f"  it is not taken back (auto_revert): {record['not_reverted']}"))
        failed = [each for each in record["containers"] if each["name"] == halted["container"] and each["phase"] == "failed"]
        for line in _causes(halted, failed=bool(failed), live=any(each["live"] for each in failed)):
            output.say(output.printable(line))
    return status_of(record)


def _causes(halted: HaltRecord, *, failed: bool, live: bool) -> list[str]:
    """Everything known about the cause of a halt, and the commands that undo it. ``failed``: the halt's container was
    restarted or changed, and is not healthy; ``live``: it was changed without a restart, so the host's packages are no
    cause."""
    lines = []
    if failed and halted["ended"]:
        lines += [f"  its process 1: {halted['ended']}"]
    if halted["log"]:
        lines += ["  the end of its console:", *(f"  | {line}" for line in halted["log"].splitlines())]
    packages = halted["packages"]
    if live:
        return lines
    if packages is None:
        return [*lines, "  which packages of the host changed since it was well is not known"] if failed else lines
    if not packages:
        return [*lines, "  no package of the host changed since it was well"]
    lines.append("  packages of the host that changed since it was well:")
    lines += [f"  | {name} {before or '(new)'} -> {now or '(removed)'}" for name, (before, now) in packages.items()]
    lines.append("  to go back to what they were:")
    lines += [f"    {command}" for command in halted["commands"]]
    lines.append("  The rollout goes on by itself then. Unless they are held, unattended-upgrades installs them again.")
    return lines


def _next_step(record: RolloutRecord) -> str:
    """A hint about a halt. A container that was left as it failed counts as down, so it can halt the rollout again."""
    if record["kind"] == "secret":
        return "once that is mended: lxcfleet secret refresh"
    at = record["halted"] and record["halted"]["container"]
    failed = [each["name"] for each in record["containers"] if each["phase"] == "failed"]
    if at in failed:
        undo = "; the former specs: lxcfleet rollout undo" if record["kind"] == "change" and not record["undoes"] else ""
        return (
            "once that is mended: lxcfleet rollout resume (--accept: leave it as it is; it counts as down)"
            f"; or: lxcfleet rollout abort{undo}"
        )
    if at is None or not failed:
        return "once that is mended: lxcfleet rollout resume; or: lxcfleet rollout abort"
    begin = "patch apply" if record["kind"] == "patch" else "restart … --rolling"
    return (
        f"what failed counts as down ({' '.join(failed)}): mend it, then: lxcfleet rollout resume\n"
        f"or let more be down: lxcfleet rollout abort, then: lxcfleet {begin} --max-unavailable N"
    )


def status_of(record: RolloutRecord) -> int:
    """The exit status. 0: under way, or all containers are done; 1: none was done; 3: some failed, are still stale, were not
    reached, or are left out."""
    if record["left_out"]:
        return SOME_FAILED
    bad = [each for each in record["containers"] if each["phase"] == "failed" or each["stale"]]
    if record["status"] in ("running", "paused") or (record["status"] == "done" and not bad):
        return 0
    done = any(each["phase"] == "done" and not each["stale"] for each in record["containers"])
    return SOME_FAILED if done else FAILED


def _lines(record: RolloutRecord) -> list[str]:
    counts: dict[str, int] = {}
    for each in record["containers"]:
        counts[each["phase"]] = counts.get(each["phase"], 0) + 1
    summary = ", ".join(f"{count} {phase}" for phase, count in counts.items()) or "no containers"
    wave = f", wave {record['wave']}" if record["wave"] else ""
    head = [f"rollout {record['id']}: {record['status']}{wave}: {summary}"]
    if record["about"]:
        head.append(f"changes {record['about']}")
    if record["killed"]:
        head.append(f"killed, as they did not end in time: {record['killed']}")
    if record["rejected"]:
        head.append(f"the patch was rejected: {record['rejected']}")
    if record["waits_for"]:
        head.append(f"waits for {record['waits_for']}")
    shown = [each for each in record["containers"] if record["total"] <= SHORT or each["note"] or each["phase"] == "failed"]
    if not shown:
        return head
    table = [("NAME", "PHASE", "WAVE", "NOTE"), *map(_row, shown)]
    return [*head, *output.columns(table, output.terminal_width()), *_of_tests(shown)]


def _of_tests(shown: Sequence[RolloutMemberRecord]) -> list[str]:
    """The tests of these, as a table of its own."""
    rows = [(each["name"], *test_row(test)) for each in shown for test in each["tests"]]
    return [*output.columns([("NAME", *TEST_COLUMNS), *rows], output.terminal_width())] if rows else []


TEST_COLUMNS = ("TEST", "RESULT", "PASSED", "REASON")


def test_row(test: TrialRecord) -> tuple[str, str, str, str]:
    """The row of one test."""
    result = test["verdict"] or "not run yet"
    return test["name"], result, f"{test['passed']} of {test['passes']}", test["reason"]


def _row(each: RolloutMemberRecord) -> tuple[str, ...]:
    wave = str(each["wave"] or "")
    return each["name"], each["phase"], wave, each["note"]


def _rows(record: RolloutRecord) -> list[list[str]]:
    header = ["name", "phase", "wave", "stale", "note"]
    rows = [[*_row(each)[:3], str(each["stale"]).lower(), each["note"]] for each in record["containers"]]
    return [header, *rows]
