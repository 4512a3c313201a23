"""``lxcfleet``: the group of verbs, and the one place where errors are printed."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from lxcfleet import __version__
from lxcfleet.cli.options import Suggesting, nearest
from lxcfleet.cli.session import Session, session_of
from lxcfleet.cli.ui.output import FORMATS, say_error
from lxcfleet.errors import FleetError, HostError, InvalidInput

INTERRUPTED = 130
READER_GONE = 141
"""The status of a program that SIGPIPE ended: the reader of our output went away, as ``head`` does."""

VERBS: dict[str, str] = {
    "create": "create",
    "run": "run",
    "list": "show",
    "info": "show",
    "top": "top",
    "du": "disk",
    "start": "actions",
    "stop": "actions",
    "restart": "actions",
    "set": "change",
    "apply": "fleet",
    "diff": "fleet",
    "scale": "fleet",
    "export": "archive",
    "import": "archive",
    "restore-check": "archive",
    "move": "move",
    "receive": "receive",
    "fleet": "fleet",
    "freeze": "actions",
    "unfreeze": "actions",
    "destroy": "actions",
    "exec": "execute",
    "shell": "execute",
    "push": "copy",
    "pull": "copy",
    "volume": "volume",
    "app": "app",
    "snapshot": "snapshot",
    "drain": "drain",
    "backup": "backup",
    "secret": "secret",
    "logs": "logs",
    "wait": "wait",
    "stale": "stale",
    "verify": "verify",
    "cve": "cve",
    "audit": "audit",
    "patch": "patch",
    "rollout": "rollout",
    "generation": "generation",
    "rollback": "generation",
    "doctor": "doctor",
    "events": "events",
    "config": "config",
}
"""Each verb and the name of its module. The module has the verb in its own ``VERBS``, and is imported only when needed."""

ALIASES = {"ls": "list", "rm": "destroy"}

MEANT = {
    "attach": "shell", "console": "logs", "delete": "destroy", "enter": "shell", "help": "--help", "kill": "stop",
    "pause": "freeze", "ps": "list", "reboot": "restart", "remove": "destroy", "show": "info",
    "status": "list", "thaw": "unfreeze", "unpause": "unfreeze", "version": "--version",
}  # fmt: skip
"""Verbs of other tools, and the verb that does the same here."""

_FOLLOWING = ("events", "logs")
"""Verbs whose -f means --follow, as in `tail -f`."""


class Verbs(Suggesting):
    """The verbs. Each is imported only when it is called, so that the command line starts quickly."""

    meant = MEANT

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """In the order of a container's life."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The verb, also by its short name."""
        name = ALIASES.get(cmd_name, cmd_name)
        if name not in VERBS:
            return None
        verbs: dict[str, click.Command] = importlib.import_module(f"lxcfleet.cli.verbs.{VERBS[name]}").VERBS
        return verbs[name]


@click.group(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="`lxcfleet VERB -h` explains each with examples. A TIME is in seconds, or such as 90s, 10m, 2h or 1d. "
    "Exit status: 0 done, 1 failed, 2 not valid, 3 some of several failed, 4 a check found something.",
)
@click.option("--debug", is_flag=True, envvar="LXCFLEET_DEBUG", help="Show the traceback of an error.")
@click.option("-v", "--verbose", is_flag=True, help="Say more on the way.")
@click.version_option(__version__, prog_name="lxcfleet", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context, debug: bool, verbose: bool) -> None:
    """Run fleets of LXC containers cloned from this host's own root.

    Patch the host, restart the fleet, and every container runs the new software.

    \b
    lxcfleet create -n 100              clone the host a hundred times: c1 to c100
    lxcfleet create web -n 3 -- nginx -g 'daemon off;'
    lxcfleet list
    lxcfleet exec --all -- uptime
    lxcfleet restart 'web*'
    lxcfleet destroy --all --force
    """
    session = session_of(ctx)
    session.debug = debug
    session.verbose = verbose


def main() -> NoReturn:
    """The program."""
    _stand_in()
    status = run(sys.argv[1:])
    if status == READER_GONE:
        _print_no_more()
    try:
        sys.stdout.flush()
    except OSError:
        _print_no_more()  # the verb has reported this error already
    sys.exit(status)


def _stand_in() -> None:
    """Open what the caller closed of stdin, stdout and stderr: the next file or socket would get its number, and a command in
    a container would write to that. What is written to stdout fails as it does on a closed one; messages are dropped."""
    for number, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, flags), True)  # the lowest number that is free: those below are open
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def _print_no_more() -> None:
    """Send the rest of the output to /dev/null. Otherwise Python 3.13 fails at its end when it flushes its buffers: with
    status 120, or with a message."""
    for descriptor in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def run(arguments: list[str], session: Session | None = None) -> int:
    """Run one command line and give its exit status. Errors are printed here and nowhere else."""
    try:
        return _run(arguments, session or Session())
    except BrokenPipeError:  # it is about our output: broken connections to the daemon raise other errors
        return READER_GONE
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # click exits by itself at a broken pipe
            return READER_GONE
        raise


def _run(arguments: list[str], session: Session) -> int:
    try:
        status = cli.main(arguments, prog_name="lxcfleet", standalone_mode=False, obj=session)
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except Exception as error:
        return _report(error, arguments, session)
    return status if isinstance(status, int) else 0


def _report(error: Exception, arguments: Sequence[str], session: Session) -> int:
    if session.debug or "--debug" in sys.argv[1:2]:
        import traceback

        traceback.print_exception(error)
    told = _told(error, arguments)
    say_error(told)
    return session.failure_status or told.exit_status


_NO_NUMBER = re.compile(r"is not a valid integer( range)?\.$")


def _told(error: Exception, arguments: Sequence[str]) -> FleetError:
    """``error`` as a FleetError."""
    if isinstance(error, FleetError):
        return error
    if isinstance(error, click.ClickException):
        ctx = error.ctx if isinstance(error, click.UsageError) else None
        path = ctx.command_path if ctx else _verb_of(arguments)
        message = _NO_NUMBER.sub("is not a whole number.", _message_of(error))
        hint = f"`{path} -h` shows how it is used"
        if "-f" in arguments and {*arguments} & {*FORMATS} and path.split()[-1] in _FOLLOWING:
            hint = f"-f is --follow here: `{path} --format json` prints for programs"
        return InvalidInput(message, hint=hint)
    if isinstance(error, OSError):
        return HostError.from_os_error("lxcfleet could not go on", error)
    return FleetError(
        f"internal error: {type(error).__name__}: {error}",
        hint="this should not happen: `lxcfleet --debug …` shows where, please report it",
    )


def _message_of(error: click.ClickException) -> str:
    """The message of ``error``, with suggestions as for a verb. click's own for an option are all that begin alike."""
    if not isinstance(error, click.NoSuchOption) or not error.possibilities:
        return error.format_message()
    near = nearest(error.option_name.strip("-"), [each.strip("-") for each in error.possibilities])
    meant = f" Did you mean '--{near[0]}'?" if near else ""
    return f"No such option '{error.option_name}'.{meant}"


def _verb_of(arguments: Sequence[str]) -> str:
    """The verb with the groups that it is in, as users write it: some of click's errors don't know theirs."""
    path: list[str] = ["lxcfleet"]
    command: click.Command = cli
    for word in arguments:
        if isinstance(command, click.Group) and (found := command.get_command(click.Context(command), word)):
            path.append(word)
            command = found
    return " ".join(path)


if __name__ == "__main__":
    main()
