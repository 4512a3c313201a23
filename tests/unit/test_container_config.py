"""LXC's configuration, as written from a spec."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lxcfleet.containers.foreground import Foreground
from lxcfleet.containers.lxc_config import Platform, arguments, init_command, render
from lxcfleet.containers.lxc_hooks import reboot_hook, stop_hook
from lxcfleet.errors import InvalidInput
from lxcfleet.host.lxc import stopping
from lxcfleet.paths import Paths
from lxcfleet.spec.container import combinations
from lxcfleet.spec.container.restart import Restart, RestartPolicy
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.reading.terms import Init, NetworkMode, StopSignal

PLATFORM = Platform(
    cgroup2=True, controllers=frozenset(("cpu", "memory", "pids")), apparmor=True, seccomp=True, bridge="lxcfleet0",
    cgroup="lxcfleet.slice", hook=Path("/usr/lib/lxcfleet/hook.py"),
)  # fmt: skip
LEGACY = replace(PLATFORM, cgroup2=False, controllers=frozenset(("cpu", "memory", "pids", "devices")), cgroup="")
BARE = replace(PLATFORM, cgroup2=False, controllers=frozenset(), cgroup="", apparmor=False, seccomp=False)

ARGUMENT = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=12)


def app(*command: str, **environment: str) -> Spec:
    return Spec("web", Init.APP, command, environment, first_id=1879048192)


def config(spec: Spec, platform: Platform = PLATFORM) -> dict[str, list[str]]:
    """The lines as liblxc reads them: key to values."""
    lines: dict[str, list[str]] = {}
    for line in render(spec, Paths(), platform, 1024).split("\n"):
        if line and not line.startswith("#"):
            key, _, value = line.partition(" = ")
            lines.setdefault(key, []).append(value)
    return lines


def test_an_unprivileged_container_has_its_own_range() -> None:
    assert config(app("true"))["lxc.idmap"] == ["u 0 1879048192 65536", "g 0 1879048192 65536"]


def test_a_privileged_container_has_no_range() -> None:
    assert "lxc.idmap" not in config(Spec("web", Init.SYSTEM, first_id=None))


def test_nothing_is_included_that_other_packages_may_change() -> None:
    assert "lxc.include" not in config(app("true"))


def test_confinement_follows_the_hosts_features() -> None:
    assert config(app("true"))["lxc.apparmor.profile"] == ["generated"]
    bare = config(app("true"), BARE)
    assert not {key for key in bare if "apparmor" in key or "cgroup" in key or "seccomp" in key}


def test_the_network_is_made_by_liblxc_from_the_spec() -> None:
    assert config(app("true"))["lxc.net.0.type"] == ["empty"]
    assert config(app("true"))["lxc.net.0.flags"] == ["up"], "its loopback interface"
    connected = Spec(
        "web", Init.SYSTEM, network=NetworkMode.BRIDGE,
        address=IPv4Interface("10.201.0.9/16"), address6=IPv6Interface("fd00::9/64"),
    )  # fmt: skip
    lines = config(connected)
    assert lines["lxc.net.0.link"] == ["lxcfleet0"]
    assert lines["lxc.net.0.ipv4.address"] == ["10.201.0.9/16 10.201.255.255"]
    assert lines["lxc.net.0.ipv4.gateway"] == ["10.201.0.1"]
    assert lines["lxc.net.0.ipv6.gateway"] == ["fd00::1"]
    assert lines["lxc.net.0.veth.pair"] == ["lf0ac90009"]
    leased = config(Spec("web", network=NetworkMode.BRIDGE, hardware="06:0a:0b:0c:0d:0e"), replace(PLATFORM, bridge="br0"))
    assert leased["lxc.net.0.link"] == ["br0"]
    assert leased["lxc.net.0.hwaddr"] == ["06:0a:0b:0c:0d:0e"]
    assert leased["lxc.net.0.veth.pair"] == ["ld0a0b0c0d0e"]
    assert "lxc.net.0.ipv4.address" not in leased


def test_limits_are_written_for_the_cgroups_that_the_host_has() -> None:
    spec = replace(app("true"), memory=1 << 29, cpus=1.5, pids=100)
    modern, legacy = config(spec), config(spec, LEGACY)
    assert modern["lxc.cgroup2.memory.max"] == ["536870912"]
    assert modern["lxc.cgroup2.cpu.max"] == ["150000 100000"]
    assert modern["lxc.cgroup2.pids.max"] == ["100"]
    assert not [key for key in modern if key.startswith("lxc.cgroup.") and key != "lxc.cgroup.dir"]
    assert legacy["lxc.cgroup.memory.limit_in_bytes"] == ["536870912"]
    assert legacy["lxc.cgroup.cpu.cfs_quota_us"] == ["150000"]
    assert legacy["lxc.cgroup.pids.max"] == ["100"]
    assert not [key for key in legacy if key.startswith("lxc.cgroup2.")]
    assert modern["lxc.cgroup2.devices.deny"] == legacy["lxc.cgroup.devices.deny"] == ["a"]


def test_processes_are_limited_by_default_and_nothing_else() -> None:
    lines = config(app("true"))
    assert lines["lxc.cgroup2.pids.max"] == ["4096"]
    assert not [key for key in lines if "memory" in key or "cpu." in key]
    assert "lxc.cgroup2.pids.max" not in config(replace(app("true"), pids=0))


def test_nesting_only_where_it_is_asked_for() -> None:
    """Before, each container had it where the host has AppArmor: liblxc mounts a whole /proc and /sys for allow_nesting."""

    def helpers(nesting: bool, platform: Platform) -> tuple[list[str], bool]:
        lines = config(replace(app("true"), nesting=nesting), platform)
        own = [value.split()[1] for value in lines["lxc.mount.entry"] if "/.lxc/" in value]
        return own, lines.get("lxc.apparmor.allow_nesting") == ["1"]

    assert helpers(False, PLATFORM) == helpers(False, BARE) == ([], False)
    assert helpers(True, PLATFORM) == ([], True)
    assert helpers(True, BARE) == (["dev/.lxc/proc", "dev/.lxc/sys"], False)


def test_apparmor_lets_systemd_mount_and_only_those_with_nesting_make_terminals() -> None:
    """Before, AppArmor refused the devpts that bubblewrap (--dev) and podman's crun mount for each container."""
    raw = config(app("true"))["lxc.apparmor.raw"]
    assert {"mount,", "deny mount fstype=devpts,"} < {*raw}
    assert "lxc.apparmor.raw" not in config(replace(app("true"), nesting=True))


def test_no_new_privileges_only_when_asked_for() -> None:
    assert "lxc.no_new_privs" not in config(app("true"))
    assert config(replace(app("true"), no_new_privs=True))["lxc.no_new_privs"] == ["1"]


def test_variables_are_not_in_the_command_line_of_process_1() -> None:
    line = init_command(app("true", SECRET="s3cret"))
    program = line.split()[0]
    assert program == "/usr/bin/env"
    assert line.index("s3cret") < line.index("/usr/bin/tini-static")


HOSTILE = st.text(st.sampled_from("\n\r\v\f =#'\"\\$`lxc.hook.start\u2028\x85"), max_size=20)


@settings(max_examples=200, deadline=None)
@given(st.lists(HOSTILE, max_size=4), st.dictionaries(st.just("A"), HOSTILE))
def test_no_value_makes_a_line_of_its_own(arguments: list[str], variables: dict[str, str]) -> None:
    """liblxc reads lines. Whatever command and variables hold, the keys must be those that we wrote."""
    hostile = render(replace(app("true", *arguments), environment=variables), Paths(), PLATFORM, 1024)
    plain = render(app("true"), Paths(), PLATFORM, 1024)
    keys = [line.partition(" = ")[0] for line in hostile.split("\n")]
    assert keys == [line.partition(" = ")[0] for line in plain.split("\n")]
    assert not set("\r\v\f") & set(hostile)


@pytest.mark.reaches("processes", reason="what env makes of the line")
@settings(max_examples=60, deadline=None)
@given(st.lists(ARGUMENT, max_size=5))
def test_arguments_arrive_as_they_were_given(arguments: list[str]) -> None:
    line = init_command(app("printf", "%s\\0", *arguments))
    assert "\n" not in line
    # liblxc's split_init_cmd splits at blanks, and at nothing else here.
    words = line.encode().split()
    done = subprocess.run(words, capture_output=True, check=True)
    assert done.stdout == b"".join(a.encode() + b"\0" for a in arguments or [""])


@pytest.mark.reaches("processes", reason="what env makes of the line")
@pytest.mark.parametrize("value", ["a b", "$HOME", "it's \"quoted\"", "back\\slash", "two\nlines", "# no comment"])
def test_variables_arrive_as_they_were_given(value: str) -> None:
    words = init_command(app("printenv", "VALUE", VALUE=value)).encode().split()
    assert subprocess.run(words, capture_output=True, check=True).stdout.decode() == value + "\n"


@pytest.mark.reaches("processes", reason="what env makes of the line")
def test_the_command_sees_no_variable_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "1")
    words = init_command(app("env", MODE="night")).split()
    done = subprocess.run(words, capture_output=True, check=True, text=True)
    assert {line.partition("=")[0] for line in done.stdout.splitlines()} == {"PATH", "LANG", "HOME", "container", "MODE"}


@pytest.mark.parametrize("letter", ["x", " ", "ü", "\\"])
@pytest.mark.parametrize("user", [None, "nobody:nogroup"])
def test_variables_that_the_kernel_would_not_take_are_refused_before(letter: str, user: str | None) -> None:
    """MAX_ARG_STRLEN is 131072 with the byte at the end: an exec of more fails, and the container would stay down."""
    longest = 0
    for length in range(10_000, 130_000, 100):
        spec = replace(app("sleep", "inf", VALUE=letter * length), user=user)
        try:
            combinations.check(spec)
        except InvalidInput:
            break
        note = Foreground(stdin=True)
        longest = max(len(each) for each in init_command(spec, note).encode().split())
    assert 110_000 < longest < 131_072


def test_a_plain_command_needs_no_helper() -> None:
    assert init_command(app("sleep", "infinity")) == "/usr/bin/tini-static -- sleep infinity"
    assert config(app("true"))["lxc.environment"] == [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "HOME=/root",
    ]  # fmt: skip


@pytest.mark.parametrize("word", ["", " ", "a b", '"', "'", "\\", "#", "$HOME", "ü", "a\n"])
def test_a_command_with_any_other_character_goes_through_env(word: str) -> None:
    assert init_command(app("printf", word)).startswith("/usr/bin/env -i -S")


def test_liblxc_gets_words_if_no_line_is_needed() -> None:
    assert arguments(app("sh", "-c", "two words; \'\"")) == ("/usr/bin/tini-static", "--", "sh", "-c", "two words; \'\"")
    # Only env keeps variables out of a place that all users may read, and a system container's init takes no words of ours.
    assert arguments(app("true", SECRET="s3cret")) == ()
    assert arguments(Spec("web", Init.SYSTEM, first_id=1879048192)) == ()


def test_only_system_containers_may_reboot() -> None:
    assert "sys_boot" in config(app("true"))["lxc.cap.drop"][0].split()
    assert "lxc.hook.post-stop" not in config(app("true"))
    assert "lxc.hook.post-stop" in config(Spec("web", Init.SYSTEM, first_id=1879048192))


@pytest.mark.reaches("processes", reason="what a shell makes of the hook")
@pytest.mark.parametrize(("target", "status", "word"), [("stop", 0, None), ("reboot", 1, "start\n")])
def test_a_reboot_becomes_a_stop_that_is_owed_a_start(
    tmp_path: Path, target: str, status: int, word: str | None
) -> None:
    pending = tmp_path / "it's here" / "pending"
    pending.parent.mkdir()
    # As liblxc runs it: conf.c, run_buffer, puts exec before the line.
    done = subprocess.run(
        ["/bin/sh", "-c", f"exec {reboot_hook(pending)}"], env={"LXC_TARGET": target, "PATH": "/sbin"}, check=False
    )
    assert done.returncode == status
    assert (pending.read_text() if pending.exists() else None) == word


def test_a_user_is_looked_up_inside_and_tini_stays_root_s() -> None:
    spec = Spec("web", Init.APP, ("sleep", "1 0"), user="daemon:adm", stop_signal=StopSignal.INT)
    words = arguments(spec)
    assert words[:4] == ("/usr/bin/tini-static", "--", "/bin/sh", "-c")
    assert words[-3:] == ("daemon:adm", "sleep", "1 0")
    assert not [value for value in config(spec)["lxc.environment"] if value.startswith("HOME")]
    assert config(spec)["lxc.signal.halt"] == ["SIGINT"]
    own = Spec("web", Init.APP, ("sleep", "9"), {"HOME": "/here"}, user="daemon")
    assert "for own in USER LOGNAME;" in init_command(own).replace("\\_", " ")


def test_who_waits_for_the_end_of_one_that_would_be_started_again_is_written_down() -> None:
    own = Paths().container("web")
    assert config(app("true"))["lxc.hook.stop"] == [stop_hook(own.stopping, own.pending)]
    for policy in (RestartPolicy.ALWAYS, RestartPolicy.ON_FAILURE, RestartPolicy.UNLESS_STOPPED):
        assert config(replace(app("true"), restart=Restart(policy)))["lxc.hook.stop"] == [stop_hook(own.stopping)]


MONITOR = """
import subprocess, socket, sys
held = [socket.socket(socket.AF_UNIX) for _ in range(int(sys.argv[1]))]
subprocess.run(["/bin/sh", "-c", f"exec {sys.argv[2]}"], env={"PATH": "/nowhere"}, check=True)
"""
"""Runs the line as liblxc does, as the child of a process with so many sockets."""


@pytest.mark.reaches("processes", reason="the shell is to understand the line")
def test_the_hook_finds_lxc_stop_and_looks_for_it_only_if_the_monitor_may_have_been_called(tmp_path: Path) -> None:
    file = tmp_path / "it's a file"
    program = tmp_path / "lxc-stop"
    shutil.copy("/bin/sleep", program)
    found = []
    with subprocess.Popen([program, "1000"]) as process:
        for sockets in (1, 0, 2, 3):  # none: the monitor can't be looked at
            monitor = [sys.executable, "-c", MONITOR, str(sockets), stop_hook(file)]
            subprocess.run(monitor, stdin=subprocess.DEVNULL, check=True)
            found.append(file.read_text().count(f"{program}\0" + "1000\0") if file.exists() else 0)
        process.kill()
    assert found == [0, 1, 2, 3]
    pending, found = tmp_path / "it's pending", []
    with subprocess.Popen([program, "1000"]) as process:
        for words in (None, "stop\n", "start\n"):
            if words is not None:
                pending.write_text(words)
            monitor = [sys.executable, "-c", MONITOR, "2", stop_hook(file, pending)]
            subprocess.run(monitor, stdin=subprocess.DEVNULL, check=True)
            found.append(file.read_text().count(f"{program}\0" + "1000\0"))
        process.kill()
    assert found == [3, 3, 4], "only what ends during a start whose daemon was killed has to be told from a death"
    assert stopping.noted(b"lxc-stop\0-n\0other\0\nlxc-stop\0-n\0web\0\n", "web", "/var/lib/lxc")
    assert stopping.noted(file.read_bytes(), "1000", "/var/lib/lxc")
    assert not stopping.noted(file.read_bytes(), "web", "/var/lib/lxc")
    assert not stopping.noted(b"lxc-stop\0-n\0web\0\n", "web", "/srv")
