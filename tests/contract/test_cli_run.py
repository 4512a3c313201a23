"""run: what is refused before a container begins, and the note of who runs it. The keeper is tested on real containers."""

from __future__ import annotations

import pytest

from lxcfleet.api.requests import CreateRequest
from lxcfleet.containers import foreground

from .conftest import FOREVER, Cli, soon
from .real_daemon import Daemon


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("run",), "NAME"),
        (("run", "a/b", "--", "true"), "a/b"),
        (("run", "a", "--"), "no command after --"),
        (("run", "a", "--init", "system", "--", "true"), "leave out the command"),
        (("run", "a", "--update"), "--update"),
        (("run", "a", "-t", "--", "true"), "-t"),
        (("run", "a"), "no container named a"),
    ],
)
def test_what_makes_no_sense_is_refused_with_125(cli: Cli, daemon: Daemon, arguments: tuple[str, ...], told: str) -> None:
    ran = cli(*arguments)
    assert (ran.status, told in ran.err) == (125, True), ran.err
    assert len(daemon.parts.registry) == 0


@pytest.mark.parametrize(("command", "status"), [("no-such-program", 127), ("/no/such", 127), ("/etc/passwd", 126)])
def test_a_command_that_is_no_program_has_the_status_that_a_shell_gives(cli: Cli, command: str, status: int) -> None:
    ran = cli("run", "--rm", "a", "--", command)
    assert (ran.status, command in ran.err, "install it on the host" in ran.err) == (status, True, True)


def test_one_that_exists_has_to_be_as_asked(cli: Cli, daemon: Daemon) -> None:
    daemon.create(CreateRequest("web", start=False, said={"command": FOREVER}))
    ran = cli("run", "web", "--memory", "1G", "--", *FOREVER)
    assert (ran.status, "memory" in ran.err, "--update" in ran.err) == (125, True, True)
    assert foreground.read(daemon.paths, "web") is None


def test_one_that_runs_is_refused(cli: Cli, daemon: Daemon) -> None:
    daemon.create(CreateRequest("web", said={"command": FOREVER}))
    ran = cli("run", "web")
    assert (ran.status, "runs already" in ran.err, "lxcfleet stop web" in ran.err) == (125, True, True)
    assert foreground.read(daemon.paths, "web") is None


def test_the_note_is_there_until_somebody_else_starts_it(cli: Cli, daemon: Daemon) -> None:
    assert cli("run", "web", "--restart", "always", "--", *FOREVER).status == 0  # the stand-in for the keeper says so
    container = daemon.parts.registry["web"]
    assert foreground.read(daemon.paths, "web") == container.foreground is not None
    assert ",run " in cli("list", "web").out
    assert "lxcfleet run" in cli("info", "web").out
    assert daemon.parts.fleet.boot._seen().running == ()
    cli("stop", "web")
    soon(lambda: container.running is None)
    assert container.foreground is not None
    cli("start", "web")
    assert foreground.read(daemon.paths, "web") is None
    assert daemon.parts.registry["web"].foreground is None
    assert daemon.parts.fleet.boot._seen().running == ("web",)
