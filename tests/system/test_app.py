"""App containers: one command, exactly as it was given, in a clean environment, under an init that reaps."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lxcfleet.containers.lxc_config import APP_PATH

from .harness import CLIENT, Fleet, alive, until

pytestmark = pytest.mark.system


def app(fleet: Fleet, name: str, *command: str, options: tuple[str, ...] = ()) -> str:
    fleet.ok("create", name, *options, "--", *command)
    return name


def written(fleet: Fleet, name: str, path: str) -> bytes:
    """A file that the command wrote, once it is whole: all of these end it with a line of its own."""
    file = fleet.delta(name) / path
    until(lambda: file.exists() and file.read_bytes().endswith(b"\nEND\n"), 10, f"{name} wrote {path}")
    return file.read_bytes().removesuffix(b"\nEND\n")


ARGUMENTS = [
    "", " ", "two words", " lead and trail ", "\t\ttabs\t", "new\nline", "\n", "carriage\rreturn", "\v\f",
    "'single'", '"double"', "it's", '"', "'", "\\", "\\\\", "\\n", "\\_", "\\c", "\\", "end\\",
    "$HOME", "${HOME}", "$", "$$", "$(id)", "`id`", "#", "#comment", "a#b", "*", "?", "[a-z]", "~", "!", "&&", ";", "|",
    ">x", "<x", "--", "-n", "-S", "--help", "%s", "%%", "a=b", "=", "äöü €", "日本語", "🦆", "\u202e", "\x01\x7f\x1b[0m",
    "lxc.uts.name = x", "%n", "x" * 5000, "\u00a0", "\u2028",
]  # fmt: skip

PRINT = 'import os,sys; open("/var/args","wb").write(b"\\0".join(map(os.fsencode,sys.argv[1:]))+b"\\nEND\\n")'


def test_arguments_arrive_exactly(fleet: Fleet) -> None:
    name = app(fleet, fleet.name("a"), "/usr/bin/python3", "-c", PRINT, *ARGUMENTS)
    assert written(fleet, name, "var/args").split(b"\0") == [os.fsencode(argument) for argument in ARGUMENTS]
    # Also when it is started again, from what is on disk.
    (fleet.delta(name) / "var/args").unlink()
    fleet.run("restart", name)
    assert written(fleet, name, "var/args").split(b"\0") == [os.fsencode(argument) for argument in ARGUMENTS]
    # And by plain lxc-start, which reads a line of text.
    fleet.ok("stop", name)
    (fleet.delta(name) / "var/args").unlink()
    subprocess.run(["lxc-start", "-P", str(fleet.paths.lxc), "-n", name], check=True, timeout=60)
    assert written(fleet, name, "var/args").split(b"\0") == [os.fsencode(argument) for argument in ARGUMENTS]


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.text(max_size=40).filter(lambda text: "\0" not in text),
        min_size=30,
        max_size=60,
    )
)
def test_any_arguments_arrive_exactly(own_fleet: Fleet, arguments: list[str]) -> None:
    name = app(own_fleet, own_fleet.name("h"), "/usr/bin/python3", "-c", PRINT, *arguments)
    try:
        assert written(own_fleet, name, "var/args").split(b"\0") == [os.fsencode(argument) for argument in arguments]
    finally:
        own_fleet.ok("destroy", name, "--force")


def test_a_command_by_an_odd_path(fleet: Fleet) -> None:
    """A program whose own name needs quotes."""
    odd = Path(f"/usr/local/bin/lxcfleet test {fleet.tag} $x")
    odd.write_text("#!/bin/sh\nprintf '%s\\nEND\\n' \"$0\" >/var/name\n")
    odd.chmod(0o755)
    try:
        name = app(fleet, fleet.name("a"), str(odd))
        assert written(fleet, name, "var/name") == os.fsencode(odd)
    finally:
        odd.unlink()


def test_the_environment_is_clean(fleet: Fleet) -> None:
    values = {"MODE": "night shift", "EMPTY": "", "ODD": "a=b $HOME \"q\" 'x' \\ ü\nline"}
    options = [word for key, value in values.items() for word in ("-e", f"{key}={value}")]
    script = "env -0 >/var/env; printf '\\nEND\\n' >>/var/env; sleep infinity"
    done = subprocess.run(
        [CLIENT, "create", fleet.name("a"), *options, "--", "sh", "-c", script],
        env=fleet.environment(SECRET_TOKEN="x", LD_LIBRARY_PATH="/nowhere"),
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    seen = dict(
        entry.split("=", 1) for entry in written(fleet, fleet.name("a"), "var/env").decode().split("\0") if entry
    )
    assert seen.pop("PWD", "/") == "/"
    assert seen == {"PATH": APP_PATH, "HOME": "/root", "container": "lxc", **values}
    assert fleet.record(fleet.name("a"))["environment"] == values


def test_standard_streams_are_the_console(fleet: Fleet) -> None:
    name = app(fleet, fleet.name("a"), "sh", "-c", "echo to stdout; echo to stderr >&2; exec sleep infinity")
    until(lambda: "to stderr" in fleet.ok("logs", name))
    assert fleet.ok("logs", name) == "to stdout\nto stderr\n"


def test_zombies_are_reaped(fleet: Fleet) -> None:
    script = "for i in 1 2 3 4 5; do (sleep 0.05 & exec true) & done; wait; exec sleep infinity"
    name = app(fleet, fleet.name("a"), "sh", "-c", script)
    time.sleep(0.5)
    processes = fleet.inside(name, "cat /proc/[0-9]*/stat | cut -d' ' -f2,3")
    assert " Z" not in processes
    assert processes.count("(sleep)") == 1


def test_stop_reaches_the_command(fleet: Fleet) -> None:
    script = "trap 'echo ended >/var/ended; exit 0' TERM; while :; do sleep 0.05; done"
    name = app(fleet, fleet.name("a"), "sh", "-c", script)
    time.sleep(0.2)
    fleet.ok("stop", name)
    assert (fleet.delta(name) / "var/ended").read_text() == "ended\n"
    assert fleet.state(name) == "stopped"


def test_one_that_does_not_listen_is_killed(fleet: Fleet) -> None:
    name = app(fleet, fleet.name("a"), "sh", "-c", "trap '' TERM; while :; do sleep 0.05; done")
    time.sleep(0.2)
    pid = fleet.pid(name)
    fleet.ok("stop", name, "--timeout", "1")
    assert not alive(pid)
    assert fleet.state(name) == "stopped"


@pytest.mark.parametrize("command", ["exit 0", "exit 7", "kill -9 $$", "sleep 0.3"])
def test_it_stops_when_its_command_ends(fleet: Fleet, command: str) -> None:
    name = app(fleet, fleet.name("a"), "sh", "-c", f"{command}; exit")
    fleet.ok("wait", name, "--for", "stopped", "--timeout", "10")
    assert fleet.state(name) == "stopped"
    until(lambda: not fleet.cgroups(), 5, "its cgroups are gone")
    # It is not started again by itself, not even by a new daemon.
    fleet.stop_daemon()
    fleet.start_daemon()
    assert fleet.states() == {name: "stopped"}


def test_commands_that_end_at_once_leave_nothing(fleet: Fleet) -> None:
    """liblxc's monitor by itself leaves its cgroup behind in one of ten such starts."""
    fleet.ok("create", fleet.name("m"), "-n", "40", "--", "true")
    fleet.ok("wait", "--all", "--for", "stopped", "-q")
    until(lambda: not fleet.cgroups(), 5, "their cgroups are gone")


def test_run_and_tmp_are_its_own(fleet: Fleet) -> None:
    name = app(fleet, fleet.name("a"), "sleep", "infinity")
    fleet.inside(name, "touch /run/x /tmp/x /var/tmp/x")
    assert fleet.inside(name, "stat -c %a /run /tmp").split() == ["755", "1777"]
    fleet.ok("restart", name)
    assert fleet.inside(name, "ls /run/x /tmp/x /var/tmp/x 2>/dev/null || :") == "/var/tmp/x"


def test_no_signal_is_ignored_as_a_program_starts(fleet: Fleet) -> None:
    name = fleet.name("a")
    fleet.create(name, command=("--", "sh", "-c", "grep SigIgn /proc/self/status >/out; exec sleep infinity"))
    assert ignored(until(lambda: fleet.inside(name, "cat /out"))) == set()
    assert ignored(fleet.inside(name, "grep SigIgn /proc/self/status")) == set()


def ignored(line: str) -> set[int]:
    """The signals that a line of a process's status names.

    Not 32 and 33: glibc keeps them for itself, so no program can set them, and posix_spawn(3), with which make starts
    what it runs, has 32 ignored (sysdeps/unix/sysv/linux/spawni.c).
    """
    mask = int(line.split()[1], 16)
    return {number for number in range(1, 65) if mask >> (number - 1) & 1} - {32, 33}
