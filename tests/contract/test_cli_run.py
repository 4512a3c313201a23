"""run: what is refused before a container begins, and the note of who runs it. The keeper is tested on real containers."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace

import pytest

from lxcfleet.api.requests import CreateRequest
from lxcfleet.containers import foreground
from lxcfleet.containers.foreground import Foreground
from lxcfleet.host.process import proc

from .conftest import FOREVER, Cli, Spawn, soon
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


def test_a_run_right_after_the_former_client_was_killed_waits_for_the_end_of_its_command(
    cli: Cli, daemon: Daemon, spawn: Spawn
) -> None:
    """Its keeper has not heard of that yet. Before, it was refused, as it "runs already"."""
    assert cli("run", "web", "--", *FOREVER).status == 0  # the stand-in for the keeper says so, and its command runs on
    container = daemon.parts.registry["web"]
    with subprocess.Popen(["sleep", "6000"]) as client:
        note = replace(container.foreground or Foreground(), client=f"{client.pid} {proc.began(client.pid)}")
        daemon.call(lambda: setattr(container, "foreground", note))
        ran = cli("run", "web")
        assert (ran.status, "runs already by another `lxcfleet run`" in ran.err) == (125, True)
        client.kill()
        os.waitid(os.P_PID, client.pid, os.WEXITED | os.WNOWAIT)  # a zombie counts, too
        first = container.running
        again = spawn("run", "web")
        soon(lambda: daemon.call(lambda: "web" in daemon.parts.foregrounds._begun))
        assert again.poll() is None
        assert container.running is first
        cli("stop", "web")
        assert again.wait() == 0
    assert container.running is not None
    assert container.running is not first


def test_a_note_of_a_client_that_makes_no_sense_is_none(daemon: Daemon) -> None:
    file = daemon.paths.container("web").foreground
    file.parent.mkdir()
    for said in (5, "x", "1", "1 x", "-1 2.0", None):
        file.write_text(json.dumps({"client": said, "stdin": True}))
        assert foreground.read(daemon.paths, "web") == Foreground(stdin=True)


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
