"""exec and shell."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import click

from lxcfleet.api.client import Client
from lxcfleet.api.requests import AttachRequest
from lxcfleet.cli import complete, options
from lxcfleet.cli.session import connect, session_of
from lxcfleet.cli.ui import attach, output, spool
from lxcfleet.cli.ui.fanout import Collected, Fanout, Prefixed, Sink, overall
from lxcfleet.errors import FleetError, InvalidInput
from lxcfleet.spec.selection import Selection, is_glob, natural_order
from lxcfleet.units import some

FAILED = 125
"""Exit status if lxcfleet itself failed and not the command, as in podman, env and timeout."""

_NAMED = 10
"""How many containers are named if the command failed in some; the others are counted."""

_LINKER_FAILED = (1, 127)
"""The exit statuses of a program whose libraries can't be loaded; ld.so(8)."""
_LIBRARY = re.compile(r"/[^/]*\.so(\.[^/]*)?$")


class RunsCommand(options.TakesCommand):
    """A verb that runs a command. Its own errors, also those of usage, exit with a status of their own."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Set the status of failures before parsing, which may fail already."""
        if parent is not None:
            session_of(parent).failure_status = FAILED
        return super().make_context(info_name, args, parent, **extra)


class _OpensShell(RunsCommand):
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return click.Command.parse_args(self, ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return click.Command.collect_usage_pieces(self, ctx)


@click.command("exec", cls=RunsCommand)
@options.selected
@click.option(
    "-t/-T",
    "--tty/--no-tty",
    "tty",
    default=None,
    help="Give it a terminal or none; default: if we have one.",
)
@click.option(
    "--stdin-to-all", is_flag=True, help="Give each command all of our stdin. It is read to its end before the first begins."
)
@options.environment_option
@options.formatted
@click.pass_context
def exec_(
    ctx: click.Context,
    *,
    patterns: tuple[str, ...],
    labels: tuple[str, ...],
    everything: bool,
    tty: bool | None,
    stdin_to_all: bool,
    variables: tuple[str, ...],
    style: str,
) -> int:
    """Run a command in containers.

    In one container, given by its name, the command gets our stdin, stdout and stderr, and a terminal if we
    have one; its exit status is ours. In several it runs without input (or, with --stdin-to-all, with a copy of
    ours), the container's name precedes each line of output, and the exit status is 0 if all gave 0, theirs if
    all gave the same, else 3.
    Status 125: lxcfleet failed; 126: the command can't be run; 127: there is no such command.

    \b
    Examples:
      lxcfleet exec web1 -- ls -l /etc
      tar c site | lxcfleet exec web1 -- tar x -C /srv
      lxcfleet exec --all -- uptime
      lxcfleet exec 'web*' --stdin-to-all -- sh -s < script.sh
      lxcfleet exec 'web*' -f json -- cat /etc/machine-id
    """
    chosen = options.selection(patterns, labels, everything)
    command = options.command_after_dashes(ctx)
    if not command:
        raise click.UsageError("no command: write -- and the command at the end", ctx)
    environment = options.environment(variables)
    if tty and stdin_to_all:
        options.refuse(["-t"], "--stdin-to-all copies a file or a pipe", "leave out one of them")
    if tty and style != "table":
        options.refuse(["-t"], f"-f {style} collects the output", "leave out one of them")
    name = only_name(chosen)
    if name is None and tty and style == "table":
        name = _only_match(ctx, chosen)
    if stdin_to_all:
        with spool.of_stdin() as given:
            return _in_many(ctx, chosen, command, environment, style, given.fileno())
    if name is None or style != "table":
        return _in_many(ctx, chosen, command, environment, style)
    return _in_one(ctx, name, command, environment, tty)


def only_name(chosen: Selection) -> str | None:
    """The name, if exactly one container is chosen by its name. A glob does not count, even if only one container matches
    it at the moment."""
    if len(chosen.patterns) == 1 and not chosen.labels and not is_glob(chosen.patterns[0]):
        return chosen.patterns[0]
    return None


def _only_match(ctx: click.Context, chosen: Selection) -> str:
    names = [container["name"] for container in connect(ctx).containers(chosen)]
    if len(names) != 1:
        raise InvalidInput(f"-t needs one container, {len(names)} are chosen", hint="leave out -t")
    return names[0]


def _in_one(
    ctx: click.Context, name: str, command: Sequence[str], environment: dict[str, str], tty: bool | None
) -> int:
    if tty is None:
        tty = os.isatty(0) and os.isatty(1)
    if tty and "TERM" in os.environ:
        environment = {"TERM": os.environ["TERM"], **environment}
    request: AttachRequest = {"name": name, "command": list(command), "environment": environment, "tty": tty}
    client = connect(ctx)
    status = attach.run(client, request)
    if command:
        _explain(client, {name: status})
    return status


def _in_many(
    ctx: click.Context,
    chosen: Selection,
    command: Sequence[str],
    environment: dict[str, str],
    style: str,
    given: int | None = None,
) -> int:
    client = connect(ctx)
    names = [container["name"] for container in client.containers(chosen)]
    if not names:
        output.say(output.NOTHING_CHOSEN)

    def request(name: str) -> AttachRequest:
        return {"name": name, "command": list(command), "environment": environment, "tty": False}

    collected = Collected()
    sink: Sink = collected
    if style == "table":
        sink = Prefixed(names)
    fanout = Fanout(client, request, sink, given)
    fanout.run(names)
    fanout.statuses.update(dict.fromkeys(collected.cut, FAILED))
    if style != "table":
        _show(fanout.statuses, collected, style)
    if fanout.signal:
        output.say(f"lxcfleet: interrupted: {len(names) - len(fanout.statuses)} of {len(names)} not begun")
        return 128 + fanout.signal
    status = overall([*fanout.statuses.values()])
    if status != 0:
        output.say(_failures(fanout.statuses))
        _explain(client, fanout.statuses)
    return status


def _explain(client: Client, statuses: Mapping[str, int]) -> None:
    """Give a hint if commands may have failed because their container has the host's new programs beside old libraries.

    The dynamic linker's message (``version `GLIBC_2.38' not found``) goes straight to the command's stderr. But its exit
    status is 1 or 127, and in a container that runs replaced libraries the linker is the likely cause.
    """
    failed = tuple(name for name, status in statuses.items() if status in _LINKER_FAILED)
    if not failed:
        return
    try:
        records = client.stale(Selection(failed))
    except FleetError:
        return  # this error must not hide the command's own one
    mixed = [record["name"] for record in records if any(_LIBRARY.search(file["path"]) for file in record["files"])]
    if mixed:
        named = ", ".join(mixed[:_NAMED]) + (", …" if len(mixed) > _NAMED else "")
        output.say(
            f"lxcfleet: the host was patched, and {named} not restarted since: until that is done new programs find old"
            " libraries there, and may fail as if those were broken: lxcfleet patch apply"
        )


def _show(statuses: dict[str, int], collected: Collected, style: str) -> None:
    for name, error in collected.errors.items():
        output.say_error(error, name)
    fields = ("name", "exit", "stdout", "stderr")
    results = [
        dict(
            zip(fields, (name, statuses[name], collected.text(name, 1), collected.text(name, 2)), strict=True)
        )
        for name in natural_order(statuses)
    ]
    output.show(
        style,
        results,
        lines=list,
        rows=lambda: [fields, *([str(result[field]) for field in fields] for result in results)],
    )


def _failures(statuses: dict[str, int]) -> str:
    failed = [f"{name} ({statuses[name]})" for name in natural_order(statuses) if statuses[name]]
    return f"lxcfleet: not 0 in {len(failed)} of {len(statuses)}: {some(failed, _NAMED)}"


@click.command(cls=_OpensShell)
@click.argument("name", shell_complete=complete.names)
@options.environment_option
@click.pass_context
def shell(ctx: click.Context, name: str, variables: tuple[str, ...]) -> int:
    """Open a login shell of root's in a container.

    \b
    Examples:
      lxcfleet shell web1
      lxcfleet shell web1 < script.sh
    """
    options.one_name(name)
    return _in_one(ctx, name, (), options.environment(variables), None)


VERBS = {"exec": exec_, "shell": shell}
