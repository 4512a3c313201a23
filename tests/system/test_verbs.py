"""Every verb on a real fleet: its effect, its output, its exit status, and what it leaves alone."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import threading
import time
from pathlib import Path

import pytest
import yaml

from .harness import SLEEP, Fleet, Ran, alive, until

pytestmark = pytest.mark.system

FAILED, INVALID, SOME, FOUND = 1, 2, 3, 4


def three(fleet: Fleet) -> list[str]:
    """Create the containers a1 to a3, which run and have different labels."""
    names = [fleet.name(f"a{number}") for number in (1, 2, 3)]
    for name, tier in zip(names, ("front", "front", "back"), strict=True):
        fleet.create(name, options=("-l", f"tier={tier}", "-l", f"own={name}"))
    return names


def test_create_chooses_names_that_are_free(fleet: Fleet) -> None:
    web = fleet.name("w")
    assert fleet.json("create", web, "-n", "2", *SLEEP)["changed"] is True
    assert sorted(fleet.states()) == [f"{web}1", f"{web}2"]
    fleet.ok("destroy", f"{web}1", "--force")
    assert fleet.ok("create", web, "-n", "2", "-q", *SLEEP).split() == [f"{web}1", f"{web}3"]
    fleet.ok("create", web, *SLEEP)
    assert sorted(fleet.states()) == [web, f"{web}1", f"{web}2", f"{web}3"]
    assert json.loads(fleet.ok("create", "-n", "2", "--dry-run", "-f", "json"))["plan"][0].startswith("c1: ")


def test_create_no_start_leaves_the_container_stopped(fleet: Fleet) -> None:
    name = fleet.name("a")
    fleet.create(name, options=("--no-start",))
    assert fleet.state(name) == "stopped"
    assert fleet.half_done() == []
    fleet.ok("start", name)
    assert fleet.state(name) == "running"


def test_ensure_is_idempotent(fleet: Fleet) -> None:
    name = fleet.name("w")
    ensure = ("create", name, "-n", "3", "--ensure", "-f", "json", *SLEEP)
    first, again = fleet.run(*ensure), fleet.run(*ensure)
    assert (first.json["changed"], again.json["changed"]) == (True, False)
    assert set(again.results.values()) == {"unchanged"}
    fleet.ok("stop", f"{name}2")
    fleet.ok("destroy", f"{name}3", "--force")
    mended = fleet.run(*ensure)
    assert mended.results == {f"{name}1": "unchanged", f"{name}2": "started", f"{name}3": "created"}
    assert set(fleet.states().values()) == {"running"}


ACTIONS = [
    ("start", (), "stopped", "started", "running"),
    ("stop", (), "running", "stopped", "stopped"),
    ("restart", (), "running", "restarted", "running"),
    ("freeze", (), "running", "frozen", "frozen"),
    ("unfreeze", (), "frozen", "unfrozen", "running"),
    ("start", (), "frozen", "started", "running"),
    ("destroy", ("--force",), "running", "destroyed", None),
]


@pytest.mark.parametrize(("verb", "options", "before", "word", "after"), ACTIONS, ids=str)
def test_an_action_changes_the_state_once_and_can_be_planned(
    fleet: Fleet, verb: str, options: tuple[str, ...], before: str, word: str, after: str | None
) -> None:
    name = fleet.name("a")
    fleet.create(name)
    if before != "running":
        fleet.ok({"stopped": "stop", "frozen": "freeze"}[before], name)
    pid = fleet.record(name)["pid"]

    planned = fleet.json(verb, name, *options, "--dry-run")
    assert (planned["dry_run"], planned["changed"], bool(planned["plan"])) == (True, True, True)
    assert (fleet.state(name), fleet.record(name)["pid"]) == (before, pid)

    done = fleet.run(verb, name, *options, "-f", "json")
    assert (done.status, done.json["changed"], done.results) == (0, True, {name: word})
    assert fleet.states().get(name) == after
    if verb in ("freeze", "unfreeze"):
        assert fleet.pid(name) == pid
    if after is not None and verb != "restart":
        again = fleet.run(verb, name, *options, "-f", "json")
        assert (again.status, again.json["changed"], again.results) == (0, False, {name: "unchanged"})
        idle = fleet.run(verb, name, *options, "--dry-run", "-f", "json")
        assert (idle.status, idle.json["changed"], idle.results) == (0, False, {name: "unchanged"})


def test_actions_that_do_not_fit_the_state_are_refused(fleet: Fleet) -> None:
    name = fleet.name("a")
    fleet.create(name)
    refused = fleet.run("destroy", name)
    assert (refused.status, "--force" in refused.err, fleet.state(name)) == (FAILED, True, "running")
    fleet.ok("stop", name)
    assert fleet.run("freeze", name).status == FAILED
    assert fleet.run("unfreeze", name).status == FAILED
    assert fleet.run("stop", fleet.name("none")).status == FAILED
    assert fleet.ok("restart", name)
    assert fleet.state(name) == "running"
    fleet.ok("freeze", name)
    fleet.ok("stop", name)
    assert fleet.state(name) == "stopped"


def test_selectors_choose_containers(fleet: Fleet) -> None:
    one, two, three_ = three(fleet)

    def chosen(*selector: str) -> list[str]:
        return fleet.ok("list", "-q", *selector).split()

    assert chosen() == chosen("--all") == [one, two, three_]
    assert chosen(two) == [two]
    assert chosen(f"{fleet.prefix}a[13]") == [one, three_]
    assert chosen("-l", "tier=front") == [one, two]
    assert chosen("-l", "tier=front", "-l", f"own={two}") == [two]
    assert chosen(f"{fleet.prefix}*", "-l", "tier=back") == [three_]
    assert chosen("*-none") == []
    assert fleet.ok("stop", "-q", "-l", "tier=front").split() == [one, two]
    assert chosen("--state", "stopped") == [one, two]
    assert fleet.run("stop", f"{fleet.prefix}none*").status == 0
    for verb in ("start", "stop", "restart", "freeze", "unfreeze", "destroy"):
        assert fleet.run(verb).status == INVALID
        assert fleet.run(verb, "--all", one).status == INVALID
    assert len(fleet.states()) == 3


def test_an_action_that_fails_for_some_containers_says_which(fleet: Fleet) -> None:
    one, two, three_ = three(fleet)
    fleet.ok("stop", two)
    ran = fleet.run("destroy", "--all", "-f", "json")
    assert ran.status == SOME
    assert ran.results == {one: "failed", two: "destroyed", three_: "failed"}
    assert {result["name"]: (result["error"] or {}).get("code") for result in ran.json["results"]}[one] == "wrong-state"
    assert sorted(fleet.states()) == [one, three_]
    assert fleet.run("freeze", one, fleet.name("none")).status == FAILED  # one name is unknown, so no container is frozen
    assert fleet.state(one) == "running"


def test_all_formats_have_the_same_data(fleet: Fleet) -> None:
    names = three(fleet)
    fleet.ok("wait", "--all", "--for", "healthy")  # from now on nothing changes
    records = fleet.json("list")
    assert [record["name"] for record in records] == names
    assert yaml.safe_load(fleet.ok("list", "-f", "yaml")) == records
    rows = list(csv.DictReader(io.StringIO(fleet.ok("list", "-f", "csv"))))
    assert [(row["name"], row["state"], row["command"]) for row in rows] == [
        (name, "running", "sleep infinity") for name in names
    ]
    table = fleet.ok("list").splitlines()
    assert table[0].split()[:3] == ["NAME", "STATE", "HEALTH"]
    assert [line.split()[0] for line in table[1:]] == names
    details = fleet.json("info", names[0])
    again = yaml.safe_load(fleet.ok("info", names[0], "-f", "yaml"))
    moving = {"memory_bytes", "cpu_seconds", "throttled_seconds", "pressure"}
    assert again.keys() == details.keys()
    assert {key: again[key] for key in again.keys() - moving} == {key: details[key] for key in again.keys() - moving}
    assert details["directory"] == str(fleet.paths.container(names[0]).directory)
    assert details["processes"] == 2
    assert details["memory_bytes"] is None or details["memory_bytes"] > 0
    results = list(csv.DictReader(io.StringIO(fleet.ok("stop", "--all", "-f", "csv"))))
    assert [(row["name"], row["status"], row["changed"]) for row in results] == [
        (name, "stopped", "true") for name in names
    ]


def test_data_and_messages_stay_apart(fleet: Fleet) -> None:
    three(fleet)
    ran = fleet.run("stop", "--all", "-f", "json")
    assert json.loads(ran.out)
    assert ran.err == ""
    empty = fleet.run("list", fleet.name("none*"))
    assert (empty.status, empty.out) == (0, "")
    assert "no container" in empty.err


def test_wait(fleet: Fleet) -> None:
    name, job = fleet.name("a"), fleet.name("job")
    fleet.create(name)
    fleet.create(job, command=("--", "sleep", "0.5"))
    assert fleet.ok("wait", name).split() == [name, "running"]
    fleet.ok("wait", job, "--for", "stopped", "-q")
    late = fleet.run("wait", name, job, "--for", "running", "--timeout", "0.3")
    assert (late.status, "not running after 0.3 s" in late.err) == (SOME, True)
    late = fleet.run("wait", name, "--for", "stopped", "--timeout", "0.2", "-f", "json")
    assert (late.status, late.results) == (FAILED, {name: "failed"})
    assert fleet.run("wait", fleet.name("none")).status == FAILED


def test_wait_lasts_until_the_container_is_started(fleet: Fleet) -> None:
    name = fleet.name("a")
    fleet.create(name, options=("--no-start",))
    done: list[Ran] = []
    waiting = threading.Thread(target=lambda: done.append(fleet.run("wait", name)))
    waiting.start()
    time.sleep(0.3)
    assert not done
    fleet.ok("start", name)
    waiting.join(60)
    assert done[0].status == 0


def test_logs(fleet: Fleet) -> None:
    name, waits = fleet.name("a"), "until [ -e /go ]; do sleep 0.1; done"
    fleet.create(name, command=("--", "sh", "-c", f"seq 5; {waits}; echo later; exec sleep infinity"))
    until(lambda: "5" in fleet.ok("logs", name))
    assert fleet.ok("logs", name, "-n", "2").split() == ["4", "5"]
    client = fleet.spawn("logs", name, "-f", "-n", "1")
    assert client.stdout is not None
    assert client.stdout.readline() == b"5\n"
    fleet.inside(name, "touch /go")
    assert client.stdout.readline() == b"later\n"
    fleet.ok("restart", name)
    assert client.stdout.readline() == b"1\n"
    client.terminate()
    client.communicate(timeout=60)
    assert fleet.ok("logs", name, "--lxc") == ""
    assert fleet.run("logs", fleet.name("none")).status == FAILED


def test_a_log_that_is_rotated_keeps_its_last_lines(fleet: Fleet) -> None:
    fleet.settings(f"{fleet.usual}console_log_kib: 16\n")
    try:
        fleet.stop_daemon()
        fleet.start_daemon()
        name = fleet.name("a")
        fleet.create(name, command=("--", "sh", "-c", "seq 20000; exec sleep infinity"))
        until(lambda: "20000" in fleet.ok("logs", name, "-n", "1"))
        own = fleet.paths.container(name).directory
        assert sum(file.stat().st_size for file in own.glob("console.log*")) < 64 << 10
        # At the moment of a rotation liblxc 5.0.2 itself drops and repeats some bytes; the rest must be there.
        lines = fleet.ok("logs", name).splitlines()
        assert len(lines) > 1000
        assert lines[-1000:] == [str(number) for number in range(19001, 20001)]
    finally:
        fleet.settings(fleet.usual)
        fleet.stop_daemon()


def test_doctor(fleet: Fleet) -> None:
    ran = fleet.run("doctor", "-n", "2", "--init", "app", "-f", "json")
    assert ran.status == 0, ran
    assert ran.json["fits"] > 2
    assert {"memory", "disk", "inodes", "uid-ranges", "processes"} <= {f["check"] for f in ran.json["findings"]}
    too_many = fleet.run("doctor", "-n", "4096")
    assert too_many.status == FOUND
    assert "FAIL" in too_many.out
    refused = fleet.run("create", fleet.name("m"), "-n", "4096")
    assert refused.status == FAILED
    assert "no room" in refused.err
    assert "needed" in refused.err
    assert fleet.states() == {}


def test_config(fleet: Fleet) -> None:
    file = Path(fleet.paths.config_file)
    file.unlink()
    try:
        assert "missing" in fleet.ok("config", "check")
        assert yaml.safe_load(fleet.ok("config", "show"))["stop_timeout"] == 10
        file.write_text("stop_timeout: 3\nprofiles:\n  web: {command: [sleep, infinity], labels: {tier: front}}\n")
        assert fleet.ok("config", "check").endswith("ok\n")
        assert yaml.safe_load(fleet.ok("config", "show"))["profiles"]["web"]["labels"] == {"tier": "front"}
        file.write_text("stop_timeout: soon\nworkers: -1\nnonsense: 1\n")
        wrong = fleet.run("config", "check")
        assert wrong.status == INVALID
        for key in ("stop_timeout", "workers", "nonsense"):
            assert key in wrong.err
    finally:
        fleet.settings(fleet.usual)


def test_profiles_and_reload(fleet: Fleet) -> None:
    file = Path(fleet.paths.config_file)
    name = fleet.name("a")
    daemon = fleet.daemon_pid()
    assert daemon is not None
    try:
        profile = "{command: [sleep, infinity], labels: {tier: front}, environment: {MODE: night}}"
        file.write_text(f"{fleet.usual}profiles:\n  web: {profile}\n")
        assert fleet.run("create", name, "--profile", "web").status == INVALID  # not read yet
        subprocess.run(["kill", "-HUP", str(daemon)], check=True)
        until(lambda: fleet.run("create", name, "--profile", "web", "--ensure").status == 0)
        record = fleet.record(name)
        assert (record["profile"], record["labels"], record["command"], record["environment"]) == (
            "web", {"tier": "front"}, ["sleep", "infinity"], {"MODE": "night"}
        )  # fmt: skip
        file.write_text("profiles: [broken\n")
        subprocess.run(["kill", "-HUP", str(daemon)], check=True)
        until(lambda: "settings not taken over" in fleet.log())
        assert alive(daemon)
        fleet.ok("create", fleet.name("b"), "--profile", "web")
    finally:
        fleet.settings(fleet.usual)
        fleet.stop_daemon()


def test_events(fleet: Fleet) -> None:
    name = fleet.name("told")
    client = fleet.spawn("events", "-f", "--format", "json")
    fleet.create(name)
    for verb in ("freeze", "unfreeze", "restart", "stop"):
        fleet.ok(verb, name)
    fleet.ok("destroy", name)
    assert client.stdout is not None
    seen = []
    while "destroyed" not in seen:
        event = json.loads(client.stdout.readline())
        seen += [event["what"]] if event["container"] == name else []
    client.kill()
    client.communicate()
    assert [what for what in seen if what != "stopped"] == ["created", "frozen", "unfrozen", "restarted", "destroyed"]
    assert seen.count("stopped") == 1


def test_aliases_and_help(fleet: Fleet) -> None:
    name = fleet.name("a")
    fleet.create(name)
    assert fleet.ok("ls", "-q").split() == [name]
    assert fleet.ok("rm", "-q", name, "--force").split() == [name]
    help_text = fleet.ok("--help")
    for verb in ("create", "list", "info", "exec", "shell", "logs", "wait", "doctor", "events", "config"):
        assert verb in help_text
        assert "Examples" in fleet.ok(verb, "--help") or verb == "config"
    assert fleet.run("no-such-verb").status == INVALID
    assert fleet.run("list", "--no-such-option").status == INVALID
