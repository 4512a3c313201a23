"""Tests of a group on real containers: a bad version that is healthy, and a test that hangs with its children."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lxcfleet.host.process import cgroup, enclosure

from .harness import TIMEOUT, Fleet, command_line, command_lines, processes_in, until

pytestmark = pytest.mark.system

LASTING = f"sleep {random.randrange(10**4, 10**5)}.{random.randrange(10**6)}"
"""No other test has such a process."""
FORKS = f"f() {{ setsid env -i sh -c 'while :; do setsid env -i {LASTING} & sleep 0.01; done' & }}; f; f; f; {LASTING}"
"""Each process leaves its session, and empties its environment."""
PLACE = Path("/opt/lxcfleet-tests")
"""On the host, and so in every clone."""
SETTINGS = """
alive_time: 0.1
rollout: {min_healthy_time: 0.1, healthy_deadline: 60}
profiles:
  web:
    rollout:
      tests:
        - name: version
          passes: 2
          run: [sh, -c, "ls -l /proc/self/fd | grep socket: && exit 9;
            cd /opt/lxcfleet-tests; cat version; grep -q good version"]
        - name: outside
          where: host
          run: [/bin/sh, -c, 'env >>SEEN; test "$(id -u)" = 0 && test -e LXC/$LXCFLEET_CONTAINER']
  hanging:
    rollout:
      tests:
        - {name: hangs, timeout: 4, run: [sh, -c, "(setsid LASTING &); LASTING & echo waits; LASTING"]}
  forking:
    rollout:
      tests:
        - {name: inside, timeout: 1, run: [/bin/sh, -c, "FORKS"]}
        - {name: outside, where: host, timeout: 1, run: [/bin/sh, -c, "FORKS"]}
"""


def replace(path: Path, text: bytes) -> None:
    """Rename a new file to ``path``, as dpkg does."""
    new = path.with_suffix(".dpkg-new")
    new.write_bytes(text)
    new.chmod(0o755)
    os.rename(new, path)


@pytest.fixture
def tested(fleet: Fleet, tmp_path: Path) -> Iterator[Fleet]:
    """A fleet with these profiles, and a program of the host that can be patched."""
    PLACE.mkdir()
    try:
        replace(PLACE / "serve", Path("/usr/bin/sleep").read_bytes())
        replace(PLACE / "version", b"good\n")
        fleet.stop_daemon()
        words = {"SEEN": str(tmp_path / "seen"), "FORKS": FORKS, "LASTING": LASTING, "LXC/": f"{fleet.paths.lxc}/"}
        text = SETTINGS
        for word, stands_for in words.items():
            text = text.replace(word, stands_for)
        fleet.settings(fleet.usual + text)
        fleet.paths.rollout.unlink(missing_ok=True)
        fleet.start_daemon()
        yield fleet
        fleet.run("rollout", "abort")
        fleet.ok("destroy", "--all", "--force", "-q")
        fleet.stop_daemon()
        fleet.settings(fleet.usual)
    finally:
        shutil.rmtree(PLACE)


def test_a_bad_version_that_is_healthy_and_fails_its_test_reaches_the_canary_alone(tested: Fleet, tmp_path: Path) -> None:
    tested.ok("create", tested.name("w"), "-n", "2", "--profile", "web", "--", str(PLACE / "serve"), "infinity")
    tested.ok("wait", tested.name("w*"), "--for", "healthy")
    replace(PLACE / "serve", Path("/usr/bin/sleep").read_bytes() + b"2")
    replace(PLACE / "version", b"evil\n")
    ran = tested.run("patch", "apply", "--healthy-deadline", "6", "-f", "json")
    record = json.loads(ran.out)
    canary, *others = record["containers"]
    assert ran.status == 1, ran
    assert (canary["phase"], canary["failing_before"]) == ("failed", {})
    assert "its test version was bad 6 s after its start: exit status 1: evil" in ran.err
    assert {each["name"]: each["verdict"] for each in canary["tests"]} == {"version": "bad", "outside": "good"}
    assert {each["phase"] for each in others} == {"waiting"}
    seen = (tmp_path / "seen").read_text()
    assert f"LXCFLEET_CONTAINER={canary['name']}\n" in seen
    assert {line.partition("=")[0] for line in seen.splitlines()} <= {
        "LXCFLEET_CONTAINER", "LXCFLEET_ADDRESS", "LXCFLEET_GENERATION", "LXCFLEET_GROUP", "LXCFLEET_APP",
        "PATH", "HOME", "LC_ALL", "PWD",
    }  # fmt: skip
    # A mended version goes through, with tests that are good twice in a row.
    replace(PLACE / "serve", Path("/usr/bin/sleep").read_bytes() + b"3")
    replace(PLACE / "version", b"good again\n")
    tested.ok("patch", "apply", "--max-unavailable", "3")
    after = tested.client().rollout()
    assert after is not None
    assert {each["phase"] for each in after["containers"]} == {"done"}
    assert [test["passed"] for test in after["containers"][1]["tests"]] == [2, 1]


def test_a_test_that_hangs_ends_with_all_that_it_started(tested: Fleet) -> None:
    name = tested.name("h")
    tested.ok("create", name, "--profile", "hanging", "--", "sleep", "infinity")
    tested.ok("wait", name, "--for", "healthy")
    record = tested.json("restart", name, "--rolling")
    (only,) = record["containers"]
    assert only["failing_before"] == {"hangs": "bad: not done after 4 s: waits"}
    assert only["phase"] == "done"
    until(lambda: not _hanging(name), 5, "the processes of the test are gone")
    assert [each["verdict"] for each in only["tests"]] == ["bad"]


def test_tests_that_fork_for_ever_end_with_all_that_they_started(tested: Fleet) -> None:
    name = tested.name("f")
    tested.ok("create", name, "--profile", "forking", "--", "sleep", "infinity")
    tested.ok("wait", name, "--for", "healthy")
    record = tested.json("restart", name, "--rolling")
    assert {each["name"]: each["verdict"] for each in record["containers"][0]["tests"]} == {"inside": "bad", "outside": "bad"}
    until(lambda: not [pid for pid, _ in command_lines() if _sleeps(pid)], 5, "the processes of the tests are gone")
    until(lambda: not _cgroups(), 5, "the cgroups of the tests are gone")  # those of rollouts beside this one go as well


def test_what_a_test_left_whose_launcher_was_killed_ends_with_the_next_test(tested: Fleet) -> None:
    name = tested.name("k")
    tested.ok("create", name, "--profile", "hanging", "--", "sleep", "infinity")
    tested.ok("wait", name, "--for", "healthy")
    payload = cgroup.payload(tested.pid(name), name)
    above = enclosure.place_inside(payload)
    assert above is not None
    left = above / "lxcfleet-test-1-1-0badcafe"
    left.mkdir()
    with subprocess.Popen(LASTING.split()) as process:
        try:
            (left / "cgroup.procs").write_text(str(process.pid))
            tested.run("restart", name, "--rolling")
            assert process.wait(TIMEOUT) == -signal.SIGKILL
        finally:
            process.kill()
    until(lambda: not left.exists(), 5)


def _sleeps(pid: int) -> bool:
    return LASTING.split()[1] in command_line(pid)


def _cgroups() -> list[str]:
    return [path for path, _, _ in os.walk("/sys/fs/cgroup") if "/lxcfleet-test-" in path]


def _hanging(name: str) -> list[int]:
    return [pid for pid in processes_in(name) if _sleeps(pid)]


def test_a_rehearsal_says_what_a_patch_would_do_and_leaves_nothing_whatever_is_killed(tested: Fleet) -> None:
    name = tested.name("r")
    tested.ok("create", name, "--profile", "web", "--", str(PLACE / "serve"), "infinity")
    tested.ok("wait", name, "--for", "healthy")
    pid = tested.pid(name)
    tested.inside(name, "touch /root/own")
    replace(PLACE / "version", b"evil\n")
    ran = tested.run("patch", "rehearse", name, "--test", "test ! -e /root/own", "-f", "json")
    record = json.loads(ran.out)
    assert (ran.status, record["why"]) == (4, "its test version is bad: exit status 1: evil"), ran
    assert [each["verdict"] for each in record["tests"]] == ["bad", "good", "good"]
    assert [event["message"] for event in tested.events("rehearsal")] == [
        "on the host's root: failed: its test version is bad: exit status 1: evil",
    ]
    ran = tested.run("patch", "rehearse", name, "--delta", "copy", "--test", "test -O /root/own", "-f", "json")
    assert [each["verdict"] for each in json.loads(ran.out)["tests"]] == ["bad", "good", "good"]
    # The client is killed, and then the daemon, in the middle of a test.
    client = tested.spawn("patch", "rehearse", name, "--test", "sleep 30")
    clone = until(lambda: next((each for each in tested.states() if each.startswith("rehearsal-")), None), 10)
    until(lambda: processes_in(clone), 10)
    client.kill()
    client.communicate()
    tested.stop_daemon(signal.SIGKILL)
    tested.start_daemon()
    until(lambda: list(tested.states()) == [name], 15, "the clone is left")
    assert not processes_in(clone)
    until(lambda: not list((tested.paths.state / "rehearsals").iterdir()), what="its note goes after it")
    assert tested.pid(name) == pid
