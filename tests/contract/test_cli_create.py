"""``lxcfleet create``: its output, its requests and its exit status."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from lxcfleet.containers.requests import services
from lxcfleet.errors import HostError
from lxcfleet.spec.reading.terms import Init
from lxcfleet.spec.states import State

from .conftest import Cli, Spawn, rows
from .real_daemon import Daemon


def test_create_one(cli: Cli, daemon: Daemon) -> None:
    ran = cli(
        "create", "web", "-l", "tier=front", "-e", "MODE=a=b", "--", "sh", "-c", "exec sleep 100", "--", "-n"
    )
    assert (ran.status, ran.out, ran.err) == (0, "web  created\n", "")
    spec = daemon.fleet["web"].spec
    assert spec.command == ("sh", "-c", "exec sleep 100", "--", "-n")
    assert (spec.labels, spec.environment) == ({"tier": "front"}, {"MODE": "a=b"})
    assert (spec.init, spec.privileged, daemon.fleet["web"].state) == (Init.APP, False, State.RUNNING)


def test_create_without_a_name_makes_c1(cli: Cli, daemon: Daemon) -> None:
    cli("create")
    assert daemon.fleet.names == {"c1"}
    assert daemon.fleet["c1"].spec.init is Init.SYSTEM


def test_create_many_sums_up(cli: Cli, daemon: Daemon) -> None:
    ran = cli("create", "-n", "21")
    assert ran.status == 0
    assert ran.out.startswith("21 created in ")
    assert daemon.fleet.names == {f"c{number}" for number in range(1, 22)}


def test_create_lists_few_containers_in_natural_order(cli: Cli) -> None:
    assert [row[0] for row in rows(cli("create", "web", "-n", "20").out)] == [f"web{n}" for n in range(1, 21)]


def test_create_ensure_twice(cli: Cli) -> None:
    assert json.loads(cli("create", "-n", "2", "--ensure", "-f", "json").out)["changed"] is True
    ran = cli("create", "-n", "2", "--ensure", "-f", "json")
    data = json.loads(ran.out)
    assert (ran.status, data["changed"]) == (0, False)
    assert [result["status"] for result in data["results"]] == ["unchanged", "unchanged"]
    assert cli("create", "-n", "3", "--ensure", "-q").out == "c3\n"


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_create_ensure_says_what_differs(cli: Cli, more: tuple[str, ...]) -> None:
    cli("create", "-n", "8", "--", "sleep", "900")
    ran = cli("create", "-n", "8", "--ensure", *more, "--", "sleep", "1000")
    told = "lxcfleet: c1, c2, c3, c4, c5 and 3 more: not as asked, and left so: command: sleep 900 (asked: sleep 1000)\n"
    assert (ran.status, ran.err) == (0, told)
    data = json.loads(cli("create", "c1", "--ensure", "-f", "json", *more, "--", "sleep", "1000").out)
    assert (data["changed"], data["results"][0]["differs"]) == (False, {"command": ["sleep 900", "sleep 1000"]})
    assert cli("create", "c1", "--ensure", "-q", *more, "--", "sleep", "1000").err == ""
    assert cli("create", "c1", "--ensure", *more, "--", "sleep", "900").err == ""


UPDATE = ("create", "c", "-n", "2", "--ensure", "--update")


def test_update_follows_the_rollout_of_what_takes_a_restart(cli: Cli) -> None:
    cli("create", "c", "-n", "2", "--", "sleep", "900")
    before = {each["name"]: each["pid"] for each in json.loads(cli("list", "-f", "json").out)}
    ran = cli(*UPDATE, "--", "sleep", "1000")
    assert ran.status == 0
    assert "lxcfleet: c1, c2: command: sleep 1000 (was: sleep 900)\n" in ran.err
    assert re.search(r"lxcfleet: 2 of them restarted in waves: rollout [0-9a-z]+ is done\n", ran.err)
    assert all(each["pid"] != before[each["name"]] for each in json.loads(cli("list", "-f", "json").out))
    again = cli(*UPDATE, "-f", "json", "--", "sleep", "1000")
    assert (again.status, again.err, json.loads(again.out)["rollout"]) == (0, "", None)
    live = cli(*UPDATE, "-f", "json", "--memory", "1G", "--", "sleep", "1000")
    assert (json.loads(live.out)["changed"], json.loads(live.out)["rollout"]) == (True, None)


def test_update_tells_the_rollout_in_json_and_need_not_wait_for_it(cli: Cli) -> None:
    cli("create", "c", "-n", "2", "--", "sleep", "900")
    dry = json.loads(cli(*UPDATE, "--dry-run", "-f", "json", "--", "sleep", "1000").out)
    assert [line for line in dry["plan"] if "restart" in line] == [
        "c1: restart it, in its turn", "c2: restart it, in its turn",
    ]  # fmt: skip
    done = json.loads(cli(*UPDATE, "-f", "json", "--", "sleep", "1000").out)
    assert (done["rollout"]["status"], done["rollout"]["done"]) == ("done", 2)
    left = cli(*UPDATE, "--no-wait", "--", "sleep", "1100")
    assert (left.status, "2 of them restarted in waves: rollout" in left.err) == (0, True)
    cli("rollout", "status", "--follow")
    for wrong in (("--no-wait",), ("--ensure", "--no-wait")):
        ran = cli("create", "c1", *wrong, "--", "sleep", "1100")
        assert (ran.status, "--no-wait would do nothing" in ran.err) == (2, True)


def test_update_says_where_its_rollout_is_halted(cli: Cli, daemon: Daemon) -> None:
    cli("create", "c", "-n", "2", "--", "sleep", "900")
    daemon.model.fails["c2"] = HostError("c2 did not start", why="status 500")
    ran = cli(*UPDATE, "--", "sleep", "1000")
    assert ran.status in (1, 3)
    assert "lxcfleet: the rollout is halted at c2\n  c2 did not start: status 500" in ran.err


CHECKED = ("--health-exec", "true", "--health-interval", "0.2", "--health-start-period", "0")


def test_update_changes_what_may_harm_in_waves_without_a_restart(cli: Cli, daemon: Daemon) -> None:
    three = ("create", "c", "-n", "3", *CHECKED)
    cli(*three, "--memory", "512M", "--", "sleep", "900")
    assert cli("wait", "--all", "--for", "healthy").status == 0
    before = {each["name"]: each["pid"] for each in json.loads(cli("list", "-f", "json").out)}

    def memories() -> list[int]:
        specs = [daemon.fleet[f"c{number}"].spec for number in (1, 2, 3)]
        return [spec.memory >> 20 for spec in specs]

    update = (*three, "--ensure", "--update", "--memory", "256M")
    dry = json.loads(cli(*update, "--dry-run", "-f", "json", "--", "sleep", "900").out)
    assert len([line for line in dry["plan"] if line.endswith("change it in its turn, without a restart")]) == 3
    daemon.model.limited = lambda name: daemon.model.sick.update({name: "no memory"} if name == "c1" else {})
    ran = cli(*update, "--", "sleep", "900")
    assert (ran.status, "not begun" in ran.out, memories()) == (1, True, [256, 512, 512]), ran
    assert "it became unhealthy after its change" in ran.err
    daemon.model.limited = str
    daemon.model.sick.clear()
    assert cli("rollout", "undo").status == 0
    done = cli(*update, "-f", "json", "--", "sleep", "900")
    record = json.loads(done.out)
    assert (done.status, {each["status"] for each in record["results"]}, memories()) == (0, {"changed"}, [256] * 3), done
    assert all(each["live"] for each in record["rollout"]["containers"])
    assert {each["name"]: each["pid"] for each in json.loads(cli("list", "-f", "json").out)} == before
    # What can't harm is there at once.
    more = cli(*three, "--ensure", "--update", "--memory", "1G", "-f", "json", "--", "sleep", "900")
    assert (json.loads(more.out)["rollout"], memories()) == (None, [1024] * 3)


def test_create_options(cli: Cli, daemon: Daemon) -> None:
    cli("create", "a", "--privileged", "--no-start", "--init", "app", "--", "true")
    container = daemon.fleet["a"]
    assert (container.spec.first_id, container.state) == (None, State.STOPPED)


def test_create_takes_a_variable_from_the_environment(
    cli: Cli, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FROM_HERE", "x")
    cli("create", "a", "-e", "FROM_HERE", "--", "true")
    assert daemon.fleet["a"].spec.environment == {"FROM_HERE": "x"}
    monkeypatch.delenv("FROM_HERE")
    assert cli("create", "b", "-e", "FROM_HERE", "--", "true").status == 2


def test_create_refuses_a_name_that_exists(cli: Cli, daemon: Daemon) -> None:
    daemon.fleet.add("web", labels={"old": "yes"})
    ran = cli("create", "web")
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith("lxcfleet: a container named web exists already\n  choose another name, or use --ensure")
    assert daemon.fleet["web"].spec.labels == {"old": "yes"}


def test_create_refuses_more_containers_than_fit(cli: Cli, daemon: Daemon) -> None:
    ran = cli("create", "-n", "4096")
    assert ran.status == 1
    assert "no room" in ran.err
    assert "4096 needed, 4000 left" in ran.err
    assert daemon.fleet.names == set()


def test_create_dry_run(cli: Cli, daemon: Daemon) -> None:
    ran = cli("create", "web", "-n", "2", "--dry-run")
    assert ran.status == 0
    steps = ran.out.splitlines()
    assert steps[0] == "web1: make its directory, spec, configuration and empty delta"
    assert steps[-1] == "web2: note that this is done"
    data = json.loads(cli("create", "web", "-n", "2", "--dry-run", "-f", "json").out)
    assert (data["changed"], data["plan"]) == (True, steps)
    assert daemon.fleet.names == set()


def test_one_failure_of_many_gives_status_3_and_the_others_are_created(cli: Cli, daemon: Daemon) -> None:
    daemon.model.fails["c2"] = HostError(
        "c2 did not start", why="/bin/nix: No such file (errno 2)", hint="look"
    )
    ran = cli("create", "-n", "3")
    assert ran.status == 3
    assert ran.err == "lxcfleet: c2 did not start\n  /bin/nix: No such file (errno 2)\n  look\n"
    assert rows(ran.out) == [["c1", "created"], ["c2", "failed"], ["c3", "created"]]
    assert daemon.fleet.names == {"c1", "c3"}


def test_if_all_fail_the_status_is_1(cli: Cli, daemon: Daemon) -> None:
    daemon.model.fails = {f"c{n}": HostError("no") for n in (1, 2)}
    ran = cli("create", "-n", "2", "-f", "json")
    assert ran.status == 1
    data = json.loads(ran.out)
    assert data["changed"] is False
    assert [result["error"]["code"] for result in data["results"]] == ["host-error", "host-error"]
    assert sorted(ran.err.splitlines()) == ["lxcfleet: c1: no", "lxcfleet: c2: no"]


@pytest.mark.parametrize(
    ("options", "check"),
    [
        (["--health-tcp", "80"], {"tcp": 80}),
        (["--health-http", "8080/ready", "--health-interval", "2.5"], {"http": "8080/ready", "interval": 2.5}),
        (["--health-exec", "test -e /up", "--health-retries", "1"], {"exec": ["/bin/sh", "-c", "test -e /up"], "retries": 1}),
    ],
)
def test_create_takes_a_health_check(cli: Cli, daemon: Daemon, options: list[str], check: dict[str, object]) -> None:
    assert cli("create", "web", *options, "--", "sleep", "900").status == 0
    told = json.loads(cli("info", "web", "-f", "json").out)["check"]
    usual: dict[str, object] = {"interval": 10.0, "timeout": 5.0, "retries": 3, "start_period": 30.0}
    assert told == {**usual, **check}


@pytest.mark.parametrize(
    "options",
    [
        ["--health-interval", "2"],
        ["--health-tcp", "80", "--health-exec", "true"],
        ["--health-tcp", "0"],
        ["--health-http", "https://web/"],
        ["--health-http", "up"],
        ["--health-tcp", "80", "--health-timeout", "100000"],
    ],
)
def test_a_health_check_that_makes_no_sense_is_refused(cli: Cli, daemon: Daemon, options: list[str]) -> None:
    ran = cli("create", "web", *options, "--", "sleep", "900")
    assert (ran.status, daemon.fleet.names) == (2, set())
    assert "health" in ran.err or "check" in ran.err


# -- services of the host's --------------------------------------------------------------------------------------------


@pytest.fixture
def unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A service that the host has, and that can't run in containers."""
    units = tmp_path / "usr/lib/systemd/system"
    units.mkdir(parents=True)
    (units / "own.service").write_text("[Unit]\nConditionVirtualization=!container\n[Service]\nExecStart=/bin/sh\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/sh").touch()
    for directory in (tmp_path, *tmp_path.rglob("*")):
        directory.chmod(0o755)
    monkeypatch.setattr(services, "_ROOT", tmp_path)
    return "own.service"


def test_create_gives_a_container_a_service_and_says_what_keeps_it_from_running(cli: Cli, daemon: Daemon, unit: str) -> None:
    note = f"lxcfleet: note: {unit}: it is passed over in containers (ConditionVirtualization=!container)\n"
    ran = cli("create", "web", "--unit", "own")
    assert (ran.status, ran.out, ran.err) == (0, "web  created\n", note)
    assert daemon.fleet["web"].spec.units == (unit,)
    assert cli("create", "other", "--unit", unit, "-q").err == ""
    assert cli("set", "other", "units=").err.count("note") == 0
    assert note in cli("set", "other", f"units={unit}", "--no-restart").err
    found = [each for each in json.loads(cli("doctor", "-f", "json").out)["findings"] if each["check"] == "units"]
    assert [(each["level"], each["message"].partition(":")[0]) for each in found] == [("warning", "other, web")]


@pytest.mark.parametrize("name", ["no-such-thing", "x.target", "-.mount", "../x.service", "a\nb.service", ""])
def test_create_refuses_a_service_that_the_host_does_not_have(cli: Cli, daemon: Daemon, name: str) -> None:
    ran = cli("create", "web", "--unit", name)
    assert ran.status == 2, ran
    assert len(ran.err.splitlines()) <= 3
    assert daemon.fleet.names == set()


def test_an_app_container_has_no_services_of_the_hosts(cli: Cli) -> None:
    assert cli("create", "web", "--unit", "cron", "--", "sleep", "900").status == 2


def test_config_check_looks_at_the_services_of_profiles_and_of_the_mask(cli: Cli, daemon: Daemon, unit: str) -> None:
    profiles = {"web": {"units": [unit, "no-such-thing"]}, "plain": {"labels": {"a": "b"}}}
    daemon.paths.config_file.write_text(json.dumps({"profiles": profiles}))
    daemon.paths.mask_rules.mkdir()
    (daemon.paths.mask_rules / "own.yaml").write_text("units: [own.target]\n")
    ran = cli("config", "check")
    assert ran.status == 2
    assert f"note: profile web: {unit}: it is passed over" in ran.err
    assert "profile web: the host has no unit no-such-thing.service" in ran.err
    assert "units in mask.d: own.target can't be given to containers" in ran.err


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"ipv4": "192.0.2.0/24"}, "network.ipv4: 192.0.2.0/24 overlaps with 192.0.2.0/24, which the host uses"),
        ({"ipv4": "192.0.0.0/16"}, "network.ipv4: 192.0.0.0/16 overlaps with 192.0.2.0/24, which the host uses"),
        ({"bridge": "lo"}, "no bridge can be called 'lo'"),
        ({"bridge": "all"}, "no bridge can be called 'all'"),
        ({"domain": "fleet.localhost"}, "RFC 6761"),
    ],
)
def test_config_check_and_doctor_tell_of_a_network_that_the_host_can_not_have(
    cli: Cli, daemon: Daemon, said: dict[str, str], why: str
) -> None:
    """They said ok, and each create of a connected container was refused."""
    wanted = {"network": {"bridge": "lt0", **said}}
    daemon.paths.config_file.write_text(json.dumps(wanted))
    ran = cli("config", "check")
    assert (ran.status, why in ran.err) == (2, True), ran
    daemon.paths.config_file.write_text(json.dumps({"network": {"bridge": "lt0", "ipv4": "10.77.0.0/16"}}))
    assert cli("config", "check").status == 0


def test_a_name_that_is_somebody_s_alias_is_refused(cli: Cli, daemon: Daemon) -> None:
    assert cli("create", "pg1", "--alias", "db", "--alias", "cache.shop", "--", "true").status == 0
    assert daemon.fleet["pg1"].spec.aliases == ("db", "cache.shop")
    refused = cli("create", "db", "--", "true")
    assert (refused.status, "it is an alias of pg1" in refused.err, "set pg1 aliases=" in refused.err) == (2, True, True)
    refused = cli("create", "pg2", "--alias", "pg1", "--", "true")
    assert (refused.status, "pg1 can't be an alias" in refused.err) == (2, True)
    assert cli("set", "pg1", "aliases=pg1").status == 2
    assert cli("set", "pg1", "aliases=").status == cli("create", "db", "--", "true").status == 0


def test_an_address_of_one_s_choice(cli: Cli, daemon: Daemon) -> None:
    def has(name: str) -> list[str]:
        spec = daemon.fleet[name].spec
        return [str(each.ip) for each in (spec.address, spec.address6) if each is not None]

    assert cli("create", "db", "--address", "10.201.0.3", "--", "true").status == 0
    assert cli("create", "web", "-n", "2", "--", "true").status == 0
    assert [has(name)[0] for name in ("db", "web1", "web2")] == ["10.201.0.3", "10.201.0.2", "10.201.0.4"]
    for address, why in (("10.201.0.3", "db has it"), ("10.201.0.1", "the bridge's"), ("10.7.0.9", "the fleet's range is")):
        refused = cli("create", "x", "--address", address, "--", "true")
        assert (refused.status, why in refused.err) == (2, True), refused.err
    refused = cli("create", "x", "-n", "2", "--address", "10.201.0.9", "--", "true")
    assert (refused.status, "2 containers can't all have 10.201.0.9" in refused.err) == (2, True)
    assert cli("create", "x", "--network", "none", "--address", "10.201.0.9", "--", "true").status == 2
    refused = cli("set", "web1", "web2", "static_addresses=10.201.0.9")
    assert (refused.status, "web1 and web2 can't all have" in refused.err) == (2, True)
    assert daemon.fleet.names == {"db", "web1", "web2"}

    assert cli("stop", "db").status == cli("set", "db", "static_addresses=10.201.0.60").status == 0
    assert cli("create", "x", "--address", "10.201.0.3", "--", "true").status == 0  # it is free again
    assert has("db")[0] == "10.201.0.60"
    assert cli("set", "db", "static_addresses=").status == 0
    assert has("db")[0] == "10.201.0.60"
    assert cli("create", "y", "--address", "10.201.0.60", "--", "true").status == 2


def test_a_running_container_keeps_its_address_until_its_restart(cli: Cli, daemon: Daemon) -> None:
    assert cli("create", "db", "--", "sleep", "900").status == 0
    before = daemon.fleet["db"].spec.address
    assert before is not None
    assert cli("set", "db", "static_addresses=10.201.0.77", "--no-restart").status == 0
    refused = cli("create", "x", "--address", str(before.ip), "--", "true")
    assert (refused.status, "db has it" in refused.err) == (2, True)
    assert cli("restart", "db").status == 0
    assert str(daemon.fleet["db"].spec.address) == "10.201.0.77/16"


def test_of_many_that_ask_for_one_address_at_once_one_gets_it(spawn: Spawn, daemon: Daemon) -> None:
    asked = [spawn("create", f"db{number}", "--address", "10.201.0.9", "--", "true") for number in range(8)]
    statuses = sorted(each.wait(200) for each in asked)
    assert statuses == [0] + [2] * 7
    ((name, spec),) = [(name, daemon.fleet[name].spec) for name in daemon.fleet.names]
    assert (name.startswith("db"), str(spec.address)) == (True, "10.201.0.9/16")


def test_limits_of_bandwidth(cli: Cli, daemon: Daemon) -> None:
    assert cli("create", "web", "--receive-mbit", "100", "--send-mbit", "0.5", "--", "sleep", "900").status == 0
    spec = daemon.fleet["web"].spec
    assert (spec.receive_mbit, spec.send_mbit) == (100, 0.5)
    assert cli("set", "web", "receive_mbit=0", "send_mbit=20").status == 0
    spec = daemon.fleet["web"].spec
    assert (spec.receive_mbit, spec.send_mbit) == (0, 20)
    for wrong in ("-1", "fast", "nan", "2000000"):
        assert cli("create", "x", "--send-mbit", wrong, "--", "true").status == 2
    refused = cli("create", "x", "--network", "none", "--send-mbit", "1", "--", "true")
    assert (refused.status, "has no bandwidth of its own" in refused.err) == (2, True)
