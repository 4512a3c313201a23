"""run."""

from __future__ import annotations

import os
from typing import Any

import click

from lxcfleet.api.requests import CreateRequest, ForegroundRequest
from lxcfleet.cli import complete, options
from lxcfleet.cli.fields import field_options, said_with_command
from lxcfleet.cli.session import connect
from lxcfleet.cli.ui import foreground
from lxcfleet.cli.verbs.execute import RunsCommand
from lxcfleet.errors import InvalidInput
from lxcfleet.spec.reading.names import check_name


@click.command(cls=RunsCommand)
@click.argument("name", shell_complete=complete.names)
@field_options
@click.option("-i", "--interactive", "stdin", is_flag=True, help="Give the command our stdin; without this it has none.")
@click.option("-t", "--tty", is_flag=True, help="Give the command a terminal: with -i ours can be typed on.")
@click.option("--rm", "remove", is_flag=True, help="Destroy the container, with all that it has written, once it has ended.")
@click.option("--update", is_flag=True, help="Give a container that exists the values that are asked for.")
@click.option("--detach-on-kill", "detach", is_flag=True, help="Let the container run on if this program is killed.")
@click.pass_context
def run(
    ctx: click.Context,
    /,
    *,
    name: str,
    stdin: bool,
    tty: bool,
    remove: bool,
    update: bool,
    detach: bool,
    **taken: Any,
) -> int:
    """Run a container in the foreground.

    This is for systemd, cron and other schedulers. The container is made if it does not exist; one that exists has to be as
    asked for, or is changed with --update. Without a command and options one that exists is run as it is. Output is ours;
    SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 are passed on; the exit status is the command's, or 128 and N if
    signal N ended it. Of a system container the console is shown, and signals that end a program shut it down.
    If this program is killed, the container is stopped. Its restart policy and autostart are off: whoever calls this
    decides when it runs. READY=1 is told to systemd once it is healthy.
    Status 75: a restart is due, as after a patch: run it again; 125: lxcfleet failed; 126: the command can't be run; 127:
    there is no such command. docs/run.md has units for systemd and more.

    \b
    Examples:
      lxcfleet run web -p 8080:80 -- /usr/sbin/nginx -g 'daemon off;'
      lxcfleet run --rm -i sort1 -- sort < names.txt
      lxcfleet run --rm -it try1 -- bash
    """
    check_name(name)
    asked = said_with_command(ctx, taken)
    create = CreateRequest(name=name, ensure=True, start=False, update=update, said=asked).to_json() if asked else None
    if update and create is None:
        options.refuse(["--update"], "nothing is asked for", "say what the container is to be like")
    request: ForegroundRequest = {
        "run": name, "create": create, "stdin": stdin, "tty": tty, "remove": remove, "detach": detach
    }  # fmt: skip
    if tty and not os.isatty(1):
        raise InvalidInput("-t needs a terminal", why="our stdout is none", hint="leave out -t")
    return foreground.run(lambda: connect(ctx), request)


VERBS = {"run": run}
