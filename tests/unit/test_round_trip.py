"""Reading gives back what was written, for any names and values: specs, settings, requests."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from typing import Any

from hypothesis import HealthCheck as Check
from hypothesis import given, settings
from hypothesis import strategies as st

from lxcfleet.api.requests import CreateRequest
from lxcfleet.containers import store
from lxcfleet.errors import InvalidInput
from lxcfleet.spec.container import combinations
from lxcfleet.spec.container.apps import AppType, parse_app
from lxcfleet.spec.container.depends import Condition, DependsType
from lxcfleet.spec.container.devices import DEVICES
from lxcfleet.spec.container.fields import askable
from lxcfleet.spec.container.health import CheckKind, HealthCheck, HealthType
from lxcfleet.spec.container.io import IoLimit, IoType
from lxcfleet.spec.container.merging import merge
from lxcfleet.spec.container.raw_lxc import RawType
from lxcfleet.spec.container.restart import Restart, RestartPolicy, RestartType
from lxcfleet.spec.container.secrets import SecretSource, SourceKind, SourcesType
from lxcfleet.spec.container.uplinks import NO_UPLINK, UPLINK, Uplink
from lxcfleet.spec.files.profiles import Profile
from lxcfleet.spec.files.settings import Config, MetricsSettings, NetworkSettings, describe, parse
from lxcfleet.spec.policies import rollout, windows
from lxcfleet.spec.policies.rollout import ProfileRollout, Share, ShareType
from lxcfleet.spec.policies.rollout_tests import GroupTestsType, RolloutTest, WhereTested
from lxcfleet.spec.reading.durations import Duration
from lxcfleet.spec.reading.parts import PartsType
from lxcfleet.spec.reading.rows import Row, SectionType, rows_of
from lxcfleet.spec.reading.types import Choice, Command, Flag, Items, Number, Pairs, Size, Text, Whole

ANY = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=20)
LINE = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=20)
ODD = st.sampled_from(
    ["on", "no", "~", "null", "1", "1e3", "", "a: b", "#", "- x", "é", "\U0001f600", "x" * 2000, "{", "'", "\\"]
)  # fmt: skip
VARIABLES = st.dictionaries(st.from_regex(r"[A-Za-z_.]{1,8}", fullmatch=True) | st.just("V" * 3000), ANY | ODD, max_size=3)
LABELS = st.dictionaries(
    st.from_regex(r"[a-zA-Z0-9]([a-zA-Z0-9._/-]{0,5}[a-zA-Z0-9])?", fullmatch=True),
    st.from_regex(r"[a-zA-Z0-9._/@:+-]{0,9}", fullmatch=True), max_size=3,
)  # fmt: skip
RAW_VALUES: dict[str, st.SearchStrategy[str]] = {
    "lxc.prlimit.nofile": st.just("1:2"), "lxc.sysctl.net.x": st.sampled_from(["on", "~", "1e3", "- x", "'", "\\", "0755"]),
    "lxc.cgroup2.io.max": st.sampled_from(["8:0 rbps=1", "#", "{", '"x"', "a: b"]),
    "lxc.environment.runtime": st.just("A=b c"),
}  # fmt: skip
NO_VALUES: dict[str, st.SearchStrategy[str]] = {}
RAW = st.fixed_dictionaries(NO_VALUES, optional=RAW_VALUES)
DEPENDS = st.dictionaries(st.sampled_from(["db", "web1", "no"]), st.sampled_from(Condition), max_size=3)
SERVICES = st.sampled_from(["http=80", "dns=53/udp", "web-2=8080"])
PUBLISHED = st.just("8080:80")
HELD = st.sampled_from([*DEVICES])
UNITS = st.sampled_from(["apache2.service", r"a\x2db@1:2.timer", "x.socket"])
MOUNTS = st.sampled_from([
    "data:/srv/data", "data:/var/lib/app:ro:noexec", "/srv/ref:/opt/ref:ro", "/srv/own:/opt/own:rw:owner=container:suid",
    "tmpfs:/var/cache:size=4M:mode=1777",
])  # fmt: skip
SECRETS = st.sampled_from([
    "db-pw", "db-pw:x.key,uid=33,gid=4,mode=0440", "tls:tls.key,on_change=restart", "api,on_change=signal:HUP",
    "key,on_change=exec:/bin/reload now",
])  # fmt: skip
SOURCES = st.one_of(
    st.builds(SecretSource, st.just(SourceKind.FILE), st.sampled_from(["/srv/pw", "/etc/a b/no"]), refresh=st.floats(10, 99)),
    st.builds(SecretSource, st.just(SourceKind.CREDENTIAL), st.sampled_from(["no", "7", "shop-db"])),
    st.builds(SecretSource, st.just(SourceKind.COMMAND), command=st.lists(ODD, max_size=2).map(lambda w: ("/bin/x", *w)),
              timeout=st.floats(0.1, 60)),
)  # fmt: skip
DECLARED = st.dictionaries(st.sampled_from(["db-pw", "on", "7", "tls-key"]), SOURCES, max_size=3)
SHARES = st.integers(1, 99).map(Share) | st.integers(1, 100).map(lambda n: Share(n, percent=True))
CHECKS = st.one_of(
    st.builds(HealthCheck, st.just(CheckKind.EXEC), st.lists(ANY, min_size=1, max_size=3).map(tuple),
              interval=st.floats(0.1, 3600)),
    st.builds(HealthCheck, st.just(CheckKind.TCP), port=st.integers(1, 65535), retries=st.integers(1, 1000)),
)  # fmt: skip


RESTARTS = st.just(Restart()) | st.builds(
    Restart, st.sampled_from([each for each in RestartPolicy if each is not RestartPolicy.NO]), delay=st.floats(0.1, 60),
    factor=st.floats(1, 100), attempts=st.integers(0, 1000), on_unhealthy=st.booleans(),
)  # fmt: skip
APPS = st.sampled_from(["shop@1.4", "shop@1:/srv/a b", "s-2@v1~rc.1+b"]).map(parse_app)


GROUP_TESTS = st.lists(
    st.builds(
        RolloutTest, st.from_regex("[a-z0-9][a-z.-]{0,8}", fullmatch=True),
        st.lists(ANY | ODD, max_size=3).map(lambda words: ("/bin/x", *words)), st.sampled_from(WhereTested),
        st.floats(0.1, 600), st.integers(1, 100), st.booleans(),
    ),
    max_size=3, unique_by=lambda test: test.name,
).map(lambda tests: tuple(tests))  # noqa: PLW0108  mypy wants it

DISKS = st.dictionaries(
    st.sampled_from(["delta", "sda", "/dev/disk/by-id/a.b:c-1"]),
    st.builds(IoLimit, st.integers(4096, 1 << 50), write_ops=st.integers(0, 1 << 31)), max_size=3,
)  # fmt: skip

OTHERS: dict[type, st.SearchStrategy[Any]] = {
    AppType: APPS, HealthType: CHECKS, RestartType: RESTARTS, ShareType: SHARES, SourcesType: DECLARED,
    GroupTestsType: GROUP_TESTS,
}  # fmt: skip


UPLINKS = st.sampled_from(
    [NO_UPLINK, Uplink("eth0"), Uplink("eth0", 30, IPv4Interface("192.0.2.5/24"), IPv4Address("192.0.2.1")),
     Uplink("eth0", address6=IPv6Interface("2001:db8:30::5/64"), gateway6=IPv6Address("fe80::1"))]
)


def values(row: Row) -> st.SearchStrategy[Any]:
    """Values that the field may have."""
    if row.type is UPLINK:
        return UPLINKS
    if isinstance(row.type, PartsType):
        kind = row.type.kind
        return st.builds(kind, **{key: values(inner) for key, inner in rows_of(kind).items()})
    spans = st.sampled_from([0.0, 60.0, 5400.0, 21600.0, 86400.0])
    return spans if isinstance(row.type, Duration) else _plain(row)


def _plain(row: Row) -> st.SearchStrategy[Any]:
    """Values of a field without parts. A new type has to be added here."""
    match row.type:
        case Flag():
            return st.booleans()
        case Whole():
            return st.integers(row.type.low, row.type.high)
        case Number():
            return st.floats(row.type.low, row.type.high)
        case Size():
            return st.just(0) | st.integers(row.type.least, 1 << 50)
        case Choice():
            return st.sampled_from(row.type.words)
        case Command():
            return st.lists(ANY | ODD, max_size=3).map(tuple)
        case RawType() | DependsType() | IoType():
            return RAW if isinstance(row.type, RawType) else DEPENDS if isinstance(row.type, DependsType) else DISKS
        case Pairs():
            return VARIABLES if row.secret else LABELS
        case Items():
            texts = {
                "ports": SERVICES,
                "static_addresses": st.sampled_from(["10.201.0.50", "fd00::50"]),
                "aliases": st.sampled_from(["db", "cache.shop", "a-1.b"]),
                "publish": PUBLISHED,
                "units": UNITS,
                "volumes": MOUNTS,
                "secrets": SECRETS,
                "devices": HELD,
            }[row.key]
            return st.lists(texts, max_size=3, unique=True).map(_parsed(row.type))
        case AppType() | HealthType() | RestartType() | ShareType() | SourcesType() | GroupTestsType():
            return OTHERS[type(row.type)]
        case Text():
            return st.sampled_from(["daemon", "7:8", "a.b-c_d:9"]) if row.type.pattern else LINE
        case _:
            raise AssertionError(f"no values for {row}")


def _parsed(items: Items[Any]) -> Callable[[list[str]], tuple[Any, ...]]:
    return lambda texts: tuple(map(items.parse_one, texts))


def said(*, profile: bool) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional={key: values(row) for key, row in askable(profile=profile).items()})


OWN = st.builds(ProfileRollout, **{key: st.none() | values(row) for key, row in rows_of(ProfileRollout).items()})
PROFILES = said(profile=True).filter(lambda said: not [*combinations.of_profile(said)])
CONFIGS = st.builds(
    Config,
    network=st.builds(NetworkSettings, bridge=st.sampled_from(["on", "br0", "e5", "lxcfleet0"]), drain=st.floats(0, 3600)),
    metrics=st.builds(MetricsSettings, listen=st.sampled_from(["none", "[::1]:80", "127.0.0.1:9753"])),
    rollout=st.builds(
        rollout.RolloutSettings, SHARES, SHARES, st.floats(0, 86400), groups=st.lists(ANY | ODD, max_size=3).map(tuple)
    ),
    patch=st.builds(windows.PatchSettings, windows=st.just(("Sat 02:00-03:00",)), time_zone=st.sampled_from(["", "UTC"])),
    profiles=st.dictionaries(ANY | ODD, st.builds(Profile, PROFILES, OWN), max_size=3),
    **{
        key: values(row)
        for key, row in rows_of(Config).items()
        if not isinstance(row.type, SectionType) and key != "profiles"
    },
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=list(Check))
@given(CONFIGS)
def test_config_check_accepts_the_output_of_config_show_and_reads_the_same(config: Config) -> None:
    assert parse(describe(config).encode(), "shown") == config


@settings(max_examples=60, deadline=None, suppress_health_check=list(Check))
@given(said(profile=False))
def test_a_request_and_its_spec_are_read_as_they_were_written(asked: dict[str, Any]) -> None:
    sent = CreateRequest.from_json(CreateRequest("web", said=asked).to_json())
    assert {**sent.said, **asked} == asked
    assert all((not value and not isinstance(value, int | float | str)) or value is False
               for key, value in asked.items() if key not in sent.said)  # fmt: skip
    try:
        like = merge(sent.said, {}, Config())
    except InvalidInput:
        return
    spec = store.parse("", store.render(_placed(like)).encode(), "spec")
    assert spec == _placed(like)


def _placed(like: Any) -> Any:
    more = {"hardware": "06:0a:0b:0c:0d:0e"} if like.connected or like.on_uplink else {}
    return dataclasses.replace(like, created="now", first_id=None if like.privileged else 1 << 20, **more)
