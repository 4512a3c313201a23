"""The state of one run of the command line, and its connection to the daemon."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import click

from lxcfleet.api.client import Client, answers
from lxcfleet.paths import Paths


@dataclass(eq=False, repr=False)
class Session:
    """One run of the command line. ``failure_status``: the exit status of exec and shell if lxcfleet itself failed."""

    paths: Paths = field(default_factory=Paths.from_environment)
    debug: bool = False
    verbose: bool = False
    failure_status: int | None = None


def session_of(ctx: click.Context) -> Session:
    """The run that ``ctx`` belongs to."""
    session = ctx.find_object(Session)
    assert session is not None
    return session


def connect(ctx: click.Context) -> Client:
    """A client for the daemon. Starts the daemon if it does not run and nothing else would start it."""
    session = session_of(ctx)
    if not answers(session.paths) and _may_start():
        from lxcfleet.cli import autostart

        if session.verbose:
            click.echo("lxcfleet: starting lxcfleetd", err=True)
        autostart.start(session.paths)
    return Client(session.paths)


def _may_start() -> bool:
    """Under systemd the socket unit starts the daemon, in a cgroup of its own. On other hosts a client of root does it."""
    return os.geteuid() == 0 and not os.path.isdir("/run/systemd/system")
