"""Fleets as files: diff, apply, scale, export and fleet, by the command line against the real daemon over a fake launcher."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lxcfleet.errors import Broken, Conflict
from lxcfleet.fleets import applied as records
from lxcfleet.fleets.store import FleetStore
from lxcfleet.host.kernel import quota
from lxcfleet.patch.rollout.change_sets import ChangeSets
from lxcfleet.patch.rollout.state import Status
from lxcfleet.spec.container.hooks import Hooks
from lxcfleet.spec.container.snapshots import Schedule
from lxcfleet.spec.reading import marked_yaml

from .conftest import Cli, Ran, Spawn, soon
from .real_daemon import Daemon

SHOP = """\
lxcfleet: 1
fleet: shop
profiles:
  base: {network: none, memory: 512M, env_files: [base.env]}
groups:
  db: {profiles: [base], command: [sleep, "900"]}
  web:
    count: 3
    profiles: [base]
    command: [sleep, "900"]
    environment: {MODE: prod}
    members: {web1: {labels: {canary: "yes"}}}
"""

VOLUMES = """\
lxcfleet: 1
fleet: shop
volumes:
  up: {size: 1G}
groups:
  web: {count: 2, command: [sleep, "900"], network: none, volumes: ["up:/srv/up"]}
"""


class Shop:
    """A fleet file, and the command line."""

    def __init__(self, directory: Path, cli: Cli, daemon: Daemon) -> None:
        self.file, self._cli, self.daemon = directory / "fleet.yaml", cli, daemon
        self.file.write_text(SHOP)
        (directory / "base.env").write_text("# for all\nTOKEN='s3cret'\nMODE=test\n")

    def write(self, *changes: tuple[str, str], text: str = "") -> None:
        """Change the file."""
        text = text or self.file.read_text()
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        self.file.write_text(text)

    def run(self, verb: str, *more: str) -> Ran:
        """A verb on the file."""
        return self._cli(verb, "-f", str(self.file), *more)

    def diff(self, *more: str) -> Any:
        """The plan."""
        ran = self.run("diff", "--format", "json", *more)
        assert ran.status in (0, 4), ran.err
        plan = json.loads(ran.out)
        assert plan["changed"] == (ran.status == 4)
        return plan

    def changes(self, *more: str) -> dict[str, str]:
        """The class of each change."""
        return {each["name"]: each["change"] for each in self.diff(*more)["changes"]}

    def apply(self, *more: str, status: int = 0) -> Ran:
        """Apply it."""
        ran = self.run("apply", *more)
        assert ran.status == status, (ran.out, ran.err)
        return ran

    def spec(self, name: str) -> Any:
        """The spec of a container on disk."""
        return self.daemon.call(lambda: self.daemon.parts.registry[name].wanted)


@pytest.fixture
def shop(tmp_path: Path, cli: Cli, daemon: Daemon) -> Shop:
    return Shop(tmp_path, cli, daemon)


def test_a_file_is_planned_and_applied(shop: Shop, cli: Cli) -> None:
    ran = shop.run("diff")
    assert ran.status == 4
    assert ran.out.splitlines()[0] == "create db, web1, web2, web3"
    assert "s3cret" not in ran.out
    ran = shop.apply()
    assert [line.split() for line in ran.out.splitlines()] == [[n, "created"] for n in ("db", "web1", "web2", "web3")]
    web1 = shop.spec("web1")
    assert (web1.memory, dict(web1.environment), dict(web1.labels)) == (
        512 << 20, {"TOKEN": "s3cret", "MODE": "prod"}, {"canary": "yes"},
    )  # fmt: skip
    assert (web1.fleet, web1.group) == ("shop", "web")
    assert not shop.changes()
    assert shop.apply().err == "lxcfleet: nothing to do: all is as the file has it\n"


def test_each_change_is_of_a_class(shop: Shop) -> None:
    shop.apply()
    shop.write(("512M", "1G"))
    assert shop.changes() == dict.fromkeys(("db", "web1", "web2", "web3"), "live")
    shop.apply()
    assert not shop.changes()
    shop.write(("MODE: prod", "MODE: night"), ("count: 3", "count: 2"))
    assert shop.changes() == {"web1": "restart", "web2": "restart", "web3": "stop"}
    ran = shop.apply("--max-unavailable", "1")
    assert {tuple(line.split()) for line in ran.out.splitlines()} == {
        ("web1", "changed"), ("web2", "changed"), ("web3", "stopped"),
    }  # fmt: skip
    assert shop.spec("web2").environment["MODE"] == "night"
    assert not shop.changes()
    shop.write(("count: 2", "count: 4"))
    assert shop.changes() == {"web3": "start", "web4": "create"}
    shop.apply()
    assert shop.spec("web3").environment["MODE"] == "night"
    assert not shop.changes()


def test_what_set_and_scale_changed_stays_until_the_file_moves(shop: Shop, cli: Cli) -> None:
    shop.apply()
    assert cli("set", "web2", "memory=2G").status == 0
    dry = cli("scale", "web", "5", "--dry-run")
    assert (dry.status, dry.out.splitlines()[-1]) == (0, "all in all: 2 changes"), "no verb takes a plan of it"
    assert cli("scale", "web", "5").status == 0
    ran = shop.run("diff")
    assert (ran.status, ran.out) == (0, "nothing to do\n")
    assert "lxcfleet: web: count 3, now 5 (scale, 20" in ran.err
    assert "lxcfleet: web2: memory 512M, now 2G (set): left so" in ran.err
    assert cli("fleet", "list", "--format", "json").out
    groups = {each["name"]: each for each in json.loads(cli("fleet", "list", "-f", "json").out)[0]["groups"]}
    assert (groups["web"]["count"], groups["web"]["now"], groups["web"]["running"]) == (3, 5, 5)
    shop.write(("512M", "256M"))
    assert set(shop.changes()) == {"db", "web1", "web2", "web3", "web4", "web5"}
    shop.apply()
    assert shop.spec("web2").memory == 256 << 20
    shop.write(("count: 3", "count: 4"))
    assert shop.changes() == {"web5": "stop"}


def test_a_plan_holds_or_conflicts(shop: Shop, cli: Cli) -> None:
    plan = shop.diff()["id"]
    assert plan == shop.diff()["id"]
    for also in ((), ("--dry-run",)):
        ran = shop.run("apply", "--plan", "0" * 12, *also)
        assert (ran.status, f"what the file changes now is the plan {plan}" in ran.err) == (1, True)
        assert f"lxcfleet diff -f {shop.file}" in ran.err
    assert cli("create", "other", "--network", "none", "--", "sleep", "900").status == 0
    shop.apply("--plan", plan)
    assert not shop.changes()
    assert "the file changes nothing now" in shop.run("apply", "--plan", plan).err
    assert "say --format json" in shop.run("diff", "-f", "json").err


def test_prune_leaves_a_container_that_has_snapshots(shop: Shop, cli: Cli) -> None:
    shop.apply()
    assert cli("snapshot", "create", "web3", "--name", "a").status == 0
    shop.write(("count: 3", "count: 1"))
    pruned = shop.run("apply", "--prune")
    assert (pruned.status, "web3 has snapshots and was not destroyed" in pruned.err) == (3, True)
    assert set(cli("list", "-q").out.split()) == {"db", "web1", "web3"}


def test_hooks_and_snapshots_of_profile_group_and_member_are_merged_key_by_key(shop: Shop, daemon: Daemon) -> None:
    shop.write(
        ("memory: 512M", "memory: 512M, snapshots: {every: 6h, keep: 9}, hooks: {pre_freeze: [a], timeout: 9}"),
        ("    environment: {MODE: prod}", "    snapshots: {keep: 2}\n    hooks: {post_freeze: [b]}"),
    )
    shop.apply()
    spec = daemon.parts.registry["web2"].spec
    assert spec is not None
    assert spec.snapshots == Schedule(6 * 3600, 2)
    assert spec.hooks == Hooks(("a",), ("b",), 9)


def test_prune_destroys_only_what_the_fleet_owns(shop: Shop, cli: Cli, daemon: Daemon) -> None:
    shop.apply()
    (daemon.paths.container("db").delta / "records").write_bytes(bytes(5000))
    assert cli("create", "web9", "--network", "none", "--", "sleep", "900").status == 0
    assert cli("create", "mine", "--network", "none", "-l", "fleet=shop", "--", "sleep", "900").status == 0
    shop.write(('  db: {profiles: [base], command: [sleep, "900"]}\n', ""))
    ran = shop.run("diff")
    assert (ran.status, "left: db (--prune destroys them)" in ran.err) == (0, True)
    ran = shop.run("diff", "--prune")
    assert (ran.status, "all of the group db" in ran.err) == (1, True)
    ran = shop.run("diff", "--prune=all")
    assert ran.out.startswith("destroy db: ")
    assert "of its own data go" in ran.out
    results = json.loads(shop.apply("--prune=all", "--format", "json").out)["results"]
    assert [(each["name"], each["status"], each["changed"]) for each in results] == [("db", "destroyed", True)], results
    assert shop.daemon.fleet.names == {"web1", "web2", "web3", "web9", "mine"}
    shop.write(("count: 3", "count: 1"))
    assert shop.run("apply", "--prune").status == 1
    assert shop.daemon.fleet.names == {"web1", "web2", "web3", "web9", "mine"}
    shop.write(("count: 1", "count: 2"))
    shop.apply("--prune")
    assert shop.daemon.fleet.names == {"web1", "web2", "web9", "mine"}


def test_groups_that_left_the_file_are_told_while_they_have_containers(shop: Shop, cli: Cli) -> None:
    shop.apply()
    shop.write(('  db: {profiles: [base], command: [sleep, "900"]}\n', ""))
    shop.apply()
    rows = [line.split() for line in cli("fleet", "list").out.splitlines()]
    assert [row[1:6] for row in rows[1:]] == [["web", "3", "3", "3", "3"], ["db", "0", "0", "1", "1"]]
    assert "has 4 containers" in cli("fleet", "rm", "shop").err
    assert "no fleet owns its 4 containers now" in cli("fleet", "rm", "shop", "--orphan").err


def test_strangers_are_taken_over_only_if_that_is_said(shop: Shop, cli: Cli) -> None:
    assert cli("create", "db", "--network", "none", "--memory", "512M", "--", "sleep", "900").status == 0
    ran = shop.run("diff")
    assert (ran.status, "db belongs to no fleet" in ran.err) == (1, True)
    assert {each["name"]: each["change"] for each in shop.diff("--adopt")["changes"]}["db"] == "restart"
    shop.apply("--adopt")
    assert shop.spec("db").fleet == "shop"
    shop.write(("fleet: shop", "fleet: other"))
    ran = shop.run("diff", "--adopt")
    assert (ran.status, "the group db belongs to the fleet shop, too" in ran.err) == (1, True)
    assert cli("set", "db", "fleet=x").status == 2
    assert cli("fleet", "rm", "shop").status == 1
    assert cli("fleet", "rm", "shop", "--orphan").status == 0
    assert shop.spec("db").fleet is None
    assert {*shop.changes("--adopt").values()} == {"live"}


def test_an_exported_file_changes_nothing(shop: Shop, cli: Cli) -> None:
    shop.apply()
    cli("set", "web2", "labels.x=1", "pids=77")
    odd = ("--cpus", "1.5", "-e", "A=1: 'x' #", "--health-tcp", "80", "-p", "8081:80")
    cli("create", "api", "-n", "2", *odd, "--", "sleep", "900")
    cli("create", "single", "--isolated", "--drain", "3")
    text = cli("export", "--fleet", "shop").out
    assert text.startswith("# yaml-language-server: $schema=")
    shop.write(text=text)
    assert not shop.changes()
    assert not shop.diff()["kept"]
    shop.write(text=cli("export", "--fleet", "shop", "--all").out)
    plan = shop.diff("--adopt")
    assert {each["change"] for each in plan["changes"]} == {"live"}
    assert {key for each in plan["changes"] for key in each["differs"]} == {"fleet", "group"}
    shop.apply("--adopt")
    assert not shop.changes()


def test_a_dry_run_touches_nothing(shop: Shop) -> None:
    shop.apply()
    shop.write(("512M", "1G"), ("count: 3", "count: 2"), ("MODE: prod", "MODE: x"))
    paths = shop.daemon.paths

    def inodes() -> dict[str, object]:
        found: dict[str, object] = {}
        for top in (paths.lxc, paths.run, paths.etc):
            for path in (top, *top.rglob("*")):
                with contextlib.suppress(FileNotFoundError):  # it was renamed to its place since
                    seen = path.lstat()
                    found[str(path)] = (seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)
        return found

    def settled() -> dict[str, object]:
        """What the daemon notes after an apply by itself is no work of the next command's."""
        looks = [inodes()]
        while len(looks) < 10 or any(look != looks[-1] for look in looks[-10:]):
            time.sleep(0.05)
            looks.append(inodes())
        return looks[-1]

    before = settled()
    assert shop.run("apply", "--dry-run").status == 4
    assert shop.run("diff", "--prune").status == 4
    assert inodes() == before
    shop.apply()
    before = settled()
    shop.apply()
    assert inodes() == before


HEALTH = 'health: {exec: ["true"], interval: 0.1, retries: 1, start_period: 0}'
QUICK = ("--healthy-deadline", "8", "--canaries", "1", "--max-unavailable", "1")
"""Until the deadline a busy machine has to have those healthy that become so; one that is ill is waited for as long."""
PATIENT = ("--healthy-deadline", "10", *QUICK[2:])
"""For what halts and is taken back: the way back has this deadline, too, and a busy machine takes its time."""


def falls_ill(daemon: Daemon, name: str) -> None:
    """A container does not become healthy after its next start. Until then it is, so that the gate counts for it."""

    def during(which: str) -> None:
        if which == name:
            daemon.model.sick[name] = "no answer"

    daemon.model.during = during


def falls_ill_once(daemon: Daemon, name: str) -> None:
    """As ``falls_ill``, until the start after that, which gives it its former spec."""
    sick = daemon.model.sick

    def during(which: str) -> None:
        if which == name:
            sick.clear() if sick else sick.update({name: "no answer"})

    daemon.model.during = during


def recovers(daemon: Daemon) -> None:
    """All become healthy again."""
    daemon.model.during = str
    daemon.model.sick.clear()


def test_a_failed_gate_halts_and_undo_puts_the_former_specs_back(shop: Shop, cli: Cli) -> None:
    shop.write(("count: 3", f"count: 3\n    {HEALTH}"))
    shop.apply()
    assert cli("rollout", "undo").status == 1
    assert cli("wait", "--all", "--for", "healthy").status == 0
    falls_ill(shop.daemon, "web1")
    shop.write(("MODE: prod", "MODE: night"))
    ran = shop.apply(*QUICK, status=1)
    assert "the rollout" in ran.err + ran.out
    assert [shop.spec(f"web{n}").environment["MODE"] for n in (1, 2, 3)] == ["night", "prod", "prod"]
    assert shop.changes() == {"web2": "restart", "web3": "restart"}
    ran = shop.run("apply")
    assert (ran.status, "a rollout is under way" in ran.err) == (1, True)
    assert "is halted in wave 1: 1 of 3 are through, 1 of them failed" in ran.err
    recovers(shop.daemon)
    ran = cli("rollout", "undo")
    assert ran.status == 0, ran.err
    assert [shop.spec(f"web{n}").environment["MODE"] for n in (1, 2, 3)] == ["prod"] * 3
    record = shop.daemon.client.rollout()
    assert record is not None
    assert (record["kind"], record["status"], bool(record["undoes"])) == ("change", "done", True)
    assert {*shop.changes()} == {"web1", "web2", "web3"}
    shop.apply(*QUICK)
    assert not shop.changes()


def test_the_former_file_starts_what_failed_in_an_apply_that_halted(shop: Shop, cli: Cli) -> None:
    command = f'{HEALTH}\n    command: [sh, -c, "test $MODE = prod && exec sleep 900; exit 3"]'
    shop.write(('profiles: [base]\n    command: [sleep, "900"]', f"profiles: [base]\n    {command}"))
    shop.apply()
    assert cli("wait", "--all", "--for", "healthy").status == 0
    former = shop.file.read_text()
    shop.file.write_text(former.replace("MODE: prod", "MODE: night"))
    falls_ill(shop.daemon, "web1")
    ran = shop.apply(*QUICK, status=1)
    assert "take it back: `lxcfleet rollout undo`" in ran.err
    recovers(shop.daemon)
    assert cli("rollout", "abort").status == 0
    assert cli("wait", "web1", "--for", "stopped").status == 0
    shop.file.write_text(former)
    ran = shop.run("diff")
    assert "live web1: " in ran.out
    assert "it ended with an error, and is started with that" in ran.out
    ran = shop.apply()
    assert "web1  started" in ran.out
    assert shop.daemon.call(lambda: all(each.running is not None for each in shop.daemon.parts.registry))
    assert not shop.changes()


def test_another_source_of_a_secret_comes_with_restarts_in_one_apply(shop: Shop) -> None:
    """What restarts for the secret waits for the rollout of the apply, and what that restarts is not restarted again."""
    for source in ("pw", "other"):
        (shop.file.parent / source).write_text(source)
    shop.write(text=f"""\
lxcfleet: 1
fleet: shop
secrets: {{pw: {{file: {shop.file.parent}/pw}}}}
profiles: {{base: {{network: none, secrets: ["pw,on_change=restart"], command: [sleep, "9900"]}}}}
groups:
  db: {{profiles: [base]}}
  web: {{count: 2, profiles: [base], environment: {{MODE: a}}}}
""")
    shop.apply()

    def starts() -> dict[str, int]:
        return {name: shop.daemon.parts.registry[name].starts for name in ("db", "web1", "web2")}

    before = starts()
    shop.write(("/pw}", "/other}"), ("MODE: a", "MODE: b"))
    shop.apply(*QUICK)
    soon(lambda: starts() == {name: count + 1 for name, count in before.items()})
    soon(lambda: shop.daemon.parts.rollouts.ledger.active is None)
    assert not any(shop.daemon.call(lambda: [shop.daemon.parts.secrets.owed(each) for each in shop.daemon.parts.registry]))
    assert starts() == {name: count + 1 for name, count in before.items()}
    assert not shop.changes()


def reboot(daemon: Daemon) -> None:
    """What the ledger of rollouts knows after a reboot of the host."""
    daemon.paths.rollout.unlink()
    ledger = daemon.parts.rollouts.ledger
    daemon.call(lambda: setattr(ledger, "_rollout", ledger._load()))


def apply_with_one_ill(
    shop: Shop, cli: Cli, name: str, group: str, ill: Callable[[Daemon, str], None] = falls_ill, status: int = 1
) -> Ran:
    """Apply a change whose rollout halts at this container, as it is ill then. ``group``: what the group has first."""
    shop.write(("count: 3", group))
    shop.apply()
    assert cli("wait", "--all", "--for", "healthy").status == 0
    ill(shop.daemon, name)
    shop.write(("MODE: prod", "MODE: night"))
    return shop.apply(*QUICK, status=status)


def test_an_undo_says_whom_it_leaves_out(shop: Shop, cli: Cli) -> None:
    shop.write()
    shop.apply()
    shop.write(("MODE: prod", "MODE: night"))
    shop.apply(*QUICK)
    record = shop.daemon.client.rollout()
    assert record is not None
    file = shop.daemon.paths.change_sets / f"{record['id']}.json"
    data = json.loads(file.read_text())
    data["members"]["web2"][1]["environment"] = 3
    file.write_text(json.dumps(data))
    ran = cli("rollout", "undo", "-f", "json")
    assert ran.status == 3, ran
    assert json.loads(ran.out)["left_out"].keys() == {"web2"}
    assert "web2 does not get its former spec back" in ran.err
    assert str(file) in ran.err
    assert "lxcfleet info web2" in ran.err
    assert [shop.spec(f"web{n}").environment["MODE"] for n in (1, 2, 3)] == ["prod", "night", "prod"]
    assert "web2 does not get its former spec back" in cli("rollout", "status").err


def forget_what_it_got(shop: Shop, name: str) -> None:
    """It can't be told any more whether the last rollout has changed this container."""
    record = shop.daemon.client.rollout()
    assert record is not None
    file = shop.daemon.paths.change_sets / f"{record['id']}.json"
    data = json.loads(file.read_text())
    data["members"][name][1]["memory"] = "as a later version has it"
    file.write_text(json.dumps(data))


def test_an_undo_that_can_put_nothing_back_says_so_also_where_it_is_to_be_quiet(shop: Shop, cli: Cli) -> None:
    shop.write(("count: 3", "count: 1"))
    shop.apply()
    shop.write(("MODE: prod", "MODE: night"))
    shop.apply(*QUICK)
    ways: list[list[str]] = [[], ["-q"], ["-q", "--no-wait"]]
    forget_what_it_got(shop, "web1")
    for quiet in ways:
        ran = cli("rollout", "undo", *quiet)
        assert (ran.status, "web1 does not get its former spec back" in ran.err) == (3, True), ran
        assert not quiet or not ran.out
        status = cli("rollout", "status")
        assert "web1 does not get its former spec back" in status.err, status
        assert "not of web1, see `lxcfleet rollout status`" in cli("events").out


@pytest.mark.parametrize("by", ["apply", "set"])
def test_a_change_that_is_taken_back_by_itself_says_whom_that_leaves_out(shop: Shop, cli: Cli, by: str) -> None:
    shop.write(("count: 3", f"count: 3\n    memory: 1G\n    rollout: {{auto_revert: true}}\n    {HEALTH}"))
    shop.apply()
    assert cli("wait", "--all", "--for", "healthy").status == 0

    def limited(name: str) -> None:
        if name == "web1":
            forget_what_it_got(shop, "web1")
            shop.daemon.model.sick["web1"] = "no memory"

    shop.daemon.model.limited = limited
    if by == "apply":
        shop.write(("memory: 1G", "memory: 256M"))
        ran = shop.apply(*QUICK, "--format", "json", status=1)
    else:
        ran = cli("set", "web*", "memory=256M", *QUICK, "-f", "json")
        assert ran.status == 1, ran
        assert "the former values are put back, but for web1" in ran.err
    found = {each["name"]: each for each in json.loads(ran.out)["results"]}
    assert (found["web1"]["status"], found["web1"]["changed"]) == ("failed", True)
    assert "web1 does not get its former spec back" in found["web1"]["error"]["message"]
    assert "web1 does not get its former spec back" in ran.err
    assert memories(shop) == [256, 1024, 1024]
    assert "web1 does not get its former spec back" in cli("rollout", "status").err


def test_a_rollout_of_an_apply_is_undone_after_a_reboot_too(shop: Shop, cli: Cli) -> None:
    apply_with_one_ill(shop, cli, "web1", f"count: 3\n    {HEALTH}")
    recovers(shop.daemon)
    reboot(shop.daemon)
    record = shop.daemon.client.rollout()
    assert record is not None
    assert (record["status"], record["halted"] is not None) == ("aborted", True)
    assert cli("rollout", "undo").status == 0
    assert shop.spec("web1").environment["MODE"] == "prod"
    shop.apply()
    reboot(shop.daemon)
    assert cli("rollout", "undo").status == 0
    assert [shop.spec(f"web{n}").environment["MODE"] for n in (1, 2, 3)] == ["prod"] * 3
    assert "(rollout undo): left so" in shop.run("diff").err
    assert cli("set", "web1", "environment.MODE=dawn").status == 0
    kept = {(each["name"], each["key"]): each["why"] for each in shop.diff()["kept"]}
    assert kept == {("web1", "environment"): "set", **{(f"web{n}", "environment"): "rollout undo" for n in (2, 3)}}
    assert cli("restart", "--rolling", "web1", *QUICK).status == 0
    reboot(shop.daemon)
    assert shop.daemon.client.rollout() is None
    assert "there was no rollout" in cli("rollout", "undo").err


def test_a_value_by_set_that_takes_a_restart_reaches_the_canary_alone_if_it_is_bad(shop: Shop, cli: Cli) -> None:
    shop.write(("count: 3", f"count: 3\n    {HEALTH}"))
    shop.apply()
    assert cli("wait", "--all", "--for", "healthy").status == 0
    falls_ill(shop.daemon, "web1")
    ran = cli("set", "web*", "environment.MODE=night", *PATIENT)
    assert ran.status == 1
    assert [line.split(maxsplit=1)[1] for line in ran.out.splitlines()] == ["failed", "not begun", "not begun"]
    assert "lxcfleet: web1: environment" in ran.err, "it names those that have it, and no other"
    assert [shop.spec(f"web{n}").environment["MODE"] for n in (1, 2, 3)] == ["night", "prod", "prod"]
    record = shop.daemon.client.rollout()
    assert record is not None
    assert (record["status"], record["waits_for"]) == ("halted", "")
    recovers(shop.daemon)
    assert cli("rollout", "undo").status == 0
    assert [shop.spec(f"web{n}").environment["MODE"] for n in (1, 2, 3)] == ["prod"] * 3


def test_a_set_that_is_taken_back_by_itself_tells_no_change(shop: Shop, cli: Cli) -> None:
    shop.write(("count: 3", f"count: 3\n    rollout: {{auto_revert: true}}\n    {HEALTH}"))
    shop.apply()
    assert cli("wait", "--all", "--for", "healthy").status == 0
    falls_ill_once(shop.daemon, "web1")
    ran = cli("set", "web*", "environment.MODE=night", *PATIENT)
    assert (ran.status, "the former values are put back" in ran.err, "(was: " in ran.err) == (1, True, False), ran.err
    assert [shop.spec(f"web{n}").environment["MODE"] for n in (1, 2, 3)] == ["prod"] * 3


def test_an_undo_tells_of_those_that_have_their_specs_back_at_once(shop: Shop, cli: Cli) -> None:
    shop.apply()
    assert cli("stop", "web2", "web3").status == 0
    assert cli("set", "web*", "environment.MODE=night").status == 0
    assert cli("stop", "web1").status == 0
    ran = cli("rollout", "undo")
    assert [" ".join(line.split()) for line in ran.out.splitlines()[2:]] == [
        f"web{n} done - it does not run, and stays so" for n in (1, 2, 3)
    ]
    assert [shop.spec(f"web{n}").environment["MODE"] for n in (1, 2, 3)] == ["prod"] * 3
    assert cli("rollout", "undo").status == 1


def test_an_undo_is_refused_if_no_container_has_the_specs_any_more(shop: Shop, cli: Cli) -> None:
    shop.apply()
    assert cli("set", "web1", "environment.MODE=night").status == 0
    assert cli("set", "web1", "environment.MODE=dawn", "--no-restart").status == 0
    ran = cli("rollout", "undo")
    assert (ran.status, "they were changed since, or are gone" in ran.err) == (1, True)
    assert shop.spec("web1").environment["MODE"] == "dawn"
    assert cli("set", "web1", "environment.MODE=dawn").status == 0
    before = runs(shop)
    ran = cli("rollout", "undo")
    assert (ran.status, "the last rollout changed no specs" in ran.err) == (1, True), "that restart gave it what it had"
    assert runs(shop) == before


def runs(shop: Shop) -> dict[str, str]:
    """The identity of each run."""
    return shop.daemon.call(lambda: {each.name: each.running.identity for each in shop.daemon.parts.registry if each.running})


def memories(shop: Shop) -> list[int]:
    """The limits of the three, in MiB."""
    return [shop.spec(f"web{number}").memory >> 20 for number in (1, 2, 3)]


@pytest.mark.parametrize("by", ["apply", "set"])
def test_a_lower_limit_that_makes_a_container_ill_reaches_the_canary_alone_and_restarts_nothing(
    shop: Shop, cli: Cli, by: str
) -> None:
    shop.write(("count: 3", f"count: 3\n    {HEALTH}"))
    shop.apply()
    assert cli("wait", "--all", "--for", "healthy").status == 0
    before = runs(shop)
    shop.daemon.model.limited = lambda name: shop.daemon.model.sick.update({name: "no memory"} if name == "web1" else {})
    if by == "apply":
        shop.write(("512M", "256M"))
        ran = shop.apply(*QUICK, status=3)
        assert shop.spec("db").memory == 256 << 20, "it has no check, and got that at once"
    else:
        ran = cli("set", "web*", "memory=256M", "labels.tier=front", *QUICK)
        assert (ran.status, "not begun" in ran.out) == (1, True), ran.out
    assert "it became unhealthy after its change" in ran.err + ran.out
    assert memories(shop) == [256, 512, 512]
    record = shop.daemon.client.rollout()
    assert record is not None
    assert {each["name"]: each["live"] for each in record["containers"]} == dict.fromkeys(("web1", "web2", "web3"), True)
    shop.daemon.model.limited = str
    recovers(shop.daemon)
    assert cli("rollout", "undo").status == 0
    assert (memories(shop), runs(shop)) == ([512] * 3, before)
    assert by == "set" or shop.spec("db").memory == 512 << 20
    assert cli("set", "web*", "memory=256M", "labels.tier=front", *QUICK).status == 0
    assert (memories(shop), runs(shop)) == ([256] * 3, before)


def test_weights_by_fleet_file_and_by_set_without_a_restart(shop: Shop, cli: Cli) -> None:
    shop.apply()
    before = runs(shop)
    shop.write(("count: 3", "count: 3\n    cpu_weight: 50\n    swap: max"))
    shop.apply()
    assert {shop.spec(f"web{number}").cpu_weight for number in (1, 2, 3)} == {50}
    lines = dict(line.split(":", 1) for line in cli("info", "web1").out.splitlines())
    assert [lines[key].strip() for key in ("swap", "cpu weight", "io weight")] == ["max", "50", "-"]
    done = json.loads(cli("set", "web1", "cpu_weight=200", "-f", "json").out)
    assert done["results"][0]["differs"] == {"cpu_weight": ["50", "200"]}
    assert (shop.spec("web1").cpu_weight, runs(shop)) == (200, before)
    assert cli("set", "web1", "cpu_weight=0").status == 2


def test_what_an_apply_says_of_a_halt_that_is_reverted(shop: Shop, cli: Cli) -> None:
    group = f"count: 3\n    rollout: {{auto_revert: true}}\n    {HEALTH}"
    ran = apply_with_one_ill(shop, cli, "web2", group, falls_ill_once)
    assert "the former specs are put back (auto_revert)" in ran.err
    assert [line.split(maxsplit=1) for line in ran.out.splitlines()] == [
        ["web1", "taken back"], ["web2", "failed"], ["web3", "not begun"],
    ], ran.out  # fmt: skip
    assert " halted at web2: " in ran.err
    assert "is running" not in ran.err
    assert modes(shop) == ["prod"] * 3, "an apply ends with what takes it back, so the next one is not refused"
    ran = cli("rollout", "undo")
    assert (ran.status, "took it back by itself (auto_revert)" in ran.err) == (1, True), "it would bring back what halted"
    assert modes(shop) == ["prod"] * 3
    ledger = shop.daemon.parts.rollouts.ledger
    assert ledger.last is not None
    aborted = replace(ledger.last, status=Status.ABORTED)  # as if an operator had ended it before it was done
    shop.daemon.call(lambda: setattr(ledger, "_rollout", aborted))
    ran = cli("rollout", "undo")
    assert (ran.status, "took it back" in ran.err, "and was aborted" in ran.err) == (1, False, True), ran.err


def test_an_apply_does_not_say_of_a_refused_way_back_that_it_was_gone(
    shop: Shop, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object) -> None:
        raise Conflict("web1 can't get its former spec back; nothing is changed")

    monkeypatch.setattr(ChangeSets, "check_way_back", refuse)
    group = f"count: 3\n    rollout: {{auto_revert: true}}\n    {HEALTH}"
    ran = apply_with_one_ill(shop, cli, "web2", group, status=3)
    assert ran.out.splitlines()[0].split(maxsplit=1) == ["web1", "changed"]
    refused = "is not taken back (auto_revert): web1 can't get its former spec back"
    assert (refused in ran.err, "put back" in ran.err) == (True, False)
    assert refused in cli("rollout", "status").err
    assert "is not taken back: web1 can't get its former spec back" in cli("events").out
    assert shop.spec("web1").environment["MODE"] == "night"
    ran = cli("set", "web*", "environment.MODE=day", *QUICK)
    assert (ran.status, "a rollout is under way" in ran.err) == (1, True)
    recovers(shop.daemon)


def modes(shop: Shop) -> list[str]:
    """The values of a variable of the three."""
    return [shop.spec(f"web{number}").environment["MODE"] for number in (1, 2, 3)]


@pytest.mark.parametrize("by", ["apply", "set"])
def test_a_change_whose_way_back_halts_as_well_does_not_say_that_it_was_taken_back(shop: Shop, cli: Cli, by: str) -> None:
    """Before, the client said that the former values are put back, whatever became of that."""
    shop.write(("count: 3", f"count: 3\n    rollout: {{auto_revert: true}}\n    {HEALTH}"))
    shop.apply()
    assert cli("wait", "--all", "--for", "healthy").status == 0
    falls_ill(shop.daemon, "web1")

    def during(name: str) -> None:
        if name == "web2":
            shop.daemon.model.during = lambda which: shop.daemon.model.sick.update({which: "no answer"})
            shop.daemon.model.during(name)

    shop.daemon.model.during = during
    if by == "apply":
        shop.write(("MODE: prod", "MODE: night"))
        ran = shop.apply(*QUICK, "--format", "json", status=1)
    else:
        ran = cli("set", "web*", "memory=256M", "environment.MODE=night", *QUICK, "-f", "json")
        assert ran.status == 1, ran
    assert modes(shop) in (["prod", "night", "prod"], ["night", "prod", "prod"])
    given, kept = ("web1", "web2") if modes(shop)[0] == "prod" else ("web2", "web1")
    said = f"back halted, too; without them still: {kept}; not well with them, or not known to be: {given}"
    assert (said in ran.err, "values are put back" in ran.err, "specs are put back" in ran.err) == (True, False, False), ran
    found = {each["name"]: each for each in json.loads(ran.out)["results"]}
    assert [(found[name]["status"], found[name]["changed"]) for name in (kept, given)] == [("failed", True)] * 2
    assert "it did not get its former values back" in found[kept]["error"]["message"]
    recovers(shop.daemon)


def test_auto_revert_puts_a_lower_limit_back_also_of_one_container_alone(shop: Shop, cli: Cli) -> None:
    shop.write(("count: 3", f"count: 1\n    rollout: {{auto_revert: true}}\n    {HEALTH}"))
    shop.apply()
    assert cli("wait", "--all", "--for", "healthy").status == 0
    before, sick = runs(shop), shop.daemon.model.sick
    shop.daemon.model.limited = lambda name: sick.clear() if sick else sick.update({name: "no memory"})
    ran = cli("set", "web1", "memory=256M", *QUICK)
    assert ran.status == 1, ran.out
    soon(lambda: shop.spec("web1").memory == 512 << 20)
    soon(lambda: (record := shop.daemon.client.rollout()) and record["undoes"] and record["status"] == "done")
    assert runs(shop) == before


def test_what_can_not_harm_many_alike_is_changed_at_once(shop: Shop, cli: Cli) -> None:
    """Higher limits, labels, names; and anything where nothing tells of harm, or where that is not asked for."""
    shop.write(("count: 3", f"count: 3\n    {HEALTH}"))
    shop.apply()
    for asked in (["web*", "memory=1G"], ["web*", "labels.tier=front"], ["db", "memory=8M"], ["web1", "memory=256M"],
                  ["web*", "cpu_weight=1"]):  # fmt: skip
        assert json.loads(cli("set", *asked, *QUICK, "-f", "json").out)["rollout"] is None
    dry = json.loads(cli("set", "web*", "memory=64M", *QUICK, "--dry-run", "-f", "json").out)
    assert [line for line in dry["plan"] if "in its turn" in line] == [
        f"web{number}: change it in its turn, without a restart" for number in (1, 2, 3)
    ]
    assert cli("set", "web*", "memory=64M", *QUICK, "--gate-live", "none").status == 0
    assert memories(shop) == [64] * 3
    assert shop.daemon.client.rollout() is None
    assert cli("set", "web*", "memory=32M", "environment.MODE=x", *QUICK, "--no-wait").status == 0
    record = shop.daemon.client.rollout()
    assert record is not None
    assert (record["kind"], {each["live"] for each in record["containers"]}) == ("change", {False})
    soon(lambda: (record := shop.daemon.client.rollout()) and record["status"] == "done")
    assert memories(shop) == [32] * 3


def test_auto_revert_undoes_by_itself(shop: Shop, cli: Cli) -> None:
    group = f"count: 2\n    rollout: {{auto_revert: true, max_unavailable: 1}}\n    {HEALTH}"
    apply_with_one_ill(shop, cli, "web1", group, falls_ill_once)
    assert shop.spec("web1").environment["MODE"] == "prod"
    record = shop.daemon.client.rollout()
    assert record is not None
    assert (bool(record["undoes"]), record["status"]) == (True, "done")
    assert shop.apply(*QUICK, "--dry-run", status=4).out, "it is not refused: nothing is under way any more"


@pytest.mark.parametrize("name", ["base.env"])
def test_all_complaints_come_at_once_with_their_lines(shop: Shop, name: str) -> None:
    (shop.file.parent / name).unlink()
    shop.write(("memory: 512M", "memory: lots"), ("count: 3", "count: -1"), ("MODE: prod", "MODE: on"))
    ran = shop.run("apply")
    assert ran.status == 2
    found = [line.strip().removeprefix(f"{shop.file}:") for line in ran.err.splitlines()[1:]]
    assert found == [
        "4: profiles: base: env_files: base.env: No such file or directory",
        "4: profiles: base: memory: 'lots' is not a size",
        "8: groups: web: count: -1 is not between 0 and 4096",
        "11: groups: web: environment.MODE: expected text (quote numbers and words such as yes and no)",
    ]
    assert not shop.daemon.fleet.names


def test_a_second_apply_is_refused_while_one_is_under_way(shop: Shop, cli: Cli, spawn: Spawn) -> None:
    at_work, go_on = threading.Event(), threading.Event()

    def during(_: str) -> None:
        at_work.set()
        go_on.wait(60)

    shop.daemon.model.during = during
    first = spawn("apply", "-f", str(shop.file))
    assert at_work.wait(60)
    ran = shop.run("apply")
    go_on.set()
    assert (ran.status, "another apply is under way" in ran.err) == (1, True)
    assert first.wait(60) == 0
    assert not shop.changes()


def test_more_than_the_host_has_room_for_is_refused_as_a_whole(shop: Shop) -> None:
    shop.write(("count: 3", "count: 4001"))
    refused = shop.run("apply")
    assert refused.status == 1
    assert not shop.daemon.fleet.names
    foreseen = shop.run("apply", "--dry-run")
    assert (foreseen.status, foreseen.err, "plan " in foreseen.out) == (1, refused.err, True)
    shown = shop.run("diff")
    assert (shown.status, shown.err) == (4, refused.err.replace("lxcfleet: ", "lxcfleet: an apply would be refused now: ", 1))
    assert shop.diff()["refused"]["code"] == "no-capacity"


def test_a_group_of_another_host_does_not_exist(shop: Shop) -> None:
    shop.write(("count: 3", "count: 3\n    hosts: [no-such-host-*]"))
    assert {*shop.changes()} == {"db"}
    shop.write(("no-such-host-*", "'*'"))
    assert {*shop.changes()} == {"db", "web1", "web2", "web3"}


def test_a_record_that_can_not_be_read_is_told(shop: Shop, tmp_path: Path) -> None:
    shop.apply()
    file = shop.daemon.paths.fleets / "shop.json"
    text = file.read_text()
    store = FleetStore(shop.daemon.paths)
    assert store.get("shop").same(records.from_json(text))
    (file.parent / ".shop.json.new").write_text(text[:40])
    assert [each.fleet for each in FleetStore(shop.daemon.paths)] == ["shop"]
    file.write_text(text[: len(text) // 2])
    half = FleetStore(shop.daemon.paths)
    with pytest.raises(Broken, match="can't be told"):
        half.find("shop")
    assert half.forget("shop")
    assert half.find("shop") is None


def test_a_hostile_file_is_refused_at_once(shop: Shop) -> None:
    shop.file.write_bytes(b"a: [" + b"[" * 1_000_000)
    ran = shop.run("diff")
    assert (ran.status, "nested more than 16 deep" in ran.err) == (2, True)
    shop.file.write_bytes(b"- " * 200_000)
    ran = shop.run("diff")
    assert (ran.status, "nested more than" in ran.err) == (2, True)


def test_config_show_names_where_each_value_of_a_group_is_from(shop: Shop, cli: Cli) -> None:
    ran = cli("config", "show", "-f", str(shop.file), "--group", "web", "--origin")
    lines = [line.split("#") for line in ran.out.splitlines()]
    found = {said.strip(): place.strip().rpartition("/")[2] for said, place in lines}
    assert found == {
        "network: none": "fleet.yaml:4", 'memory: "512M"': "fleet.yaml:4", "environment.TOKEN: s3cret": "base.env:2",
        "environment.MODE: prod": "fleet.yaml:11", 'command: ["sleep", "900"]': "fleet.yaml:10",
    }  # fmt: skip
    ran = cli("config", "show", "-f", str(shop.file), "--group", "web", "--member", "web1")
    assert "labels.canary: \"yes\"" in ran.out.splitlines()
    assert cli("config", "show", "-f", str(shop.file), "--group", "none").status == 2
    assert cli("config", "show", "--origin").status == 2


def test_volumes_are_made_first_changed_live_and_never_removed(
    shop: Shop, cli: Cli, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quota, "enforced", lambda directory: True)
    monkeypatch.setattr(quota, "counted", lambda directory, project: 5 << 20)
    shop.write(text=VOLUMES)
    made = shop.run("diff")
    assert made.out.splitlines()[:2] == ["create volume up: size: 0 -> 1G", "create web1, web2"]
    assert not daemon.paths.volumes.exists()
    rows = [line.split() for line in shop.apply().out.splitlines()]
    assert rows == [["volume", "up", "created"], ["web1", "created"], ["web2", "created"]]
    assert not shop.diff()["changed"]
    shop.write(("size: 1G", "size: 2G"))
    assert shop.run("diff").out.splitlines()[0] == "live volume up: size: 1G -> 2G"
    assert shop.apply().status == 0
    assert json.loads(cli("volume", "info", "up", "-f", "json").out)["size_bytes"] == 2 << 30
    assert "  up: {size: \"2G\"}\n" in cli("export", "--fleet", "shop").out
    shop.write(("size: 2G", "size: 4M"))
    refused = shop.apply(status=1)
    assert refused.err.splitlines()[:2] == [
        "lxcfleet: the volume up can't get the size 4M", "  5 MiB are on it",
    ]  # fmt: skip
    shop.write(text="lxcfleet: 1\nfleet: shop\n")
    assert shop.apply("--prune=all").status == 0
    assert cli("fleet", "rm", "shop").status == 0
    assert cli("volume", "list", "-q").out == "up\n"


def test_a_first_size_waits_until_no_container_has_the_volume(
    shop: Shop, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quota, "enforced", lambda directory: True)
    shop.write(text=VOLUMES.replace("{size: 1G}", ""))
    shop.apply()
    shop.write(("  up: \n", "  up: {size: 1G}\n"))
    assert "containers that have it run" in shop.apply(status=1).err
    assert cli("stop", "web1", "web2").status == 0
    shop.apply()


def test_a_volume_that_can_not_be_made_leaves_all_else_for_the_next_apply(
    shop: Shop, cli: Cli, daemon: Daemon
) -> None:
    shop.write(text=VOLUMES.replace("{size: 1G}", ""))
    daemon.model.fails["up"] = Broken("no room")
    assert "no room" in shop.apply(status=1).err
    assert json.loads(cli("list", "-f", "json").out) == []
    del daemon.model.fails["up"]
    shop.apply()


def test_a_file_of_a_mebibyte_is_read_and_a_larger_one_refused(shop: Shop) -> None:
    text = shop.file.read_text()
    shop.write(text=text + "#\n" * ((marked_yaml.MAX_BYTES - len(text)) // 2))
    assert {*shop.changes()} == {"db", "web1", "web2", "web3"}
    shop.write(text=text + "#" * marked_yaml.MAX_BYTES)
    refused = shop.run("diff")
    assert (refused.status, "a fleet file has 1M at most" in refused.err) == (2, True)


SECRETS = """\
lxcfleet: 1
fleet: shop
secrets:
  db-pw: {file: @}
groups:
  web: {count: 2, command: [sleep, "900"], network: none, secrets: [db-pw]}
"""


def test_sources_of_secrets_come_first_and_are_told_as_references(
    shop: Shop, cli: Cli, daemon: Daemon, tmp_path: Path
) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("hunter2")
    other.write_text("hunter3")
    shop.write(text=SECRETS.replace("@", str(one)))
    assert shop.run("diff").out.splitlines()[0] == f"create secret db-pw: source: none -> file {one}"
    assert [line.split() for line in shop.apply().out.splitlines()] == [
        ["secret", "db-pw", "declared"], ["web1", "created"], ["web2", "created"],
    ]  # fmt: skip
    assert not shop.diff()["changed"]
    (record,) = json.loads(cli("secret", "list", "-f", "json").out)
    assert (record["name"], record["fleet"], record["containers"]) == ("shop/db-pw", "shop", ["web1", "web2"])
    assert "hunter2" not in (daemon.paths.fleets / "shop.json").read_text()

    shop.write((str(one), str(other)))
    planned = shop.diff()
    assert planned["secrets"] == [
        {"name": "db-pw", "change": "live", "differs": {"source": [f"file {one}", f"file {other}"]}},
    ]  # fmt: skip
    shop.apply()
    assert "shop/db-pw has another value, in 2 running containers" in cli("events").out
    other.unlink()
    assert cli("secret", "refresh", "db-pw").status == 1
    assert "the former value stays" in cli("events").out
    exported = cli("export", "--fleet", "shop").out
    assert f"  \"db-pw\": {{\"file\": \"{other}\"}}" in exported
    shop.write(text=exported)
    assert not shop.diff()["changed"]
    assert cli("scale", "web", "1").status == 0
    assert cli("secret", "list", "-q").out == "shop/db-pw\n"  # scaling takes none away


def test_what_keeps_new_containers_from_starting_is_told_at_the_end_of_the_apply(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(
        f"lxcfleet: 1\nfleet: s\nsecrets: {{pw: {{file: {tmp_path}/none}}}}\n"
        "groups: {web: {count: 2, command: [sleep, infinity], secrets: [pw]}}\n"
    )
    ran = cli("apply", "-f", str(file))
    assert ran.status == 0
    assert "web1, web2: blocked: secret s/pw: " in ran.err, ran


def test_a_job_that_an_apply_changes_runs_before_what_waits_for_it(cli: Cli, daemon: Daemon, tmp_path: Path) -> None:
    """It was changed and did not run, and what waits for it was restarted all the same."""
    file, done = tmp_path / "s.yaml", tmp_path / "done"

    def apply(version: int, script: str) -> Ran:
        file.write_text(
            "lxcfleet: 1\nfleet: s\ngroups:\n"
            f"  job: {{command: [sh, -c, '{script}']}}\n"
            "  web: {command: [sleep, infinity], environment: {V: 'v%d'}, depends_on: {job: completed}}\n" % version
        )
        return cli("apply", "-f", str(file))

    assert apply(1, "exit 0").status == 0
    soon(lambda: daemon.client.info("web")["state"] == "running")
    ran = apply(2, "echo bad table; exit 3")
    assert ran.status == 1, ran
    assert "exit status 3" in ran.err, "the start itself may see the end already"
    assert daemon.client.info("web")["environment"] == {"V": "v1"}
    assert apply(2, f"echo v2 >{done}").status == 0
    assert done.read_text() == "v2\n"
    assert daemon.client.info("web")["environment"] == {"V": "v2"}


def test_a_job_that_failed_runs_again_with_the_next_apply(cli: Cli, daemon: Daemon, tmp_path: Path) -> None:
    """The first apply told of no failure; the next one had nothing to do, or a rollout that waited for somebody to run it."""
    file, good, done = tmp_path / "s.yaml", tmp_path / "good", tmp_path / "done"

    def apply(count: int, version: int) -> Ran:
        script = f"sleep 0.2; echo no table; test -e {good} && echo v >>{done}"
        file.write_text(
            "lxcfleet: 1\nfleet: s\ngroups:\n"
            f"  job: {{command: [sh, -c, '{script}']}}\n"
            "  web: {count: %d, command: [sleep, infinity], environment: {V: 'v%d'}, depends_on: {job: completed}}\n"
            % (count, version)
        )
        return cli("apply", "-f", str(file))

    ran = apply(1, 1)
    assert ran.status == 3, ran
    assert "job has run, and is not completed: exit status 1" in ran.err
    assert "no table" in ran.err
    assert "web1: blocked: job not completed: exit status 1; it starts by itself after that (`lxcfleet start job" in ran.err
    shown = cli("diff", "-f", str(file))
    assert (shown.status, "has to be completed before web1" in shown.out) == (4, True), shown
    ran = apply(1, 1)
    assert (ran.status, "job has run, and is not completed: exit status 1" in ran.err) == (1, True), ran
    good.touch()
    ran = apply(1, 1)
    assert ran.status == 0, ran
    soon(lambda: daemon.client.info("web1")["state"] == "running")
    assert apply(1, 1).status == 0
    assert done.read_text() == "v\n", "it is completed, and nothing has it run again"

    good.unlink()
    assert cli("start", "job").status == 0
    soon(lambda: daemon.client.info("job")["state"] == "failed")
    assert apply(1, 1).status == 0, "nothing waits for it"
    ran = apply(2, 2)
    assert (ran.status, "job has run, and is not completed" in ran.err) == (1, True), ran
    assert daemon.client.info("web1")["environment"] == {"V": "v1"}
    assert "web2" not in cli("list", "-q").out
    good.touch()
    assert apply(2, 2).status == 0
    assert daemon.client.info("web1")["environment"] == daemon.client.info("web2")["environment"] == {"V": "v2"}
    assert done.read_text() == "v\nv\n"

    cli("stop", "job")
    ran = apply(2, 3)
    assert (ran.status, "job is not completed: somebody stopped it" in ran.err) == (1, True), ran
    assert cli("start", "job").status == 0
    soon(lambda: daemon.client.info("job")["state"] == "exited")
    assert apply(2, 3).status == 0


def test_a_secret_that_nobody_declares_is_complained_of_with_its_line(shop: Shop) -> None:
    shop.write(text=SECRETS.replace("@", "/x").replace("[db-pw]", "[nope]"))
    ran = shop.run("diff")
    assert ran.status == 2
    assert ":6: groups: web: secrets: nope is declared neither" in ran.err
    shop.write(text=SECRETS.replace("@", "x"))
    assert ":4: secrets: db-pw: " in shop.run("diff").err


def test_the_same_name_in_two_fleets_means_two_secrets(shop: Shop, cli: Cli, daemon: Daemon, tmp_path: Path) -> None:
    for fleet in ("shop", "blog"):
        (tmp_path / fleet).write_text(fleet)
        text = SECRETS.replace("@", str(tmp_path / fleet)).replace("shop\n", f"{fleet}\n", 1).replace("web:", f"{fleet}:")
        shop.write(text=text)
        shop.apply()
    assert cli("secret", "list", "-q").out == "blog/db-pw\nshop/db-pw\n"
    assert daemon.model.secrets["blog/db-pw"] != daemon.model.secrets["shop/db-pw"]
    assert "is the name of several secrets" in cli("secret", "refresh", "db-pw").err
    assert cli("secret", "refresh", "blog/db-pw").out == "blog/db-pw  unchanged\n"


def test_half_written_records_of_a_rollout_are_told_and_stop_nothing(shop: Shop, cli: Cli) -> None:
    shop.apply()
    shop.write(("MODE: prod", "MODE: night"))
    shop.apply()
    paths = shop.daemon.paths
    (changes,) = paths.change_sets.glob("*.json")
    whole = changes.read_text()
    changes.write_text(whole[: len(whole) // 2])
    ran = cli("rollout", "undo")
    assert (ran.status, "what the rollout" in ran.err) == (1, True)
    changes.write_text(whole)
    paths.last_change.write_text(paths.last_change.read_text()[:40])
    reboot(shop.daemon)
    ran = cli("rollout", "undo")
    assert (ran.status, "there was no rollout" in ran.err) == (1, True)
    shop.write(("MODE: night", "MODE: day"))
    shop.apply()
    assert cli("rollout", "undo").status == 0
    assert shop.spec("web1").environment["MODE"] == "night"
    (undo,) = [file for file in paths.change_sets.glob("*.json") if json.loads(file.read_text())["undoes"]]
    whole = undo.read_text()
    data = json.loads(whole)
    for values in ({"environment": 5}, {"of_another_version": None}, {"of_another_version": 1}, None, [5]):
        data["members"]["web1"] = [values, values]
        undo.write_text(json.dumps(data))
        assert shop.changes() == {}, values
    undo.write_text(whole)
    assert {each["why"] for each in shop.diff()["kept"]} == {"rollout undo"}


ADDRESSES = """\
lxcfleet: 1
fleet: shop
groups:
  app: {command: [sleep, "900"]}
  web:
    count: 2
    command: [sleep, "900"]
    members: {web1: {static_addresses: [10.201.0.2]}, web2: {static_addresses: [10.201.0.2], labels: {a: b}}}
"""


def test_members_have_addresses_of_the_operator_s_choice(shop: Shop) -> None:
    shop.write(text=ADDRESSES)
    refused = shop.run("apply")
    assert (refused.status, "web1 and web2 can't all have 10.201.0.2" in refused.err) == (2, True), refused
    assert not shop.daemon.fleet.names
    shop.write(("web2: {static_addresses: [10.201.0.2]", "web2: {static_addresses: [10.201.0.7]"))
    assert shop.run("apply").status == 0
    found = {name: str(shop.daemon.fleet[name].spec.address) for name in shop.daemon.fleet.names}
    assert found == {"app": "10.201.0.3/16", "web1": "10.201.0.2/16", "web2": "10.201.0.7/16"}
    assert shop.run("diff").status == 0
