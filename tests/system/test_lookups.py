"""The host's firewall drops the queries of containers to the name server: the daemon notices, and names the cause."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator

import psutil
import pytest

from lxcfleet.network import lookups

from .harness import SLEEP, Fleet, until

pytestmark = pytest.mark.system

SECONDS = 30.0


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    """A fleet with a bridge and a name server of its own."""
    own = Fleet()
    own.settings(f"network: {{bridge: {own.bridge}, domain: {own.tag}.test, drain: 0}}\n")
    try:
        own.start_daemon(module="tests.system.looking_daemon")
        yield own
        own.clean()
    finally:
        own.run("destroy", "--all", "--force", "-q")
        own.remove()


def nft(rules: str) -> None:
    subprocess.run(["/usr/sbin/nft", "-f", "-"], input=rules.encode(), check=True)


def metric(fleet: Fleet) -> list[str]:
    text = b"".join(fleet.client().metrics()).decode()
    return [line.split()[1] for line in text.splitlines() if line.startswith("lxcfleet_name_lookups_work ")]


def create_two(fleet: Fleet) -> None:
    """Create two containers, and wait until the daemon looks up names in both: it asks none that has just begun to run."""
    fleet.ok("create", fleet.name("w"), "-n", "2", *SLEEP)
    runs = [psutil.Process(fleet.pid(fleet.name(each))) for each in ("w1", "w2")]
    until(lambda: all(time.time() - each.create_time() > lookups.YOUNG_SECONDS + 0.5 for each in runs))
    until(lambda: metric(fleet) == ["1.0"], SECONDS, "the daemon looks up names in a container")


def test_the_daemon_notices_dropped_queries_and_their_end(fleet: Fleet) -> None:
    table = f"firewall_of_{fleet.tag}"
    create_two(fleet)
    nft(
        f"table inet {table} {{ chain input {{ type filter hook input priority -5; policy accept;\n"
        f'iifname "{fleet.bridge}" udp dport 53 drop\n}}\n}}\n'
    )
    try:
        until(lambda: fleet.events("names-fail"), SECONDS, "an event tells the failure")
        message = fleet.events("names-fail")[0]["message"]
        assert all(fleet.name(name) in message for name in ("w1", "w2"))
        assert "a firewall on the host drops what comes in by the bridge" in message or "ufw" in message
        assert metric(fleet) == ["0.0"]
        told = fleet.run("doctor")
        assert (told.status, "containers can't look up names" in told.out) == (4, True), told
    finally:
        nft(f"delete table inet {table}\n")
    until(lambda: fleet.events("names-work"), SECONDS, "an event tells that lookups work again")
    assert (len(fleet.events("names-fail")), metric(fleet)) == (1, ["1.0"])


def test_no_published_port_of_another_fleet_takes_the_questions(fleet: Fleet) -> None:
    """Another fleet of the host's publishes port 53: its rules have been there longer, and name all addresses of the host."""
    other = f"table inet lxcfleet_{fleet.tag}other"
    chains = "".join(
        f"chain {hook} {{ type nat hook {hook} priority {priority}; policy accept;\n"
        "ip daddr ADDRESS meta l4proto { tcp, udp } th dport 53 dnat ip to 192.0.2.9 : 53\n}\n"
        for hook, priority in (("prerouting", "dstnat"), ("output", "-100"))
    )
    fleet.create(fleet.name("first"))
    server = fleet.inside(fleet.name("first"), "cat /etc/resolv.conf").rpartition("nameserver ")[2].strip()
    fleet.clean()  # the bridge and its rules go with the last container
    nft(f"{other} {{\n{chains.replace('ADDRESS', server)}}}\n")
    try:
        fleet.create(fleet.name("asks"))
        look = ("timeout", "10", "getent", "hosts", f"{fleet.name('asks')}.{fleet.tag}.test")
        asked = fleet.run("exec", fleet.name("asks"), "--", *look)
        assert (asked.status, fleet.name("asks") in asked.out) == (0, True), asked
    finally:
        nft(f"delete {other}\n")


def test_a_container_that_drops_its_own_queries_is_no_fault_of_the_fleet(fleet: Fleet) -> None:
    create_two(fleet)
    pid = fleet.record(fleet.name("w1"))["pid"]
    inside = ["nsenter", "-t", str(pid), "-n", "/usr/sbin/nft"]
    rule = "table inet own { chain out { type filter hook output priority 0; udp dport 53 counter drop; }; }"
    subprocess.run([*inside, rule], check=True)

    def asked() -> bool:
        # Any change of the firewall's rules makes the daemon look again.
        nft(f"table inet touched_by_{fleet.tag} {{}}\ndelete table inet touched_by_{fleet.tag}\n")
        rules = subprocess.run([*inside, "list", "ruleset"], check=True, capture_output=True, text=True).stdout
        return "packets 0" not in rules

    until(asked, SECONDS, "a lookup of the daemon from the first container was dropped")
    seen = time.monotonic()
    until(lambda: time.monotonic() - seen > 4, 10)  # longer than an answer may take
    assert (fleet.events("names-fail"), metric(fleet)) == ([], ["1.0"])
