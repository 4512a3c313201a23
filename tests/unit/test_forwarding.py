"""Firewalls that drop what the host passes on, in the forms that nft and iptables print."""

from __future__ import annotations

from typing import Any

import pytest

from lxcfleet.network.rules.forwarding import closed, closed_legacy, dropping, findings, of_ipv6

BRIDGE = "lxcfleet0"
BASE = {"family": "ip", "table": "filter", "name": "FORWARD", "type": "filter", "hook": "forward", "policy": "drop"}
DOCKER = {"family": "ip", "table": "filter", "name": "DOCKER-USER"}


def rule(verdict: str, chain: str = "FORWARD", op: str = "==", **names: Any) -> dict[str, Any]:
    matches = [{"match": {"op": op, "left": {"meta": {"key": key}}, "right": right}} for key, right in names.items()]
    return {"chain": chain, "expr": [*matches, {"counter": {"packets": 0, "bytes": 0}}, {verdict: None}]}


def sides(rules: list[dict[str, Any]], **more: Any) -> tuple[bool, bool] | None:
    found = closed({**BASE, **more}, rules, [BASE, DOCKER], BRIDGE)
    return None if found is None else (found["from_bridge"], found["to_bridge"])


def test_a_policy_of_drop_closes_both_ways() -> None:
    assert sides([]) == (True, True)
    assert sides([], policy="accept") is None
    assert sides([rule("accept", iifname="docker0"), rule("accept", oifname="docker0")]) == (True, True)


def test_a_rule_that_names_the_bridge_opens_its_side() -> None:
    into, out = rule("accept", "DOCKER-USER", iifname=BRIDGE), rule("accept", "DOCKER-USER", oifname=BRIDGE)
    assert (sides([into]), sides([out]), sides([into, out])) == ((False, True), (True, False), None)
    assert sides([rule("jump", iifname="lxc*"), rule("accept", oifname={"set": ["br0", BRIDGE]})]) is None
    assert sides([rule("drop", iifname=BRIDGE), rule("accept", op="!=", oifname=BRIDGE)]) == (True, True)


def test_a_chain_that_ends_with_a_reject_is_closed_whatever_its_policy() -> None:
    """As firewalld has it."""
    assert sides([rule("jump", iifname="eth0"), rule("reject")], policy="accept") == (True, True)
    assert sides([rule("reject"), rule("accept", iifname="eth0")], policy="accept") is None
    assert sides([rule("reject", "other")], policy="accept") is None


def test_other_chains_are_passed_over() -> None:
    chains = [BASE, {**BASE, "hook": "input"}, {**BASE, "type": "nat"}, {**BASE, "family": "bridge"}, DOCKER]
    assert list(dropping(chains)) == [BASE]


LEGACY = """\
-P INPUT ACCEPT
-P FORWARD DROP
-P OUTPUT ACCEPT
-N DOCKER-USER
-A FORWARD -j DOCKER-USER
-A DOCKER-USER -i lxcfleet0 -m comment --comment "a -o lxcfleet0" -j ACCEPT
"""


def test_the_former_half_of_the_filter() -> None:
    found = closed_legacy("ip", LEGACY, BRIDGE)
    assert found == {"family": "ip", "table": "iptables-legacy", "from_bridge": False, "to_bridge": True, "docker": True}
    assert closed_legacy("ip", LEGACY + "-A FORWARD -o lxc+ -j ACCEPT\n", BRIDGE) is None
    assert closed_legacy("ip", LEGACY.replace("FORWARD DROP", "FORWARD ACCEPT"), BRIDGE) is None
    both = closed_legacy("ip6", "-P FORWARD DROP\n-A FORWARD -i lxcfleet0 -j DROP\n", BRIDGE)
    assert both is not None
    assert (both["from_bridge"], both["docker"]) == (True, False)


@pytest.mark.parametrize(
    ("docker", "ufw", "hint"),
    [
        (True, True, "ip6tables -I DOCKER-USER -o lxcfleet0 -j ACCEPT;"),
        (False, True, "ufw route allow out on lxcfleet0;"),
        (False, False, "have it accept what comes from lxcfleet0 and goes to it;"),
    ],
)
def test_the_hint_is_of_the_firewall_that_is_there(docker: bool, ufw: bool, hint: str) -> None:
    chain = {"family": "ip6", "table": "filter", "from_bridge": False, "to_bridge": True, "docker": docker}
    (found,) = findings([chain], BRIDGE, ufw=ufw)  # type: ignore[list-item]
    assert found.hint.startswith(hint)
    assert found.message == (
        "a firewall drops what the host passes on, in the table filter (ip6): published ports are not reached from elsewhere"
    )


def test_ports_of_ipv6_take_a_host_that_forwards_it() -> None:
    assert of_ipv6([], forwards=False) == of_ipv6(["[::]:80:80/tcp"], forwards=True) == []
    (found,) = of_ipv6(["[::]:80:80/tcp"], forwards=False)
    assert (found.level, found.message.endswith("forward IPv6: [::]:80:80/tcp")) == ("warning", True)
