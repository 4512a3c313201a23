"""patch status, apply, rehearse, prepare and notify: how far patches of the host are, and how they come into containers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from lxcfleet.api.client import Client
from lxcfleet.api.findings import NoticeRecord, RejectionRecord
from lxcfleet.api.rehearsals import CloneDelta, RehearsalRecord, RehearseRequest
from lxcfleet.api.requests import RolloutRequest
from lxcfleet.cli import complete, options
from lxcfleet.cli.session import connect, session_of
from lxcfleet.cli.statuses import FOUND
from lxcfleet.cli.ui import output, parts, rolling
from lxcfleet.cli.verbs.generation import HOST, goal
from lxcfleet.cli.verbs.stale import complain, status_of
from lxcfleet.errors import FleetError, HostError, Unreachable
from lxcfleet.spec.selection import Selection
from lxcfleet.units import some


@click.group(cls=options.Suggesting)
def patch() -> None:
    """Patches of the host, and how they come into the containers.

    \b
    Examples:
      lxcfleet patch status
      lxcfleet patch apply --dry-run
      lxcfleet patch notify
    """


@patch.command(short_help="Show how far it is: host, stale containers, rollout.")
@options.formatted
@options.quiet("Print only the names of stale containers.")
@click.pass_context
def status(ctx: click.Context, *, style: str, quiet: bool) -> int:
    """Show how far a patch of the host is, which containers are stale, and how far the rollout is.

    A container that a patch took down (it did not come up on the new version) is named as down, until it is well again.
    Lines that begin with `own` name lxcfleet's own parts that run old code.

    Exit status 4: some are stale, or down, or the patch was rejected, as its rollout failed. 3: none is, but some could not
    be looked at.

    \b
    Examples:
      lxcfleet patch status
      lxcfleet patch status -f json | jq .rollout.status
    """
    client = connect(ctx)
    records = client.stale(Selection())
    stale = [record["name"] for record in records if record["stale"]]
    notice, rollout, own = client.notice(), client.rollout(), client.parts()
    if quiet:
        output.write("".join(f"{name}\n" for name in stale))
    else:
        going = f"{rollout['status']}, {rollout['done']} of {rollout['total']}" if rollout else "none since the boot"
        data = {"containers": len(records), "stale": stale, "notice": notice, "rollout": rollout, "parts": own}
        lines = [f"host:     {_told(notice)}", f"stale:    {' '.join(stale) or 'none'}", f"rollout:  {going}"]
        if stale and notice["policy"] != "auto":
            lines.append(f"meanwhile: {_MIXED}")
        lines += [f"stopped:  {each['name']}: after a patch took it down: {each['why']}" for each in notice["stopped"]]
        lines += [f"down:     {each['name']}: a patch took it down: {each['why']}" for each in notice["down"]]
        lines += [f"own:      {line}" for line in parts.lines(own)]
        if notice["rejected"]:
            lines += _rejected(notice["rejected"])
        if notice["reboot"]:
            more = f" ({notice['rebooting']})" if notice["rebooting"] else ""
            lines.append(f"reboot:   the host has to be rebooted for {', '.join(notice['reboot'])}{more}")
        output.show(style, data, lines=lambda: lines, rows=lambda: [["stale"], *([name] for name in stale)])
    complain(records)
    return FOUND if notice["down"] or notice["rejected"] else status_of(records, own)


_MIXED = (
    "what is stale sees new programs beside old libraries, and may fail to start some (`GLIBC_… not found`), until it is"
    " restarted: lxcfleet patch apply"
)

_SHOWN = 20
"""So many packages are shown by name."""

_OF_STATUS = ("down", "stopped", "reboot", "rebooting", "rejected")
"""The keys that `patch status` alone shows."""
_PHASES = {
    "idle": "every change of its packages was looked at",
    "quiet": "waiting until packages stop changing",
    "busy": "waiting for the package manager",
    "broken": "waiting: dpkg left packages in the middle",
    "window": "waiting for a maintenance window",
    "ready": "looking at what became stale",
    "failed": "a patch could not be dealt with, which is tried again",
}


def _rejected(record: RejectionRecord) -> list[str]:
    """Why the patch does not come into containers, and what changed with it."""
    said = [f"{name} {before or '(new)'} -> {now or '(removed)'}" for name, (before, now) in record["packages"].items()]
    lines = [f"rejected: {record['container']}: {record['why']} (since {record['since']})"]
    if said:
        lines.append(f"          {some(said, _SHOWN)}")
    return [*map(output.printable, lines), "          a newer patch is taken up; this one by: lxcfleet patch apply --force"]


def _told(notice: NoticeRecord) -> str:
    """The progress of a change of the host's packages, in one line."""
    more = [part for part in (notice["why"], f"until {notice['until']}" if notice["until"] else "") if part]
    return _PHASES.get(notice["phase"], notice["phase"]) + (f" ({', '.join(more)})" if more else "")


@patch.command()
@options.formatted
@options.quiet("Print nothing.")
@click.pass_context
def prepare(ctx: click.Context, *, style: str, quiet: bool) -> None:
    """Freeze the base before packages change, where the settings say so (`patch: {freeze: true}`).

    The package manager's hook calls it before each run of dpkg. It does nothing while the daemon is down, and nothing if the
    newest generation is the same as the host.

    \b
    Examples:
      lxcfleet patch prepare
    """
    try:
        record = Client(session_of(ctx).paths).prepare()
    except Unreachable:
        return
    if quiet:
        return
    made = record["generation"]["number"] if record else None
    told = "nothing to freeze" if record is None else f"generation {made} is the base as it is before the patch"
    output.show(style, record, lines=lambda: [told], rows=lambda: [("number",), ("" if made is None else str(made),)])


@patch.command()
@options.formatted
@options.quiet("Print nothing.")
@click.pass_context
def notify(ctx: click.Context, *, style: str, quiet: bool) -> None:
    """Tell the daemon that the host's packages changed.

    The package manager's hook does so after each run of dpkg; this is for all else. It returns at once: the daemon acts
    when dpkg is done and it has been quiet for a while, by the policy in lxcfleet.yaml. While the daemon is down it
    takes note, for when it is started.

    \b
    Examples:
      lxcfleet patch notify
    """
    paths = session_of(ctx).paths
    try:
        notice = Client(paths).notify()
    except Unreachable:
        if not paths.run.is_dir():
            return  # no container has run since the host booted
        try:
            paths.notice.touch(mode=0o644)
        except OSError as error:
            raise HostError.from_os_error("the change can't be noted", error) from error
        if not quiet:
            output.say("lxcfleet: noted; the daemon is down, and acts once it is started")
        return
    if not quiet:
        told = {key: value for key, value in notice.items() if key not in _OF_STATUS}
        rows = [tuple(told), ["" if value is None else str(value) for value in told.values()]]
        output.show(style, notice, lines=lambda: [_told(notice)], rows=lambda: rows)


@patch.command()
@options.selected
@click.option("--force", is_flag=True, help="Also a patch that was rejected, as its rollout failed.")
@rolling.policy_options
@options.dry_run
@options.formatted
@options.quiet("Print only the names of those that were restarted.")
@click.pass_context
def apply(
    ctx: click.Context,
    /,
    *,
    patterns: tuple[str, ...],
    labels: tuple[str, ...],
    everything: bool,
    force: bool,
    dry_run: bool,
    style: str,
    quiet: bool,
    **more: Any,
) -> int:
    """Restart what is stale, in waves: all containers, or those chosen.

    No more than --max-unavailable are down at the same moment, each wave has to be healthy before the next one begins,
    and one that is not halts it. Nothing is restarted that is not stale, and nothing twice. Without options the
    settings below `rollout:` in lxcfleet.yaml hold. The daemon does it: Ctrl-C only stops looking.

    With `patch: {freeze: true}` a patch whose rollout failed is rejected: it takes --force, or a newer patch.

    Exit status 1: nothing was done. 3: some failed or were not reached.

    \b
    Examples:
      lxcfleet patch apply --dry-run
      lxcfleet patch apply
      lxcfleet patch apply -l tier=front --max-unavailable 10% --min-healthy-time 30
    """
    chosen = options.optional_selection(patterns, labels, everything)
    request = RolloutRequest("patch", chosen, rolling.policy_of(more), dry_run, force)
    return rolling.roll(ctx, request, wait=not more["no_wait"], style=style, quiet=quiet)


def _base(_: click.Context, __: click.Parameter, value: str) -> int:
    return goal(value)


@patch.command(short_help="Test a throwaway clone on a base, and destroy it.")
@click.argument("name", shell_complete=complete.names)
@click.option(
    "--on", metavar="NUMBER|host", default=HOST, callback=_base, help="A generation, or the host's root: the default."
)
@click.option("--test", "tests", metavar="CMD", multiple=True, help="Also run this shell command inside; can be repeated.")
@click.option(
    "--delta", type=click.Choice([each.value for each in CloneDelta]), default=CloneDelta.EMPTY.value,
    help="The content of the clone's delta: none, the default, or that of the container's delta now.",
)  # fmt: skip
@click.option("--yes", is_flag=True, help="With --delta copy: also copy more than 1 GiB.")
@click.option("--no-secrets", is_flag=True, help="Leave the container's secrets out.")
@click.option("--keep", is_flag=True, help="Leave the clone, and let it run on.")
@options.formatted
@options.quiet("Print nothing.")
@click.pass_context
def rehearse(
    ctx: click.Context, *, name: str, on: int, tests: tuple[str, ...], delta: str, yes: bool, no_secrets: bool, keep: bool,
    style: str, quiet: bool,
) -> int:
    """Make a clone of a container's spec on the host's root as it is now, or on a generation; wait until it is healthy,
    run the tests of the container's group or profile, and destroy it. The container is not touched.

    The clone has an empty delta, no labels, no ports, a name of its own, and its volumes are read-only. The daemon goes on if
    this program is killed.

    With --delta copy it has a copy of the container's delta: a container that runs is frozen while that is made, as for
    a snapshot. Whatever the container does by itself, such as jobs of cron, the clone does as well.

    Exit status 4: it did not become healthy, or a test is not good. 1: it could not be tried.

    \b
    Examples:
      lxcfleet patch rehearse web1
      lxcfleet patch rehearse web1 --delta copy
      lxcfleet patch rehearse web1 --on 7 --test 'curl -fsS http://127.0.0.1:8080/login'
    """
    client = connect(ctx)
    try:
        record = client.rehearse(RehearseRequest(name, on, tests, not no_secrets, keep, CloneDelta(delta), yes))
    except KeyboardInterrupt:
        output.say("lxcfleet: left; the rehearsal goes on in the daemon: `lxcfleet events -f` tells how it ends")
        return rolling.INTERRUPTED
    if not quiet:
        output.show(style, record, lines=lambda: _rehearsed(record), rows=lambda: _tests(record))
    if record["passed"]:
        return 0
    hint = f"it runs: lxcfleet shell {record['clone']}" if record["changed"] else "--keep leaves the clone, to look into it"
    output.say_error(FleetError(f"{name} does not do its work on {_named(on)}", why=record["why"], hint=hint))
    if record["log"]:
        output.say("  the end of its console:")
        for line in record["log"].splitlines():
            output.say(output.printable(f"  | {line}"))
    return FOUND


def _named(base: int) -> str:
    return f"generation {base}" if base else "the host's root"


def _rehearsed(record: RehearsalRecord) -> list[str]:
    outcome = "passed" if record["passed"] else "failed"
    head = f"{record['name']} on {_named(record['generation'])}: {outcome} in {record['seconds']:.1f} s"
    kept = [f"kept: {record['clone']}"] if record["changed"] else []
    table = output.columns([*_tests(record, rolling.TEST_COLUMNS)], output.terminal_width()) if record["tests"] else []
    return [head, *kept, *table, f"unlike {record['name']}: {'; '.join(record['differs'])}", *record["notes"]]


def _tests(record: RehearsalRecord, header: Sequence[str] = ("test", "result", "passed", "reason")) -> list[Sequence[str]]:
    return [header, *map(rolling.test_row, record["tests"])]


VERBS = {"patch": patch}
