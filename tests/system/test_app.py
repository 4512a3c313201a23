"""App containers: they run one command exactly as it was given, in a clean environment, under an init that reaps."""

from __future__ import annotations

import json
import math
import os
import resource
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lxcfleet.containers.lxc_config import APP_PATH

from .harness import CLIENT, TIMEOUT, Fleet, alive, until

pytestmark = pytest.mark.system


def app(fleet: Fleet, name: str, *command: str, options: tuple[str, ...] = ()) -> str:
    fleet.ok("create", name, *options, "--", *command)
    return name


def written(fleet: Fleet, name: str, path: str) -> bytes:
    """The content of a file that the command wrote, once it is whole. The command ends the file with the line END."""
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
    # A restart reads the arguments from the spec on disk.
    (fleet.delta(name) / "var/args").unlink()
    fleet.run("restart", name)
    assert written(fleet, name, "var/args").split(b"\0") == [os.fsencode(argument) for argument in ARGUMENTS]
    # Plain lxc-start reads them from a line of LXC's configuration.
    fleet.ok("stop", name)
    (fleet.delta(name) / "var/args").unlink()
    subprocess.run(["lxc-start", "-P", str(fleet.paths.lxc), "-n", name], check=True, timeout=TIMEOUT)
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


def test_a_command_with_an_odd_path_runs(fleet: Fleet) -> None:
    """The program's own path needs quotes."""
    odd = Path(f"/usr/local/bin/lxcfleet test {fleet.tag} $x")
    odd.write_text("#!/bin/sh\nprintf '%s\\nEND\\n' \"$0\" >/var/name\n")
    odd.chmod(0o755)
    try:
        name = app(fleet, fleet.name("a"), str(odd))
        assert written(fleet, name, "var/name") == os.fsencode(odd)
    finally:
        odd.unlink()


def test_a_program_starts_with_a_clean_environment(fleet: Fleet) -> None:
    values = {"MODE": "night shift", "EMPTY": "", "ODD": "a=b $HOME \"q\" 'x' \\ ü\nline"}
    options = [word for key, value in values.items() for word in ("-e", f"{key}={value}")]
    script = "env -0 >/var/env; printf '\\nEND\\n' >>/var/env; sleep infinity"
    done = subprocess.run(
        [CLIENT, "create", fleet.name("a"), *options, "--", "sh", "-c", script],
        env=fleet.environment(SECRET_TOKEN="x", LD_LIBRARY_PATH="/nowhere"),
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0
    seen = dict(
        entry.split("=", 1) for entry in written(fleet, fleet.name("a"), "var/env").decode().split("\0") if entry
    )
    assert seen.pop("PWD", "/") == "/"
    assert seen == {"PATH": APP_PATH, "HOME": "/root", "LANG": "C.UTF-8", "container": "lxc", **values}
    assert fleet.record(fleet.name("a"))["environment"] == values


def test_standard_streams_are_the_console(fleet: Fleet) -> None:
    name = app(fleet, fleet.name("a"), "sh", "-c", "echo to stdout; echo to stderr >&2; exec sleep infinity")
    until(lambda: "to stderr\n" in fleet.ok("logs", name))
    assert fleet.ok("logs", name) == "to stdout\nto stderr\n"


def test_zombies_are_reaped(fleet: Fleet) -> None:
    script = "for i in 1 2 3 4 5; do (sleep 0.05 & exec true) & done; wait; exec sleep infinity"
    name = app(fleet, fleet.name("a"), "sh", "-c", script)


    def only_one_sleeps() -> bool:
        processes = fleet.inside(name, "cat /proc/[0-9]*/stat 2>/dev/null | cut -d' ' -f2,3")
        return " Z" not in processes and processes.count("(sleep)") == 1

    until(only_one_sleeps, what="all the others have ended, and none of them is a zombie")


def test_stop_reaches_the_command(fleet: Fleet) -> None:
    script = "trap 'echo ended >/var/ended; exit 0' TERM; touch /var/ready; while :; do sleep 0.05; done"
    name = app(fleet, fleet.name("a"), "sh", "-c", script)
    until((fleet.delta(name) / "var/ready").exists, what="the command hears the signal")
    fleet.ok("stop", name)
    assert (fleet.delta(name) / "var/ended").read_text() == "ended\n"
    assert fleet.state(name) == "stopped"


def test_a_command_that_ignores_sigterm_is_killed(fleet: Fleet) -> None:
    name = app(fleet, fleet.name("a"), "sh", "-c", "trap '' TERM; touch /var/ready; while :; do sleep 0.05; done")
    until((fleet.delta(name) / "var/ready").exists, what="the command ignores the signal")
    pid = fleet.pid(name)
    fleet.ok("stop", name, "--timeout", "1")
    assert not alive(pid)
    assert fleet.state(name) == "stopped"


def test_a_container_stops_when_its_command_ends(fleet: Fleet) -> None:
    """Before, create said "created" of a command that had failed, and nobody knew its exit status."""
    ends = {"exit 0": 0, "echo no file; exit 7": 7, "kill -9 $$": 137, "sleep 1; exit 3": 3}
    names = {command: fleet.name(number) for number, command in enumerate(ends)}
    for command, status in ends.items():
        ran = fleet.run("create", names[command], "--", "sh", "-c", f"{command}; exit")
        assert (ran.status, "ended at once" in ran.err) == ((1, True) if status in (7, 137) else (0, False)), ran
        assert ("its last lines:\n  no file" in ran.err) == (status == 7)
    for command, status in ends.items():
        assert fleet.run("wait", names[command], "--for", "stopped", "--status", "-q").status == status
    states = {names[command]: "failed" if status else "exited" for command, status in ends.items()}
    assert fleet.states() == states
    until(lambda: not fleet.cgroups(), 5, "the containers' cgroups are gone")
    # Nothing starts them again, not even a new daemon, which knows as much.
    fleet.stop_daemon()
    fleet.start_daemon()
    assert fleet.states() == states
    assert [fleet.record(names[command])["exit"]["status"] for command in ends] == [*ends.values()]
    assert "exited 7 · " in fleet.ok("list", names["echo no file; exit 7"])


def test_commands_that_end_at_once_leave_nothing(fleet: Fleet) -> None:
    """liblxc's monitor by itself leaves its cgroup behind in one of ten such starts."""
    fleet.ok("create", fleet.name("m"), "-n", "40", "--", "true")
    fleet.ok("wait", "--all", "--for", "stopped", "-q")
    until(lambda: not fleet.cgroups(), 5, "the containers' cgroups are gone")


def test_a_container_has_run_and_tmp_of_its_own(fleet: Fleet) -> None:
    name = app(fleet, fleet.name("a"), "sleep", "infinity")
    fleet.inside(name, "touch /run/x /tmp/x /var/tmp/x")
    assert fleet.inside(name, "stat -c %a /run /tmp").split() == ["755", "1777"]
    fleet.ok("restart", name)
    assert fleet.inside(name, "ls /run/x /tmp/x /var/tmp/x 2>/dev/null || :") == "/var/tmp/x"


def test_no_signal_is_ignored_as_a_program_starts(fleet: Fleet) -> None:
    name = fleet.name("a")
    fleet.create(name, command=("--", "sh", "-c", "grep SigIgn /proc/self/status >/out; exec sleep infinity"))
    assert ignored(until(lambda: fleet.inside(name, "cat /out 2>/dev/null || :"))) == set()
    assert ignored(fleet.inside(name, "grep SigIgn /proc/self/status")) == set()


def ignored(line: str) -> set[int]:
    """The signals that a line of a process's status names, without 32 and 33.

    glibc keeps these two for itself, so no program can set them. make starts its commands by posix_spawn(3), which leaves
    signal 32 ignored (sysdeps/unix/sysv/linux/spawni.c).
    """
    mask = int(line.split()[1], 16)
    return {number for number in range(1, 65) if mask >> (number - 1) & 1} - {32, 33}


INHERITED = """
import json, os, resource, sys
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
limits = {n[7:].lower(): resource.getrlimit(getattr(resource, n)) for n in dir(resource) if n.startswith("RLIMIT_")}
print(json.dumps({
    "ignored": int(status["SigIgn"], 16) & 0x3fffffff & ~(1 << 12 | 1 << 24),  # Python itself ignores these two
    "umask": status["Umask"].strip(), "groups": status["Groups"].split(), "blocked": int(status["SigBlk"], 16),
    "nice": os.getpriority(os.PRIO_PROCESS, 0), "oom": int(open("/proc/self/oom_score_adj").read()),
    "policy": os.sched_getscheduler(0), "descriptors": sorted(map(int, os.listdir("/proc/self/fd")))[:-1],
    "session": os.getsid(0), "group": os.getpgid(0) > 0,
    "leader": {"app": 1}.get(sys.argv[1], os.getpid()), "language": os.environ.get("LANG"), "limits": limits,
    "variables": sorted(os.environ.keys() - {"LC_CTYPE"}), "directory": os.getcwd(),
}), flush=True)
"""
ODD = (
    "trap '' HUP QUIT USR1; umask 077; ulimit -S -f 99999999; ulimit -S -n 8192; ulimit -S -s 16384; ulimit -S -c 100;"
    ' exec nice -n 1 "$0" "$@" 9</dev/null'
)
"""A shell line that starts a daemon with odd limits, priority, umask, ignored signals and descriptors."""


def test_a_program_starts_as_from_a_login_however_the_daemon_was_started(own_fleet: Fleet) -> None:
    fleet = own_fleet
    fleet.stop_daemon()
    before, fleet.within = fleet.within, (*fleet.within, "sh", "-c", ODD)
    fleet.start_daemon()
    fleet.within = before
    name = app(fleet, fleet.name("inherits"), "python3", "-c", f"{INHERITED}\nimport time; time.sleep(1000)", "app")
    until(lambda: fleet.ok("logs", name).endswith("}\n"), what="it has printed the whole line")
    seen = {
        "app": json.loads(fleet.ok("logs", name)),
        "exec": json.loads(fleet.ok("exec", name, "--", "python3", "-c", INHERITED, "exec")),
    }
    unlimited = [-1, -1]
    limits = {
        "as": unlimited, "core": [0, -1], "cpu": unlimited, "data": unlimited, "fsize": unlimited, "rss": unlimited,
        "memlock": [8388608, 8388608], "nofile": [1024, 524288], "rtprio": [0, 0], "stack": [8388608, -1],
    }  # fmt: skip
    for who, found in seen.items():
        all_limits = found.pop("limits")
        wrong = {key: all_limits[key] for key, want in limits.items() if all_limits[key] not in (want, reachable(key, want))}
        assert wrong == {}, who
        assert found.pop("session") == found.pop("leader"), who
        own = ["HOME", "LANG", "PATH", "container"] + ["LOGNAME", "USER"] * (who == "exec")
        assert found == {
            "ignored": 0,
            "umask": "0022", "groups": [], "blocked": 0, "nice": 0, "oom": 500, "policy": 0, "descriptors": [0, 1, 2],
            "group": True, "language": "C.UTF-8", "variables": sorted(own), "directory": "/root" if who == "exec" else "/",
        }, who  # fmt: skip
    fleet.stop_daemon()  # the tests after this one have another, as this one gives way to all others


def reachable(key: str, limits: Sequence[int]) -> list[int]:
    """The limits, soft and hard, that come closest to those wanted where the daemon can't raise a hard limit, as it has no
    CAP_SYS_RESOURCE."""
    most = resource.getrlimit(getattr(resource, f"RLIMIT_{key.upper()}"))[1]
    return [min(limits[0], most, key=lambda limit: math.inf if limit == resource.RLIM_INFINITY else limit), most]


def test_a_containers_limits_are_visible_in_its_cgroup(fleet: Fleet) -> None:
    """Node, Java and Go size their heaps and pools by these files."""
    name = fleet.name("a")
    fleet.create(name, options=("--memory", "64M"))
    files = "/sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes"
    assert fleet.inside(name, f"cat {files} 2>/dev/null || :").split() == [str(64 << 20)]
    assert fleet.run("exec", name, "--", "sh", "-c", "cd /sys/fs/cgroup; cd memory 2>/dev/null; mkdir x").status != 0


def test_any_program_can_write_to_run_lock(fleet: Fleet) -> None:
    """Before, `apache2ctl -D FOREGROUND` ended at once, as /var/lock was a link to a missing directory."""
    name = app(fleet, fleet.name("a"), "sh", "-c", "mktemp -d /var/lock/x.XXXXXX && exec sleep infinity")
    time.sleep(0.5)
    assert fleet.state(name) == "running"
    assert fleet.inside(name, "stat -c %a /run/lock") == "1777"


def test_run_has_what_packages_ask_for_in_tmpfiles_d(fleet: Fleet) -> None:
    conf = Path(f"/usr/lib/tmpfiles.d/zz-lxcfleet-test-{fleet.tag}.conf")
    conf.write_text(f"d /run/{fleet.tag} 2775 daemon man -\nd /run/{fleet.tag}/deep 0700 daemon\n")
    try:
        name = app(fleet, fleet.name("a"), "sleep", "infinity")
        look = f"stat -c '%a %U %G' /run /run/{fleet.tag} /run/{fleet.tag}/deep; stat -f -c %T /run"
        expected = ["755 root root", "2775 daemon man", "700 daemon root", "tmpfs"]
        assert fleet.inside(name, look).splitlines() == expected
        fleet.inside(name, f"rmdir /run/{fleet.tag}/deep && chown man /run/{fleet.tag} && mkdir /run/own")
        fleet.ok("stop", name)
        subprocess.run(["lxc-start", "-P", str(fleet.paths.lxc), "-n", name], check=True, timeout=TIMEOUT)
        assert fleet.inside(name, look).splitlines() == expected
        fleet.ok("restart", name)
        assert fleet.inside(name, look).splitlines() == expected
        assert fleet.inside(name, "ls /run/own 2>/dev/null || echo none") == "none"
    finally:
        conf.unlink()


def test_exec_and_shell_have_the_language_of_the_container(fleet: Fleet) -> None:
    name = fleet.name("a")
    fleet.create(name, options=("-e", "LANG=de_DE.UTF-8", "-e", "LC_TIME=C", "-e", "OTHER=x"))
    said = fleet.ok("exec", name, "--", "sh", "-c", "echo $LANG $LC_TIME $OTHER").split()
    assert said == ["de_DE.UTF-8", "C"]
    assert fleet.ok("exec", "-e", "LANG=C", name, "--", "sh", "-c", "echo $LANG").split() == ["C"]
    assert fleet.ok("shell", name, input=b"echo $LANG").split()[-1] == "de_DE.UTF-8"
    other = fleet.name("b")
    fleet.create(other)
    fleet.inside(other, "echo LANG=fr_FR.UTF-8 >/etc/locale.conf")
    assert fleet.inside(other, "echo $LANG") == "fr_FR.UTF-8", "its own file says so"


def test_the_command_has_the_language_that_the_containers_files_ask_for(fleet: Fleet) -> None:
    """In both forms of its configuration, and never instead of what the spec says."""
    says = ("--", "sh", "-c", "echo $LANG,$LC_TIME,$X; exec sleep infinity")
    asked = {"a": (), "b": ("-e", "X=1"), "c": ("-e", "LANG=C.UTF-8")}
    for word, options in asked.items():
        fleet.create(fleet.name(word), command=says, options=options)
        fleet.inside(fleet.name(word), "echo LANG=fr_FR.UTF-8 >/etc/locale.conf; echo LC_TIME=C >>/etc/locale.conf")
    fleet.ok("restart", *map(fleet.name, asked))
    for word, line in {"a": "fr_FR.UTF-8,C,", "b": "fr_FR.UTF-8,C,1", "c": "C.UTF-8,,"}.items():
        until(lambda word=word, line=line: fleet.ok("logs", fleet.name(word)).split()[-1:] == [line], what=line)  # type: ignore[misc]
    fleet.inside(fleet.name("a"), "rm /etc/locale.conf")
    fleet.ok("restart", fleet.name("a"))
    until(lambda: fleet.ok("logs", fleet.name("a")).split()[-1:] == ["C.UTF-8,,"], 10)
