"""Health of real containers: the checks, their consequences, and the health that survives the daemon."""

from __future__ import annotations

import json
import signal
import time

import pytest

from lxcfleet.api.queries import EventsRequest

from .harness import SLEEP, Fleet, until

pytestmark = pytest.mark.system

OFTEN = ("--health-interval", "0.2", "--health-retries", "2", "--health-start-period", "0")
FAST = (*OFTEN, "--health-timeout", "20")
"""The time is for a busy machine: no check takes long that does not hang."""
SERVE = ("--", "python3", "-m", "http.server", "8080", "--directory", "/run")


def health(fleet: Fleet, name: str) -> str | None:
    value = fleet.record(name)["health"]
    return None if value is None else str(value)


def events(fleet: Fleet, name: str) -> list[str]:
    words = ("healthy", "unhealthy", "starting")
    return [str(e["what"]) for e in fleet.client().events(EventsRequest()) if e["container"] == name and e["what"] in words]


def test_an_app_container_is_healthy_when_it_has_been_alive_for_a_while(fleet: Fleet) -> None:
    name = fleet.name("a")
    fleet.create(name)
    fleet.ok("wait", name, "--for", "healthy")
    assert health(fleet, name) == "healthy"
    assert "healthy" in fleet.ok("list")
    fleet.ok("stop", name, "--timeout", "0")
    assert health(fleet, name) is None


def test_a_command_inside_decides_a_containers_health(fleet: Fleet) -> None:
    name = fleet.name("a")
    check = "echo looking; test -e /up || { echo it is down >&2; exit 3; }"
    fleet.create(name, options=("--health-exec", check, *FAST))
    until(lambda: health(fleet, name) == "unhealthy", 20)
    assert "exit status 3: it is down" in fleet.record(name)["health_reason"]
    assert "it is down" in fleet.ok("info", name)
    late = fleet.run("wait", name, "--for", "healthy", "--timeout", "0.5")
    assert (late.status, "it is down" in late.err) == (1, True)
    fleet.inside(name, "touch /up")
    fleet.ok("wait", name, "--for", "healthy")
    assert fleet.record(name)["health_reason"] == ""
    fleet.inside(name, "rm /up")
    until(lambda: health(fleet, name) == "unhealthy", 20)
    assert events(fleet, name) == ["unhealthy", "healthy", "unhealthy"]


def sleeping(fleet: Fleet, name: str) -> int:
    """How many processes of a container sleep."""
    return int(fleet.inside(name, "grep -lx sleep /proc/[0-9]*/comm | wc -l"))


def test_a_check_that_closes_its_output_early_is_waited_for(fleet: Fleet) -> None:
    name = fleet.name("a")
    fleet.create(name, options=("--health-exec", "echo so it is; exec >&- 2>&-; sleep 0.2; exit 7", *FAST))
    until(lambda: health(fleet, name) == "unhealthy", 20)
    assert fleet.record(name)["health_reason"] == "/bin/sh: exit status 7: so it is"


def test_a_check_that_hangs_fails_and_leaves_no_process(fleet: Fleet) -> None:
    name = fleet.name("a")
    fleet.create(name, options=("--health-exec", "sleep 1000 & sleep 1000", *OFTEN, "--health-timeout", "1"))
    until(lambda: health(fleet, name) == "unhealthy", 20)
    assert "not done after 1 s" in fleet.record(name)["health_reason"]
    time.sleep(4)  # at least three checks have ended; those of the last are killed, and may not be gone yet
    until(lambda: sleeping(fleet, name) <= 3, 20, "there is no more than the container's own command and one check")


def test_a_check_holds_no_socket_of_the_daemons_and_what_it_leaves_makes_nobody_wait(fleet: Fleet) -> None:
    """Before, the daemon waited for what the check left in the background, which could also answer in its place."""
    name = fleet.name("a")
    check = "(setsid sleep 4242 &); ls -l /proc/self/fd | grep -v ' [012] ->' | grep socket: && exit 9; exit 0"
    fleet.create(name, options=("--health-exec", check, "--health-interval", "3600", "--health-start-period", "0"))
    fleet.ok("wait", name, "--for", "healthy", "--timeout", "60")
    until(lambda: sleeping(fleet, name) == 2, 20, "what the check left in the background sleeps")


def test_a_port_or_a_page_decides_a_containers_health(fleet: Fleet) -> None:
    tcp, http = fleet.name("t"), fleet.name("h")
    bridge = ("--network", "bridge")
    fleet.create(tcp, options=(*bridge, "--health-tcp", "8080", *FAST), command=SERVE)
    fleet.create(http, options=(*bridge, "--health-http", "8080/up", *FAST), command=SERVE)
    fleet.ok("wait", tcp, "--for", "healthy")
    # Before the container's server is up, the reason is another one.
    until(lambda: fleet.record(http)["health_reason"] == "http 8080/up: status 404", 20)
    until(lambda: health(fleet, http) == "unhealthy", 20)
    fleet.inside(http, "touch /run/up")
    fleet.ok("wait", http, "--for", "healthy")
    fleet.ok("freeze", http)
    until(lambda: fleet.record(http)["health_reason"] == "it is frozen", 20)  # first, a check that was under way fails
    until(lambda: health(fleet, http) == "unhealthy", 20)
    fleet.ok("unfreeze", http)
    fleet.ok("wait", http, "--for", "healthy")


def test_only_healthy_containers_answer_for_their_group(fleet: Fleet) -> None:
    asker, one, two = fleet.name("q"), fleet.name(1), fleet.name(2)
    bridge = ("--network", "bridge", "-l", f"app=t{fleet.tag}")
    group = f"t{fleet.tag}.app.fleet"

    def found(name: str) -> set[str]:
        said = fleet.run("exec", asker, "--", "getent", "ahostsv4", name).out
        return {line.split()[0] for line in said.splitlines()}

    fleet.create(asker, options=("--network", "bridge"))
    fleet.create(one, two, options=(*bridge, "--health-exec", "test -e /run/up", *FAST))
    ip = {name: fleet.record(name)["addresses"][0] for name in (one, two)}
    assert found(group) == set()
    assert found(one) == {ip[one]}
    fleet.inside(one, "touch /run/up")
    fleet.inside(two, "touch /run/up")
    until(lambda: found(group) == set(ip.values()), 20)
    fleet.inside(one, "rm /run/up")
    until(lambda: found(group) == {ip[two]}, 20)
    fleet.stop_daemon(signal.SIGKILL)
    fleet.start_daemon()  # on a host with systemd no client does
    fleet.inside(two, "rm /run/up")
    until(lambda: found(group) == set(), 20)
    fleet.inside(one, "touch /run/up")
    until(lambda: found(group) == {ip[one]}, 20)
    assert found(two) == {ip[two]}


def test_a_check_over_the_network_needs_a_network(fleet: Fleet) -> None:
    refused = fleet.run("create", fleet.name("a"), "--health-tcp", "80", *SLEEP)
    assert (refused.status, "needs a network" in refused.err) == (2, True)


def test_systemd_decides_a_system_containers_health(fleet: Fleet) -> None:
    name = fleet.name("s")
    fleet.create(name, command=())
    fleet.ok("wait", name, "--for", "healthy")
    assert events(fleet, name) == ["healthy"]
    unit = "[Service]\nExecStart=/bin/false\n[Install]\nWantedBy=multi-user.target\n"
    fleet.inside(name, f"printf '{unit}' >/etc/systemd/system/wrong.service && systemctl -q enable wrong")
    fleet.ok("restart", name)
    until(lambda: fleet.record(name)["health_reason"] == "systemd is degraded: wrong.service failed", 60)
    assert health(fleet, name) == "unhealthy"
    fleet.ok("set", name, "health=ignore_units wrong.service")
    fleet.ok("wait", name, "--for", "healthy")
    fleet.ok("set", name, "health=")
    until(lambda: health(fleet, name) == "unhealthy", 60)
    fleet.inside(name, "systemctl disable -q wrong; systemctl reset-failed")
    fleet.ok("wait", name, "--for", "healthy")


def test_a_service_that_crashes_again_and_again_halts_a_rollout(fleet: Fleet) -> None:
    """Before, the container's systemd was in the state "running", and so the rollout went on."""
    one, two = fleet.name(1), fleet.name(2)
    fleet.create(one, two, command=())
    fleet.ok("wait", one, two, "--for", "healthy")
    # The service lives for a second, so that most checks find it running.
    unit = "[Service]\\nExecStart=/bin/sleep 1\\nRestart=always\\nRestartSec=50ms\\n[Install]\\nWantedBy=multi-user.target\\n"
    unit += "[Unit]\\nStartLimitIntervalSec=0\\n"
    for name in (one, two):
        fleet.inside(name, f"printf '{unit}' >/etc/systemd/system/crash.service && systemctl -q enable crash")
    pid = fleet.pid(two)
    ran = fleet.run("restart", one, two, "--rolling", "--min-healthy-time", "6", "--healthy-deadline", "20")
    assert (ran.status, "crash.service ends and is started again" in ran.err) == (1, True), ran.err
    assert fleet.pid(two) == pid, "the rollout went on after its canary"
    fleet.ok("rollout", "abort")


def test_a_service_that_fails_after_the_boot_halts_a_rollout(fleet: Fleet) -> None:
    name = fleet.name("s")
    fleet.create(name, command=())
    fleet.ok("wait", name, "--for", "healthy")
    unit = "[Service]\\nExecStart=/bin/sh -c \"sleep 3; exit 1\"\\n[Install]\\nWantedBy=multi-user.target\\n"
    fleet.inside(name, f"printf '{unit}' >/etc/systemd/system/late.service && systemctl -q enable late")
    ran = fleet.run("restart", name, "--rolling", "--min-healthy-time", "5", "--healthy-deadline", "15")
    assert (ran.status, "late.service failed" in ran.err) == (1, True), ran.err
    fleet.ok("rollout", "abort")


def test_health_survives_a_kill_of_the_daemon(fleet: Fleet) -> None:
    good, bad, plain, system = (fleet.name(each) for each in "gbps")
    fleet.create(good, options=("--health-exec", "true", "--health-interval", "60"))
    fleet.create(bad, options=("--health-exec", "false", *FAST))
    fleet.create(plain)
    fleet.create(system, command=())
    fleet.ok("wait", good, plain, system, "--for", "healthy")
    until(lambda: health(fleet, bad) == "unhealthy", 20)

    def noted() -> dict[str, str]:
        return {each: word for each, (_, word, *_) in json.loads(fleet.paths.health.read_text()).items()}

    # Of the one without a check, nothing has to be noted.
    until(lambda: noted() == {good: "healthy", bad: "unhealthy", system: "healthy"}, 5, "what is known is noted")
    fleet.stop_daemon(signal.SIGKILL)
    fleet.start_daemon()
    assert [health(fleet, each) for each in (good, bad, plain, system)] == ["healthy", "unhealthy", "healthy", "healthy"]
    assert events(fleet, good) == []
    # A record of another run of the container does not count.
    fleet.stop_daemon(signal.SIGKILL)
    fleet.paths.health.write_text(fleet.paths.health.read_text().replace("@", "@1"))
    fleet.start_daemon()
    fleet.ok("wait", good, plain, system, "--for", "healthy")
    assert events(fleet, good) == ["healthy"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"x": 1}', '{"x": ["a", "wild", 1, "", 0]}'])
def test_a_damaged_record_of_health_does_no_harm(fleet: Fleet, text: str) -> None:
    fleet.stop_daemon()
    fleet.paths.health.write_text(text)
    fleet.start_daemon()
    assert fleet.states() == {}


def test_containers_without_checks_cause_no_forks(fleet: Fleet) -> None:
    fleet.ok("create", fleet.name("m"), "-n", "10", *SLEEP)
    fleet.ok("wait", "--all", "--for", "healthy")
    servants = list(fleet.servants().values())
    # A test beside this one may have the daemon look at the host.
    until(lambda: is_still(servants), what="nothing is forked for a while")


def is_still(pids: list[int]) -> bool:
    """Whether these processes forked nothing in six seconds: checks would be as often as every five."""
    before = page_faults(pids)
    time.sleep(6)
    return page_faults(pids) == before


def page_faults(pids: list[int]) -> int:
    """The page faults of these processes: each fork, and so each command in a container, causes many. See proc(5), stat."""
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat", "rb") as file:
            total += int(file.read().rpartition(b")")[2].split()[7])
    return total
