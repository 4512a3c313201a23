"""Apps by the command line, over the real daemon and a fake launcher."""

from __future__ import annotations

import json
import re
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from lxcfleet.containers.container import Container
from lxcfleet.errors import Broken, Busy, HostError
from lxcfleet.patch.rollout import packages
from lxcfleet.patch.rollout.change_sets import ChangeSets

from .conftest import Cli, Spawn, rows, soon
from .real_daemon import Daemon

SLEEP = ("--", "sleep", "infinity")


@pytest.fixture
def build(tmp_path: Path) -> str:
    """A directory to seal."""
    (tmp_path / "build").mkdir()
    (tmp_path / "build/serve").write_text("one")
    return str(tmp_path / "build")


def test_a_release_is_sealed_listed_and_removed(cli: Cli, daemon: Daemon, build: str) -> None:
    planned = cli("app", "add", "shop", build, "--version", "1.4", "--dry-run")
    assert (planned.status, daemon.paths.apps.exists()) == (0, False)
    made = cli("app", "add", "shop", build, "--version", "1.4", "-f", "json")
    assert (made.status, json.loads(made.out)["changed"]) == (0, True)
    again = cli("app", "add", "shop", build, "--version", "1.4")
    assert (again.status, again.err.splitlines()[0]) == (1, "lxcfleet: the app shop@1.4 exists already")
    assert cli("app", "list", "-q").out == "shop@1.4\n"
    assert rows(cli("app", "list", "shop").out)[1][:3] == ["shop", "1.4", "3"]
    assert cli("app", "list", "other", "-q").out == ""
    record = json.loads(cli("app", "info", "shop@1.4", "-f", "json").out)
    assert (record["release"], record["containers"], record["problem"], record["source"]) == ("shop@1.4", [], None, build)
    assert (cli("app", "info", "shop@1.5").status, cli("app", "rm", "shop@1.5").status) == (1, 1)
    assert cli("app", "rm", "shop@1.4", "--dry-run").status == 0
    removed = cli("app", "rm", "shop@1.4")
    assert (removed.status, removed.out) == (0, "shop@1.4  removed\n")
    assert cli("app", "list", "-q").out == ""


def test_a_container_gets_a_release_and_keeps_it_from_being_removed(cli: Cli, build: str) -> None:
    refused = cli("create", "web", "--app", "shop@1.4", *SLEEP)
    assert (refused.status, refused.err.splitlines()[0]) == (2, "lxcfleet: there is no app shop@1.4")
    for version in ("1.4", "1.5"):
        cli("app", "add", "shop", build, "--version", version)
    assert cli("create", "web", "-n", "2", "--app", "shop@1.4", *SLEEP).status == 0
    assert json.loads(cli("list", "web1", "-f", "json").out)[0]["app"] == "shop@1.4"
    assert "shop@1.4" in cli("info", "web1").out
    kept = cli("app", "rm", "shop@1.5", "shop@1.4")
    assert (kept.status, cli("app", "list", "-q").out) == (1, "shop@1.4\nshop@1.5\n")
    assert "web1, web2" in kept.err
    changed = cli("set", "web1", "app=shop@1.5", "-f", "json")
    assert (changed.status, json.loads(changed.out)["restarts"]) == (0, ["web1"])
    assert cli("set", "web1", "app=shop@1.6").status == 2
    assert cli("set", "web2", "app=").status == 0
    assert cli("app", "rm", "shop@1.4").status == 0


def test_a_container_waits_for_a_release_that_is_gone(cli: Cli, daemon: Daemon, build: str) -> None:
    cli("app", "add", "shop", build, "--version", "1.4")
    cli("create", "web", "--app", "shop@1.4", *SLEEP)
    cli("stop", "web")
    own = daemon.paths.release("shop", "1.4").directory
    own.rename(own.with_name("1.0"))
    started = cli("start", "web")
    assert started.status == 0
    assert "blocked: app shop@1.4 is not on this host" in cli("list").out
    cli("app", "add", "shop", build, "--version", "1.4")
    assert cli("wait", "web", "--for", "running", "--timeout", "60").status == 0


def test_old_releases_are_removed_but_for_those_in_use(cli: Cli, build: str) -> None:
    for version in ("1", "2", "3"):
        cli("app", "add", "shop", build, "--version", version)
    cli("create", "web", "--app", "shop@1", *SLEEP)
    added = cli("app", "add", "shop", build, "--version", "4", "--keep", "1")
    assert added.status == 0
    assert "old releases were removed: 2, 3" in added.err
    assert cli("app", "list", "-q").out == "shop@1\nshop@4\n"


def test_a_fleet_file_has_apps_and_keeps_the_newest(cli: Cli, build: str, tmp_path: Path) -> None:
    file = tmp_path / "fleet.yaml"

    def write(keep: int, version: str) -> None:
        file.write_text(
            f'lxcfleet: 1\nfleet: shop\napps:\n  shop: {{mount: /srv/shop, keep: {keep}, releases: ["1"]}}\n'
            f"groups:\n  web: {{count: 2, command: [sleep, infinity], app: shop@{version}}}\n"
        )

    write(9, "4")
    refused = cli("apply", "-f", str(file))
    assert (refused.status, "app add shop DIR --version 4" in refused.err, cli("list", "-q").out) == (2, True, "")
    for version in ("1", "2", "3", "4", "5", "6"):
        cli("app", "add", "shop", build, "--version", version)
    seen = cli("diff", "-f", str(file))
    assert (seen.status, seen.out.splitlines()[0]) == (4, "create app shop: keep: none -> 9; releases: none -> 1")
    assert cli("apply", "-f", str(file)).status == 0
    assert cli("list", "-f", "json").out.count('"shop@4:/srv/shop"') == 2
    assert cli("diff", "-f", str(file)).status == 0
    assert cli("app", "use", "web2", "shop@5", *CANARY).status == 0
    kept = cli("diff", "-f", str(file))
    assert (kept.status, "web2: app shop@4:/srv/shop, now shop@5:/srv/shop (set): left so" in kept.err) == (0, True)
    write(1, "4")
    assert cli("diff", "-f", str(file)).out.splitlines()[0] == "live app shop: keep: 9 -> 1"
    assert cli("app", "list", "-q").out.split() == [f"shop@{number}" for number in range(1, 7)]
    assert cli("apply", "-f", str(file)).status == 0
    # 1 is named, 4 and 5 are in use, 3 came before 4, and 6 is the newest.
    assert cli("app", "list", "-q").out.split() == ["shop@1", "shop@3", "shop@4", "shop@5", "shop@6"]
    write(1, "6")
    assert cli("apply", "-f", str(file)).status == 0
    assert apps(cli) == ["shop@6"] * 2, "the file says another one than before"
    assert 'mount: "/srv/shop", keep: 1, releases: ["1"]}' in cli("export", "--fleet", "shop").out


def test_a_layer_has_no_place_of_its_own(cli: Cli, build: str, tmp_path: Path) -> None:
    assert cli("app", "add", "shop", build, "--version", "1", "--covers", "/etc/x").status == 2
    assert cli("app", "add", "shop", build, "--version", "1", "--form", "layer", "--covers", "/usr/lib").status == 2
    assert cli("app", "add", "shop", build, "--version", "1", "--form", "layer", "--covers", "/etc/x").status == 0
    assert cli("app", "add", "plain", build, "--version", "1").status == 0
    record = json.loads(cli("app", "info", "shop@1", "-f", "json").out)
    assert (record["form"], record["covers"]) == ("layer", ["/etc/x"])
    for app, why in (("shop@1", "write it as shop@1:/"), ("plain@1:/", "write it as plain@1")):
        refused = cli("create", "web", "--app", app, *SLEEP)
        assert (refused.status, why in refused.err) == (2, True)
    assert cli("create", "web", "--app", "shop@1:/", *SLEEP).status == 0
    assert json.loads(cli("list", "-f", "json").out)[0]["app"] == "shop@1:/"
    cli("app", "add", "shop", build, "--version", "2", "--form", "layer")
    assert cli("app", "use", "web", "shop@2", *CANARY).status == 0
    assert json.loads(cli("list", "-f", "json").out)[0]["app"] == "shop@2:/"
    file = tmp_path / "fleet.yaml"
    file.write_text(
        "lxcfleet: 1\nfleet: shop\napps:\n  shop: {form: layer}\n"
        "groups:\n  api: {command: [sleep, infinity], app: shop@2}\n  old: {command: [sleep, infinity], app: shop@1}\n"
    )
    refused = cli("apply", "-f", str(file))
    assert (refused.status, "shop@1 may hide /etc/x, which" in refused.err) == (2, True)
    file.write_text(file.read_text().replace("form: layer", "form: layer, covers: [/etc/x]"))
    assert cli("apply", "-f", str(file)).status == 0
    assert [each["app"] for each in json.loads(cli("list", "-f", "json").out)] == ["shop@2:/", "shop@1:/", "shop@2:/"]


def test_altered_releases_are_named(cli: Cli, daemon: Daemon, build: str) -> None:
    for version in ("1", "2"):
        cli("app", "add", "shop", build, "--version", version)
    assert cli("app", "verify").status == 0
    daemon.model.fails["shop@2"] = Broken("the app shop@2 was altered since it was sealed", why="serve is gone")
    found = cli("app", "verify", "shop")
    assert (found.status, "shop@2: the app shop@2 was altered since it was sealed" in found.out) == (4, True)
    assert "serve is gone" in found.out
    assert cli("app", "verify", "-q").out == "shop@2\n"
    assert cli("app", "verify", "shop@1").status == 0
    assert cli("app", "verify", "other").status == 1
    refused = cli("create", "web", "--app", "shop@2", *SLEEP)
    assert (refused.status, "altered" in refused.err) == (1, True)


def test_a_release_that_can_not_be_sealed_leaves_nothing(cli: Cli, daemon: Daemon, build: str) -> None:
    daemon.model.fails["shop@1"] = HostError("there is no room for this release")
    assert cli("app", "add", "shop", build, "--version", "1").status == 1
    assert cli("app", "list", "-q").out == ""
    for name, source, version in (("Shop", build, "1"), ("shop", build, "../1"), ("shop", "/no/such", "1")):
        assert cli("app", "add", name, source, "--version", version).status == 2


# -- another release --------------------------------------------------------------------------------------------

CANARY = ("--canaries", "1", "--min-healthy-time", "0", "--healthy-deadline", "60")


@pytest.fixture
def shop(cli: Cli, build: str) -> None:
    """Four containers with shop@1, of which web4 is stopped; shop@2 is there."""
    for version in ("1", "2"):
        assert cli("app", "add", "shop", build, "--version", version).status == 0
    assert cli("create", "web", "-n", "4", "--app", "shop@1:/srv/shop", *SLEEP).status == 0
    assert cli("stop", "web4").status == 0


def apps(cli: Cli) -> list[str]:
    return [each["app"].partition(":")[0] for each in json.loads(cli("list", "-f", "json").out)]


@pytest.mark.usefixtures("shop")
def test_a_release_is_used_by_a_rollout_and_undone(cli: Cli) -> None:
    planned = cli("app", "use", "web*", "shop@2", "--dry-run")
    assert (planned.status, apps(cli)) == (0, ["shop@1"] * 4)
    assert "4 containers would be changed: shop@1:/srv/shop -> shop@2:/srv/shop" in planned.err
    used = cli("app", "use", "web*", "shop@2", *CANARY, "-f", "json")
    record = json.loads(used.out)
    assert (used.status, record["changed"], record["restarts"]) == (0, True, ["web1", "web2", "web3"])
    assert record["apps"]["web4"] == ["shop@1:/srv/shop", "shop@2:/srv/shop"]
    assert record["rollout"]["about"] == "shop@1:/srv/shop -> shop@2:/srv/shop"
    assert apps(cli) == ["shop@2"] * 4
    assert json.loads(cli("list", "web4", "-f", "json").out)[0]["state"] == "stopped"
    before = cli("list", "-f", "json").out
    again = cli("app", "use", "--all", "shop@2", "-f", "json")
    assert (again.status, json.loads(again.out)["changed"], json.loads(again.out)["rollout"]) == (0, False, None)
    assert [each["pid"] for each in json.loads(cli("list", "-f", "json").out)] == [e["pid"] for e in json.loads(before)]
    assert cli("app", "undo", "web2", *CANARY).status == 0
    assert apps(cli) == ["shop@2", "shop@1", "shop@2", "shop@2"]
    assert cli("app", "undo", "web2", *CANARY).status == 0
    assert apps(cli) == ["shop@2"] * 4
    events = cli("events", "--since", "1h").out
    assert "begins: 3 containers: shop@1:/srv/shop -> shop@2:/srv/shop" in events


@pytest.mark.usefixtures("shop")
def test_without_a_choice_the_last_change_is_undone(cli: Cli) -> None:
    assert cli("app", "undo").status == 1
    assert cli("app", "use", "web1", "web4", "shop@2", *CANARY).status == 0
    assert cli("app", "undo", "web3").status == 1
    assert cli("app", "undo", *CANARY).status == 0
    assert apps(cli) == ["shop@1"] * 4
    assert cli("app", "use", "web1", "shop@2", *CANARY).status == 0
    kept = cli("set", "web1", "app=shop@2:/srv/other")
    assert kept.status == 0
    assert cli("app", "undo", "web1").status == 1  # somebody changed it since
    assert "shop@1" in cli("app", "list", "-q").out


@pytest.mark.usefixtures("shop")
def test_all_containers_are_checked_before_the_first_is_touched(cli: Cli, daemon: Daemon) -> None:
    missing = cli("app", "use", "--all", "shop@3")
    assert (missing.status, "there is no app shop@3" in missing.err) == (2, True)
    daemon.model.fails["shop@2"] = Broken("the app shop@2 was altered since it was sealed", why="serve is gone")
    altered = cli("app", "use", "--all", "shop@2")
    assert (altered.status, "serve is gone" in altered.err) == (1, True)
    del daemon.model.fails["shop@2"]
    cli("create", "other", *SLEEP)
    cli("set", "web3", "app=", "--no-restart")
    assert cli("app", "use", "--all", "shop@2", "--dry-run").status == 0
    cli("app", "add", "till", str(daemon.paths.release("shop", "1").tree), "--version", "1")
    assert cli("set", "other", "app=till@1").status == 0
    refused = cli("app", "use", "--all", "shop@2")
    assert (refused.status, "have another app than shop" in refused.err) == (2, True)
    for words in (("web1",), ("web1", "shop@1", "shop@2"), ("shop@2",)):
        assert cli("app", "use", *words).status == 2
    assert [each["app"] for each in json.loads(cli("list", "web1", "web2", "-f", "json").out)] == ["shop@1:/srv/shop"] * 2


@pytest.mark.usefixtures("shop")
def test_a_release_that_nobody_can_have_is_told_for_all_of_them(cli: Cli) -> None:
    """Only the first was told, and the others counted as if they could have it."""
    assert cli("create", "api", "-n", "3", "--no-start", "--", "sleep", "infinity").status == 0
    refused = cli("set", "api*", "app=shop@9")
    assert (refused.status, "nothing was changed: 3 of 3 containers" in refused.err) == (2, True), refused.err


@pytest.mark.usefixtures("shop")
def test_a_failed_gate_goes_back_by_itself_and_names_both_releases(cli: Cli, daemon: Daemon) -> None:
    daemon.model.fails["web1"] = HostError("its program ends at once")
    failed = cli("app", "use", "web*", "shop@2", *CANARY)
    assert failed.status in (1, 3)
    assert "putting the former values back halted, too; not well with them, or not known to be: web1\n" in failed.err
    assert re.search(r"are to be changed: .*\n.*taken back in waves: rollout [0-9a-f]+ is ", failed.err)
    assert "shop@2:/srv/shop -> shop@1:/srv/shop, as web1: " in failed.err
    assert apps(cli) == ["shop@1"] * 4
    status = cli("rollout", "status").out
    assert "changes shop@2:/srv/shop -> shop@1:/srv/shop, as web1:" in status
    assert "(shop@1:/srv/shop -> shop@2:/srv/shop)" in cli("events", "--since", "1h").out


@pytest.mark.usefixtures("shop")
def test_a_failed_gate_may_be_left_halted(cli: Cli, daemon: Daemon) -> None:
    daemon.model.fails["web1"] = HostError("its program ends at once")
    assert cli("app", "use", "web*", "shop@2", "--no-revert", *CANARY).status in (1, 3)
    assert apps(cli)[0] == "shop@2"
    assert apps(cli)[1:3] == ["shop@1"] * 2
    del daemon.model.fails["web1"]
    assert cli("rollout", "undo").status == 0
    assert apps(cli) == ["shop@1"] * 4


@pytest.mark.usefixtures("shop")
def test_what_a_rollout_may_give_back_is_not_removed(cli: Cli, daemon: Daemon) -> None:
    """No spec names it any more, as all of its members have the new release: but it has not ended."""
    assert cli("destroy", "web2", "web3", "web4", "--force").status == 0
    daemon.model.fails["web1"] = HostError("its program ends at once")
    assert cli("app", "use", "web1", "shop@2", "--no-revert", *CANARY).status in (1, 3)
    for words in (("shop@1", "--dry-run"), ("shop@1",)):
        refused = cli("app", "rm", *words)
        assert (refused.status, "may give it to web1" in refused.err) == (1, True), refused
    assert cli("rollout", "abort").status == 0
    assert cli("app", "rm", "shop@1").status == 0


@pytest.mark.usefixtures("shop")
def test_what_is_just_being_started_as_its_turn_comes_gets_its_spec_all_the_same(
    cli: Cli, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its start had failed, and was tried again by itself: it came up with what was to be taken back, and the undo said that
    it was done."""
    daemon.model.fails["web1"] = HostError("its program ends at once")
    assert cli("app", "use", "web*", "shop@2", "--no-revert", *CANARY).status in (1, 3)
    refused, remember, put = threading.Event(), packages.remember, ChangeSets.put

    def begin(*arguments: Any, **more: Any) -> dict[str, str]:
        if not refused.is_set():
            daemon.model.during = lambda name: name != "web1" or refused.wait(60)
            daemon.model.fails.clear()
            soon(lambda: daemon.parts.registry["web1"].busy)
        return remember(*arguments, **more)

    async def noted(self: ChangeSets, rollout: str, container: Container) -> None:
        try:
            await put(self, rollout, container)
        except Busy:
            refused.set()
            raise

    monkeypatch.setattr(packages, "remember", begin)
    monkeypatch.setattr(ChangeSets, "put", noted)
    undone = cli("rollout", "undo")
    assert (undone.status, refused.is_set()) == (0, True), undone.err
    assert apps(cli) == ["shop@1"] * 4


@pytest.mark.parametrize("undo", [False, True])
@pytest.mark.usefixtures("shop")
def test_what_is_stopped_before_its_turn_gets_its_spec_once_all_is_well(
    cli: Cli, daemon: Daemon, spawn: Spawn, undo: bool
) -> None:
    """It was skipped, and the command said that all was done; its next start was with the release that was taken back."""
    if undo:
        assert cli("app", "use", "web*", "shop@2", *CANARY).status == 0
    command = ["rollout", "undo"] if undo else ["app", "use", "web*", "shop@2", *CANARY]
    stopped = threading.Event()
    daemon.model.during = lambda name: name != "web1" or stopped.wait(60)
    changing = spawn(*command)
    soon(lambda: daemon.parts.registry["web1"].busy)
    assert cli("stop", "web3").status == 0
    stopped.set()
    said = changing.communicate(timeout=60)
    assert changing.returncode == 0, said
    assert apps(cli) == ["shop@1" if undo else "shop@2"] * 4
    members = json.loads(cli("rollout", "status", "-f", "json").out)["containers"]
    notes = {each["name"]: (each["phase"], each["note"]) for each in members}
    assert notes["web3"] == ("done", "it does not run, and stays so")
    assert daemon.parts.registry["web3"].running is None


@pytest.mark.usefixtures("shop")
def test_what_is_frozen_as_its_turn_comes_is_told_to_keep_its_former_spec(cli: Cli) -> None:
    """It was skipped, and an undo said that it was done."""
    assert cli("app", "use", "web*", "shop@2", *CANARY).status == 0
    assert cli("freeze", "web2").status == 0
    undone = cli("rollout", "undo")
    assert (undone.status, apps(cli)) == (3, ["shop@1", "shop@2", "shop@1", "shop@1"])
    assert "web2 does not get its former spec back\n  it is frozen, and was not restarted\n" in undone.err
    assert cli("unfreeze", "web2").status == 0
    assert (cli("rollout", "undo").status, apps(cli)) == (0, ["shop@1"] * 4)
    assert cli("freeze", "web3").status == 0
    used = cli("app", "use", "web*", "shop@2", *CANARY)
    assert (used.status, apps(cli)) == (3, ["shop@2", "shop@2", "shop@1", "shop@2"])
    assert "web3 keeps its former spec\n  it is frozen, and was not restarted\n" in used.err


@pytest.mark.usefixtures("shop")
def test_the_former_release_is_kept_for_undo(cli: Cli, build: str) -> None:
    assert cli("app", "use", "--all", "shop@2", *CANARY).status == 0
    assert cli("app", "add", "shop", build, "--version", "3", "--keep", "1").status == 0
    assert cli("app", "list", "-q").out == "shop@1\nshop@2\nshop@3\n"


def test_checks_name_the_app(cli: Cli, build: str) -> None:
    cli("app", "add", "shop", build, "--version", "1")
    cli("create", "web", "--app", "shop@1", *SLEEP)
    cli("create", "other", *SLEEP)
    proof = {each["name"]: each for each in json.loads(cli("verify", "-f", "json").out)["containers"]}
    assert (proof["web"]["app"], proof["other"]["app"]) == ("shop@1", None)
    shadows = {each["name"]: each for each in json.loads(cli("audit", "shadow", "-f", "json").out)}
    assert (shadows["web"]["app"], shadows["web"]["brings"], shadows["other"]["app"]) == ("shop@1", [], None)


# -- what a clone builds ----------------------------------------------------------------------------------------


def install(daemon: Daemon) -> str:
    """A script that a clone runs: the model's containers write to their delta by its path on the host."""
    place = daemon.paths.container("bake1").delta / "opt/shop"
    return f"sleep 1; mkdir -p {place}; echo built >{place}/serve"


def test_a_clone_builds_a_release_and_is_destroyed(cli: Cli, daemon: Daemon) -> None:
    planned = cli("app", "bake", "shop", "--version", "1", "--dry-run", "--", "sh", "-c", "true")
    assert (planned.status, "seal what /opt/shop has then, and destroy bake1" in planned.out + planned.err) == (0, True)
    baked = cli("app", "bake", "shop", "--version", "1", "-f", "json", "--", "sh", "-c", install(daemon))
    assert (baked.status, json.loads(baked.out)["changed"]) == (0, True), baked.err
    record = json.loads(cli("app", "info", "shop@1", "-f", "json").out)
    assert (record["source"], len(record["base"])) == ("baked", 16)
    assert (daemon.paths.release("shop", "1").tree / "serve").read_text() == "built\n"
    assert json.loads(cli("list", "-f", "json").out) == []
    assert json.loads(daemon.paths.bakes.read_text()) == []
    assert cli("app", "bake", "shop", "--version", "1", "--", "true").status == 1


@pytest.mark.parametrize(("options", "script", "told"), [
    ((), "sleep 1; echo no such file; exit 3", "exit status 3"),
    ((), "echo no such file; exit 3", "the command failed\n  exit status 3\n  no such file"),
    (("--timeout", "1"), "sleep 60", "did not end in time"),
    (("--path", "/usr/bin"), "true", "nothing can be mounted at /usr/bin"),
    (("--path", "/etc/default"), "true", "the host has files there"),
])  # fmt: skip
def test_a_bake_that_fails_leaves_nothing(
    cli: Cli, daemon: Daemon, options: tuple[str, ...], script: str, told: str
) -> None:
    failed = cli("app", "bake", "shop", "--version", "1", *options, "--", "sh", "-c", script)
    assert (failed.status in (1, 2), told in failed.err) == (True, True), failed.err
    assert json.loads(cli("list", "-f", "json").out) == []
    assert cli("app", "list", "-q").out == ""
    assert not daemon.paths.bakes.exists() or json.loads(daemon.paths.bakes.read_text()) == []


def test_ctrl_c_ends_the_command_of_a_bake_and_leaves_nothing(cli: Cli, spawn: Spawn, daemon: Daemon) -> None:
    process = spawn("app", "bake", "shop", "--version", "1", "--", "sleep", "6000")
    soon(lambda: any(each["state"] == "running" for each in json.loads(cli("list", "-f", "json").out)))
    soon(lambda: any(line.endswith("/follow") for line in daemon.requests))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err.splitlines()[-1]) == (130, b"lxcfleet: cancelled: 0 done, 1 ended before it was done")
    assert json.loads(cli("list", "-f", "json").out) == []
    assert cli("app", "list", "-q").out == ""
    assert json.loads(daemon.paths.bakes.read_text()) == []


def test_two_bakes_that_begin_at_once_have_a_clone_each(cli: Cli, spawn: Spawn, daemon: Daemon) -> None:
    processes = []
    for app in ("one", "two"):
        # Each clone of the model's fills both places, so that it does not matter which name it has.
        places = [daemon.paths.container(name).delta / f"opt/{app}" for name in ("bake1", "bake2")]
        script = "sleep 1; " + "; ".join(f"test ! -e {p.parents[1]} || mkdir -p {p}" for p in places)
        processes.append(spawn("app", "bake", app, "--version", "1", "--", "sh", "-c", script))
    for process in processes:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    assert sorted(cli("app", "list", "-q").out.split()) == ["one@1", "two@1"]
    assert json.loads(cli("list", "-f", "json").out) == []
    assert json.loads(daemon.paths.bakes.read_text()) == []


@pytest.mark.parametrize("busy", [None, "start"])
def test_what_a_crash_left_of_a_bake_is_destroyed_and_nothing_else(cli: Cli, daemon: Daemon, busy: str | None) -> None:
    """``busy``: the new daemon goes on with the start of the clone that was broken off. It stayed until the next daemon."""
    cli("create", "bake1", "-l", "lxcfleet.bake=shop@1", *SLEEP)
    cli("create", "bake2", *SLEEP)
    daemon.paths.apps.mkdir(parents=True)
    daemon.paths.bakes.write_text('["bake1", "bake2", "gone"]')
    clone = daemon.parts.registry["bake1"]
    daemon.call(lambda: setattr(clone, "busy", busy))
    daemon.call(lambda: daemon.parts.tasks.do("bakes", daemon.parts.baking.clean_up))
    daemon.call(lambda: setattr(clone, "busy", None))
    soon(lambda: json.loads(daemon.paths.bakes.read_text()) == [])
    assert [each["name"] for each in json.loads(cli("list", "-f", "json").out)] == ["bake2"]


def test_a_daemon_that_ends_leaves_a_clone_that_is_in_use_to_the_next_one(cli: Cli, daemon: Daemon) -> None:
    """It waited for the end of whatever was done to the clone, such as an export that takes hours."""
    cli("create", "bake1", "-l", "lxcfleet.bake=shop@1", *SLEEP)
    daemon.paths.apps.mkdir(parents=True)
    daemon.paths.bakes.write_text('["bake1"]')
    clone = daemon.parts.registry["bake1"]
    over: list[bool] = []

    async def clean() -> None:
        await daemon.parts.baking.clean_up()
        over.append(True)

    daemon.call(lambda: setattr(clone, "busy", "snapshot"))
    daemon.call(lambda: daemon.parts.tasks.do("bakes", clean))
    assert not over
    daemon.call(daemon.parts.prerequisites.end)
    soon(lambda: over == [True])
    assert json.loads(daemon.paths.bakes.read_text()) == ["bake1"]
    daemon.call(lambda: setattr(clone, "busy", None))


def test_a_drained_host_bakes_nothing(cli: Cli) -> None:
    assert cli("drain").status == 0
    refused = cli("app", "bake", "shop", "--version", "1", "--", "true")
    assert (refused.status, "this host is drained, so no app is baked: " in refused.err) == (1, True)
    assert "--no-start" not in refused.err, "it does not have that"
    assert "lxcfleet drain --end" in refused.err
