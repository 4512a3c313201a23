"""The network's pure parts: ranges, addresses, rules, names."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxcfleet.errors import InvalidInput, NoCapacity
from lxcfleet.network.addresses import static
from lxcfleet.network.addresses.ranges import AddressPool, Subnet, addresses_in, choose_subnet, is_tentative, numbers
from lxcfleet.network.names import aliases
from lxcfleet.network.names.hosts import group_names, hosts_lines
from lxcfleet.network.rules import lan
from lxcfleet.network.rules.rules import Behind, removal, render
from lxcfleet.spec.container.addresses import check_addresses, hardware_address, interface_name, parse_address
from lxcfleet.spec.container.ports import Port
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.files import settings
from lxcfleet.spec.reading.names import check_alias
from lxcfleet.spec.reading.terms import NetworkMode

SUBNET = Subnet(IPv4Network("10.201.0.0/16"), IPv6Network("fd00:1:2:3::/64"))
DEFAULT_ROUTES = [ip_network("0.0.0.0/0"), ip_network("::/0")]


def test_auto_takes_a_range_that_nobody_uses() -> None:
    assert choose_subnet("auto", "none", [], DEFAULT_ROUTES, "x").ipv4 == IPv4Network("10.201.0.0/16")
    busy = [*DEFAULT_ROUTES, ip_network("10.201.5.0/24"), ip_network("10.202.0.0/15")]
    assert choose_subnet("auto", "none", [], busy, "x").ipv4 == IPv4Network("10.204.0.0/16")


def test_auto_stays_where_the_containers_are() -> None:
    present = [IPv4Address("10.210.0.7")]
    assert choose_subnet("auto", "none", present, [], "x").ipv4 == IPv4Network("10.210.0.0/16")


def test_auto_gives_up_with_a_next_step() -> None:
    with pytest.raises(NoCapacity, match="no network is free") as caught:
        choose_subnet("auto", "none", [], [ip_network("10.0.0.0/8")], "x")
    assert "network.ipv4" in caught.value.hint


def test_ipv6_is_the_hosts_own_and_the_same_each_time() -> None:
    one = choose_subnet("auto", "auto", [], [], "host a").ipv6
    assert one is not None
    assert one.is_private
    assert one.prefixlen == 64
    assert choose_subnet("auto", "auto", [], [], "host a").ipv6 == one
    assert choose_subnet("auto", "auto", [], [], "host b").ipv6 != one
    assert choose_subnet("auto", "none", [], [], "host a").ipv6 is None


@pytest.mark.parametrize(
    ("ipv4", "ipv6", "complaint"),
    [
        ("192.0.2.0/24", "none", "overlaps with 192.0.2.128/25"),
        ("10.0.0.0/30", "none", "prefix length"),
        ("10.0.0.1/16", "none", "host bits"),
        ("nonsense", "none", "nonsense"),
        ("auto", "fd00::/120", "smaller than"),
        ("auto", "fd00:9::/64", "overlaps with fd00:9::/48"),
        ("127.10.0.0/16", "none", "loopback"),
        ("224.0.0.0/16", "none", "multicast"),
        ("0.0.0.0/8", "none", "of no host"),
        ("240.0.0.0/8", "none", "reserved"),
        ("255.255.255.0/24", "none", "reserved"),
        ("169.254.7.0/24", "none", "link-local"),
        ("auto", "fe80::/64", "link-local"),
        ("auto", "fe00::/8", "link-local"),
        ("auto", "ff00::/64", "multicast"),
        ("auto", "::/64", "reserved"),
    ],
)
def test_bad_ranges_are_refused(ipv4: str, ipv6: str, complaint: str) -> None:
    busy = [ip_network("192.0.2.128/25"), ip_network("fd00:9::/48")]
    with pytest.raises(InvalidInput, match=complaint):
        choose_subnet(ipv4, ipv6, [], busy, "x")


def test_an_address_is_tentative_until_its_kernel_says_otherwise() -> None:
    line = "{} 02 40 00 {} eth0\n"
    own, other = "fd000001000200030000000000000009", "fe80000000000000004cfffe0ac90009"
    address = IPv6Address("fd00:1:2:3::9")
    assert is_tentative(line.format(other, "80") + line.format(own, "c0"), address)
    assert is_tentative(line.format(own, "c8"), address)  # another has it
    assert not is_tentative(line.format(other, "c0") + line.format(own, "80"), address)
    assert not is_tentative(line.format(own, "c4"), address)  # optimistic
    assert not is_tentative(line.format(other, "c0"), address)
    assert not is_tentative("nonsense\n", address)


def test_a_range_that_leaves_containers_outside_is_refused() -> None:
    with pytest.raises(InvalidInput, match="addresses of 1 container are outside"):
        choose_subnet("10.5.0.0/24", "none", [IPv4Address("10.201.0.2")], [], "x")


def test_addresses_begin_after_the_bridges_and_are_reused() -> None:
    pool = AddressPool(IPv4Network("10.0.0.0/29"), [3])
    assert pool.free == 4
    assert [str(pool.take()) for _ in range(4)] == ["10.0.0.2", "10.0.0.4", "10.0.0.5", "10.0.0.6"]
    with pytest.raises(NoCapacity, match=r"no address is free in 10.0.0.0/29"):
        pool.take()
    pool.give_back([4])
    pool.give_back([1])
    assert str(pool.take()) == "10.0.0.4"
    assert pool.free == 0


@given(st.lists(st.booleans(), max_size=60))
def test_no_address_is_given_twice(takes: list[bool]) -> None:
    pool = AddressPool(IPv4Network("10.0.0.0/28"), [])
    held: list[IPv4Address] = []
    for take in takes:
        if take and pool.free:
            address = pool.take()
            assert address not in held
            held.append(address)
        elif held:
            pool.give_back([int(held.pop(0)) & 15])
        assert pool.free + len(held) == 13


@given(st.lists(st.tuples(st.sampled_from(["take", "claim", "give back"]), st.integers(2, 14)), max_size=60))
def test_a_number_that_somebody_has_is_given_to_nobody(steps: list[tuple[str, int]]) -> None:
    pool, held = AddressPool(IPv4Network("10.0.0.0/28"), []), Counter[int]()
    for step, number in steps:
        if step == "claim":
            pool.claim([number])
            held[number] += 1
        elif step == "take" and pool.free:
            taken = int(pool.take()) & 15
            assert not held[taken]
            held[taken] += 1
        elif held[number]:
            pool.give_back([number])
            held[number] -= 1
        assert pool.free == 13 - sum(1 for count in held.values() if count)


def chosen(*addresses: str, name: str = "db", **more: Any) -> Spec:
    return Spec(name, network=NetworkMode.BRIDGE, static_addresses=tuple(map(parse_address, addresses)), **more)


def test_a_chosen_address_has_its_counterpart() -> None:
    both = static.placed(chosen("10.201.0.50"), SUBNET)
    assert (str(both.address), str(both.address6)) == ("10.201.0.50/16", "fd00:1:2:3::32/64")
    assert numbers(SUBNET, both) == {50}
    both = static.placed(chosen("10.201.0.50", "fd00:1:2:3::beef:50"), SUBNET)
    assert (str(both.address), str(both.address6)) == ("10.201.0.50/16", "fd00:1:2:3::beef:50/64")
    assert numbers(SUBNET, both) == {50}  # no IPv4 address has the number 0xbeef0050
    both = static.placed(chosen("fd00:1:2:3::7"), SUBNET)
    assert (both.address, str(both.address6), numbers(SUBNET, both)) == (None, "fd00:1:2:3::7/64", {7})


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("10.201.0.0", "the network's own"),
        ("10.201.0.1", "the bridge's"),
        ("10.201.255.255", "the broadcast address"),
        ("10.202.0.5", "the fleet's range is 10.201.0.0/16"),
        ("fd00:1:2:3::", "the network's own"),
        ("fd00:1:2:3::1", "the bridge's"),
        ("fd00:1:2:4::5", "the fleet's range is fd00:1:2:3::/64"),
    ],
)
def test_an_address_that_no_container_can_have_is_refused(address: str, why: str) -> None:
    with pytest.raises(InvalidInput, match=f"can't have {address}") as caught:
        static.check_range([parse_address(address)], SUBNET)
    assert why in caught.value.why
    with pytest.raises(InvalidInput) as caught:
        static.check_range([parse_address("fd00::5")], Subnet(SUBNET.ipv4, None))
    assert "the fleet has no IPv6 addresses" in caught.value.why


def test_an_address_of_another_container_is_refused() -> None:
    web = static.placed(chosen("10.201.0.7", name="web"), SUBNET)
    static.check_free(chosen("10.201.0.8"), SUBNET, [web])
    static.check_free(chosen("10.201.0.7", name="web"), SUBNET, [web])  # it has it already
    for address, why in (("10.201.0.7", "web has it"), ("fd00:1:2:3::7", "web has it")):
        with pytest.raises(InvalidInput, match=f"can't have {address}") as caught:
            static.check_free(chosen(address), SUBNET, [web])
        assert caught.value.why == why
    other = static.placed(chosen("10.201.0.9", "fd00:1:2:3::8", name="web"), SUBNET)
    with pytest.raises(InvalidInput, match=r"can't have 10.201.0.8") as caught:
        static.check_free(chosen("10.201.0.8"), SUBNET, [other])
    assert caught.value.why == "with it goes fd00:1:2:3::8, and web has it"
    with pytest.raises(InvalidInput, match=r"can't have 10.201.0.8"):
        static.check_free(chosen("10.201.0.8"), SUBNET, [], [IPv4Address("10.201.0.8")])
    with pytest.raises(InvalidInput, match=r"web1 and web2 can't all have 10.201.0.8"):
        static.check_apart([chosen("10.201.0.8", name="web1"), chosen("10.201.0.8", name="web2")])


@pytest.mark.parametrize("text", ["", "10.201.0.5/16", "10.201.0", "010.1.1.1", "fe80::1%eth0", "web", "10.1.1.1,10.1.1.2"])
def test_a_text_that_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_address(text)


def test_a_container_has_one_address_of_each_kind() -> None:
    check_addresses([parse_address("10.201.0.5"), parse_address("fd00::5")])
    with pytest.raises(InvalidInput, match="one IPv4 address"):
        check_addresses([parse_address("10.201.0.5"), parse_address("10.201.0.6")])


def test_addresses_in_a_configuration() -> None:
    text = (
        "lxc.net.0.type = veth\nlxc.net.0.ipv4.address = 10.201.0.2/16\n  lxc.net.1.ipv4.address=10.0.0.3/8 10.255.255.255\n"
        "#lxc.net.0.ipv4.address = 10.0.0.4\nlxc.net.0.ipv4.address = 10.0.0.999/8\nlxc.net.0.ipv4.gateway = 10.0.0.1\n"
    )
    assert addresses_in(text) == [IPv4Address("10.201.0.2"), IPv4Address("10.0.0.3")]


def test_the_gateway_and_the_hardware_address_follow_from_an_address() -> None:
    address = IPv4Address("10.201.1.2")
    assert SUBNET.gateway == IPv4Interface("10.201.0.1/16")
    assert SUBNET.gateway6 == IPv6Interface("fd00:1:2:3::1/64")
    assert SUBNET.ipv6_of(address) == IPv6Interface("fd00:1:2:3::102/64")
    assert hardware_address(address) == "02:4c:0a:c9:01:02"
    assert interface_name(address) == "lf0ac90102"
    assert len(interface_name(address)) < 16


def test_rules_are_in_a_table_of_their_own() -> None:
    text = render(SUBNET, "br-1", nat=True)
    # Questions to the fleet's name server are settled before any published port counts, of whichever fleet.
    chains = text.split("  chain ")[1:]
    for hook, later in (("prerouting", "priority dstnat;"), ("output", "priority -100;")):
        first = next(each for each in chains if f"type nat hook {hook} priority -101;" in each)
        assert "ip daddr 10.201.0.1 meta l4proto { tcp, udp } th dport 53 dnat ip to 10.201.0.1\n" in first
        assert "ip6 daddr fd00:1:2:3::1 meta l4proto { tcp, udp } th dport 53 dnat ip6 to fd00:1:2:3::1\n" in first
        assert any(later in each and "jump published" in each for each in chains)
    assert "daddr 10.201.0.1 meta" not in render(SUBNET, "br-1", nat=True, dns=False)
    assert text.count("table inet lxcfleet_br_1") == 3
    # Neither what is for many: with br_netfilter, frames from one container to others come by here, too.
    assert "ip saddr 10.201.0.0/16 ip daddr != 10.201.0.0/16 ip daddr < 224.0.0.0 masquerade" in text
    assert "ip6 daddr != fd00:1:2:3::/64 ip6 daddr < fe80:: masquerade" in text
    assert "< 224.0.0.0 masquerade" not in render(SUBNET, "br-1", nat=False)
    assert "ct state new,invalid ct status & dnat == 0 drop" in render(SUBNET, "br-1", nat=False)
    loopback = text.partition("chain not_our_loopback {")[2].partition("  }")[0]
    for way in ("daddr", "saddr"):  # nobody sends to a host's loopback, nor as if from it
        assert f'iifname "br-1" ip {way} 127.0.0.0/8 drop' in loopback
    assert "flush ruleset" not in text + removal("br-1")


def test_only_the_fleets_own_name_server_has_a_limit_of_connections() -> None:
    """A container could have six connections only to a resolver of the host's, and with dns: false nobody's is ours."""
    rules = render(SUBNET, "br-1", nat=True).splitlines()
    limits = [line for line in rules if "@asking" in line and "often" not in line]
    assert [line.split(" add ")[0].split() for line in limits] == [
        ["ip", "daddr", "10.201.0.1", "tcp", "dport", "53"], ["ip6", "daddr", "fd00:1:2:3::1", "tcp", "dport", "53"],
        ["ip6", "daddr", "fe80::/10", "tcp", "dport", "53"],
        ["ip", "daddr", "10.201.0.1", "meta", "skuid", "<", "65536"],
        ["ip6", "daddr", "fd00:1:2:3::1", "meta", "skuid", "<", "65536"],
        ["ip6", "daddr", "fe80::/10", "fib", "daddr", "type", "local", "meta", "skuid", "<", "65536"],
    ]  # fmt: skip
    assert "@asking" not in render(SUBNET, "br-1", nat=True, dns=False)


def test_what_is_closed_to_containers_is_open_at_the_fleets_name_server_alone() -> None:
    """The host may have another one at an address of its own, that of an office for one."""
    own = ["ip daddr 10.201.0.1 ", "ip6 daddr fd00:1:2:3::1 ", "ip6 daddr fe80::/10 "]
    for dns, places in ((True, own), (False, [""])):
        lines = [line.strip() for line in render(SUBNET, "br-1", nat=True, dns=dns).splitlines()]
        assert [line for line in lines if line.endswith("th dport 53 accept")] == [
            f"{place}meta l4proto {{ tcp, udp }} th dport 53 accept" for place in places
        ]


def test_questions_over_udp_are_counted_before_what_is_established_is_let_in() -> None:
    """An exchange over UDP counts as established from its first answer on."""
    rules = render(SUBNET, "br-1", nat=True)
    for chain, name, places in (("to_the_host", "ether saddr", 3), ("from_users", "meta skuid", 3)):
        text = rules.partition(f"chain {chain} ")[2].partition("  }")[0]
        before = text[: text.index("ct state")]
        assert before.count(f"{{ {name} limit rate over 1000/second burst 200 packets }} drop") == places
    assert "@asking_often" not in render(SUBNET, "br-1", nat=True, dns=False)


def test_what_the_name_server_asks_is_for_it_alone() -> None:
    """Over UDP a connection counts as established for a while after its end: the state lets nobody in. A bridge of the
    operator's has the same programs."""
    behind = Behind(IPv4Address("127.201.0.1"), (953, 954), 105)
    others = "ip daddr 127.201.0.1 meta l4proto { tcp, udp } th dport { 953, 954 } meta skuid != 105"
    for text in (render(SUBNET, "br-1", nat=True, behind=behind), lan.render("br-1", [], route6=False, behind=behind)):
        chain = [line.strip() for line in text.partition("chain from_users {")[2].partition("  }")[0].splitlines()]
        assert chain[1:5] == [
            "type filter hook output priority filter; policy accept;", "meta skuid 0 accept",
            f"{others} meta l4proto tcp reject with tcp reset", f"{others} drop",
        ]  # fmt: skip
    assert "953" not in render(SUBNET, "br-1", nat=True) + lan.render("br-1", [], route6=False)


def test_labels_become_names_of_groups() -> None:
    assert group_names({"role": "Web", "a/b": "c", "k": "", "tier": "x.y"}, "fleet") == ["web.role.fleet"]
    line = hosts_lines("n1", {"role": "web"}, [IPv4Address("10.0.0.2")], "fleet")
    assert line == "10.0.0.2 n1.fleet web.role.fleet\n"


def test_aliases_are_names_below_the_domain() -> None:
    line = hosts_lines("n1", {"role": "web"}, [IPv4Address("10.0.0.2")], "fleet", [Port("http", 80)], ["db", "a.b"])
    assert line.splitlines()[0] == "10.0.0.2 n1.fleet db.fleet a.b.fleet web.role.fleet"
    assert "#srv _http._tcp.db.fleet 80 n1.fleet" in line.splitlines()
    long = "d" * 249
    assert hosts_lines("n1", {}, [IPv4Address("10.0.0.2")], long, (), ["long"]).split() == ["10.0.0.2", f"n1.{long}"]


def test_a_name_leads_to_one_thing() -> None:
    has = [Spec("web1", aliases=("cache",), network=NetworkMode.BRIDGE)]
    aliases.check((), ["db", "db.shop", "fleet", "myfleet"], {"web1"}, has, "fleet")
    aliases.check(["web2", "web3"], ["cache"], {"web1"}, has, "fleet")  # they share it
    aliases.check(["web1"], [], {"web1"}, has, "fleet")
    clashes: list[tuple[list[str], list[str], str]] = [
        ([], ["web1"], "web1 can't be an alias"),
        (["db"], ["db"], "db can't be an alias"),
        (["cache"], [], "cache can't be a container's name, as it is an alias of web1"),
        (["web2"], ["db.fleet"], "db.fleet can't be an alias\n.*db.fleet.fleet\n.*write it as db$"),
    ]
    for own, wanted, why in clashes:
        with pytest.raises(InvalidInput, match=why):
            aliases.check(own, wanted, {"web1"}, has, "fleet")


def test_an_alias_is_no_name_of_a_group() -> None:
    """Whichever comes first: web.role.fleet led to all with role=web and to the container that has it as an alias."""
    group = Spec("web1", labels={"role": "Web"}, network=NetworkMode.BRIDGE)
    alias = Spec("db1", aliases=("web.role", "a.b.c"), network=NetworkMode.BRIDGE)
    other = Spec("db2", aliases=("db.role", "role"), labels={"shop": "x"}, network=NetworkMode.BRIDGE)
    fine: list[list[Spec]] = [[other], [], [replace(group, labels={"role": "db1"})]]
    for others in fine:
        aliases.check_groups([alias], others, "fleet")
    aliases.check_groups([other], [group, alias], "fleet")  # what was so before keeps nobody from other things
    with pytest.raises(InvalidInput, match=r"web.role can't be an alias, .* with role=web\n.*-l role=web"):
        aliases.check_groups([alias], [other, group], "fleet")
    with pytest.raises(InvalidInput, match=r"label role=web\n.* web.role, which is an alias of db1"):
        aliases.check_groups([group], [other, alias], "fleet")
    with pytest.raises(InvalidInput, match="can't be an alias"):
        aliases.check_groups([group, alias], [], "fleet")


@pytest.mark.parametrize(
    "text", ["", "a_b", "-a", "a..b", "a.", ".a", "A", "a b", "a,b", "x" * 64, ".".join(["a" * 60] * 3), "ä"]
)
def test_a_text_that_is_no_alias_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="can't be an alias"):
        check_alias(text)


def test_settings_of_the_network_are_checked() -> None:
    text = b"network: {bridge: 'a b', ipv4: none, ipv6: 1, domain: UPPER, colour: red}\n"
    with pytest.raises(InvalidInput) as caught:
        settings.parse(text, "f")
    assert {line.split(": ")[2] for line in caught.value.why.splitlines()} == {
        "bridge", "ipv4", "ipv6", "domain", "colour",
    }  # fmt: skip
    good = settings.parse(b"network: {ipv4: 10.9.0.0/16, ipv6: none, default: none}\n", "f")
    assert settings.parse(settings.describe(good).encode(), "f") == good
