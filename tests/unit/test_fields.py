"""The table of fields: a fact that is stated there once holds wherever the field is used."""

from __future__ import annotations

from typing import Any

import pytest

from lxcfleet.api import calls
from lxcfleet.api.requests import CreateRequest
from lxcfleet.containers import store
from lxcfleet.containers.requests.request import resolve
from lxcfleet.daemon.http import routes
from lxcfleet.daemon.http.access import HIDDEN
from lxcfleet.errors import Broken, InvalidInput
from lxcfleet.spec.container import assignments, merging
from lxcfleet.spec.container.fields import askable, stored, table
from lxcfleet.spec.container.health import CheckKind, HealthCheck
from lxcfleet.spec.container.io import IoLimit
from lxcfleet.spec.container.restart import Restart, RestartPolicy
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.files import settings
from lxcfleet.spec.reading.rows import Effect
from lxcfleet.spec.reading.terms import PIDS, Init, NetworkMode, StopSignal

CONFIG = settings.Config(memory=1 << 20)
CREATED = "2026-01-01T00:00:00Z"
APP = Spec(
    "web", Init.APP, ("sleep", "9"), {"A": "1"}, {"role": "web"}, first_id=1 << 20, created=CREATED,
    memory=1 << 30, pids=7, health=HealthCheck(CheckKind.EXEC, ("false",)),
)  # fmt: skip


def test_every_field_has_a_help_and_a_reason_if_it_can_t_change() -> None:
    for key, row in table().items():
        assert row.key == key
        assert row.help.endswith("."), key
        assert bool(row.why) >= (row.change is Effect.NEVER), key


def test_a_spec_with_a_field_of_a_later_version_is_broken_and_says_which() -> None:
    text = store.render(APP) + "colour: red\n"
    with pytest.raises(Broken) as caught:
        store.parse("web", text.encode(), "/lxc/web/lxcfleet.yaml")
    assert caught.value.why == "/lxc/web/lxcfleet.yaml: colour: unknown key"


def test_isolation_on_the_host_s_network_is_refused_wherever_it_is_set() -> None:
    with pytest.raises(InvalidInput, match="can't be isolated"):
        settings.parse(b"profiles: {web: {isolated: true, network: host, command: [sleep, '9']}}", "f")
    with pytest.raises(InvalidInput, match="can't be isolated"):
        assignments.apply(APP, [assignments.parse("isolated=true"), assignments.parse("network=host")], CONFIG)


def test_the_daemon_starts_with_a_profile_that_an_older_version_let_through() -> None:
    text = b"profiles: {web: {isolated: true, network: host, command: [sleep, '9']}, api: {ports: [http=80], network: none}}"
    told: list[str] = []
    config = settings.parse(text, "f", told.append)
    assert [line.split(": ")[:3] for line in told] == [["f", "profiles", "web"], ["f", "profiles", "api"]]
    with pytest.raises(InvalidInput, match="can't be isolated"):
        resolve(CreateRequest(said={"profile": "web"}), config, ())


def test_a_spec_that_an_older_version_let_through_is_read_as_it_is() -> None:
    text = store.render(APP).replace("network: \"none\"", "network: host").replace("isolated: false", "isolated: true")
    spec = store.parse("web", text.encode(), "f")
    assert (spec.network, spec.isolated) == (NetworkMode.HOST, False)


def test_an_empty_value_in_a_request_counts_as_not_given() -> None:
    body = {"name": "web", "command": [], "labels": {}, "isolated": False, "health": None, "autostart": False, "memory": 0}
    assert CreateRequest.from_json(body).said == {"autostart": False, "memory": 0}


def test_a_request_is_read_as_it_was_sent() -> None:
    request = CreateRequest("web", 3, True, said={"network": NetworkMode.NONE, "memory": 1 << 30, "privileged": True})
    assert CreateRequest.from_json(request.to_json()) == request


@pytest.mark.parametrize(
    ("texts", "changed"),
    [
        (["memory=512M"], {"memory": 512 << 20}),
        (["memory="], {"memory": 1 << 20}),
        (["pids=", "drain="], {"pids": PIDS}),
        (["io=read=50M,write_ops=7"], {"io": {"delta": IoLimit(read=50 << 20, write_ops=7)}}),
        (["io.sda=write=1G", "io./dev/disk/by-id/x-1=read=0"], {"io": {
            "sda": IoLimit(write=1 << 30), "/dev/disk/by-id/x-1": IoLimit()
        }}),
        (["swap=0", "cpu_weight=50", "io_weight=200"], {"swap": 0, "cpu_weight": 50, "io_weight": 200}),
        (["swap=max"], {"swap": -1}), (["swap=", "cpu_weight="], {}),
        (["labels.role=db", "labels.zone=a"], {"labels": {"role": "db", "zone": "a"}}),
        (["labels.role="], {"labels": {}}),
        (["labels=tier=front"], {"labels": {"tier": "front"}}),
        (["environment.MODE=a=b"], {"environment": {"A": "1", "MODE": "a=b"}}),
        (["command=sh -c 'sleep 1'"], {"command": ("sh", "-c", "sleep 1")}),
        (["autostart=no"], {"autostart": False}),
        (["drain=2.5"], {"drain": 2.5}),
        (["drain=1m", "stop_timeout=1h"], {"drain": 60.0, "stop_timeout": 3600.0}),
        (["restart=always within=10m"], {"restart": Restart(RestartPolicy.ALWAYS, within=600.0)}),
        (["health=exec true"], {"health": HealthCheck(CheckKind.EXEC, ("/bin/sh", "-c", "true"))}),
        (["health=interval=2 retries=1 exec test $A = 1"],
         {"health": HealthCheck(CheckKind.EXEC, ("/bin/sh", "-c", "test $A = 1"), interval=2, retries=1)}),
        (["network=bridge", "health=http 80/ready interval=1m"],
         {"network": NetworkMode.BRIDGE, "health": HealthCheck(CheckKind.HTTP, port=80, path="/ready", interval=60)}),
        (["network=bridge", "health=timeout=1 tcp 25 start_period=0"],
         {"network": NetworkMode.BRIDGE, "health": HealthCheck(CheckKind.TCP, port=25, timeout=1, start_period=0)}),
        (["health="], {"health": None}),
    ],
)
def test_an_assignment_changes_only_the_key_that_it_names(texts: list[str], changed: dict[str, Any]) -> None:
    after = assignments.apply(APP, assignments.combine(map(assignments.parse, texts)), CONFIG)
    assert {key: getattr(after, key) for key in table() if getattr(after, key) != getattr(APP, key)} == changed


def test_a_list_may_be_given_in_parts() -> None:
    texts = ["publish=8080:80", "publish=8443:443,53:53/udp", "network=bridge"]
    (publish, _) = assignments.combine(map(assignments.parse, texts))
    assert list(map(str, publish.value)) == ["8080:80/tcp", "8443:443/tcp", "53:53/udp"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("memory", "says no value"),
        ("memroy=1G", "no field 'memroy'"),
        ("first_id=65536", "can't be changed"),
        ("privileged=true", "can't be changed"),
        ("name=other", "can't be changed"),
        ("memory=much", "memory: 'much' is not a size"),
        ("io=read", "'read' is no limit of a disk"), ("io=read=1M,read=2M", "'read=2M' is no limit"),
        ("io=sd a=read=1M", "can't be a disk's name"), ("io=../sda=read=1M", "can't be a disk's name"),
        ("io=read=lots", "io: read: "), ("io.sda=read_ops=-1", "io.sda: read_ops: "),
        ("swap=lots", "swap"), ("cpu_weight=0", "cpu_weight: 0 is not between"), ("io_weight=10001", "io_weight: 10001"),
        ("pids=-1", "pids: -1 is not between"),
        ("cpus=fast", "cpus: 'fast' is not a number"),
        ("network=wifi", "network: 'wifi' is none of bridge, none, uplink, host"),
        ("autostart=maybe", "autostart: 'maybe' is neither"),
        ("memory.high=1", "has no keys of its own"),
        ("labels.=1", "can't be a label"),
        ("labels=role", "has no value"),
        ("publish=80", "publish: '80' does not say"),
        ("health=ping", "is no check"),
        ("health=interval=2", "is no check"), ("health=interval=soon tcp 25", "health: 'soon' is no length of time"),
        ("health=http 80/ intervall=5", "health: 'intervall=5' has no place in a check by http"),
        ("health=tcp 25 retries=0", "health: 0 is not between 1"),
        ("health=tcp 99999", "is no check"),
        ("command='", "is no command"),
    ],
)
def test_a_bad_assignment_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        assignments.parse(text)


def test_one_field_has_one_value() -> None:
    with pytest.raises(InvalidInput, match="memory is given twice"):
        assignments.combine(map(assignments.parse, ["memory=1G", "memory=2G"]))


def test_values_that_contradict_each_other_can_t_be_set() -> None:
    for texts in (["command="], ["network=bridge", "ports=http=80", "network=none"], ["init=system"]):
        with pytest.raises(InvalidInput):
            assignments.apply(APP, assignments.combine(map(assignments.parse, texts)), CONFIG)


def test_a_key_that_the_fleet_assigns_can_t_be_requested() -> None:
    assert set(stored()) - set(askable()) == {
        "first_id", "address", "address6", "hardware", "fleet", "group", "created"
    }
    assert set(askable()) - set(askable(profile=True)) == {"profile"}


def test_secrets_are_hidden_from_those_who_may_only_read() -> None:
    secret = {f"spec.{key}" for key, row in table().items() if row.secret}
    assert secret <= set(calls.INFO.hides)
    reply = {"environment": {"A": "x"}, "spec": {"user": "a", "environment": {"A": "x"}}}
    hidden = routes._hidden(reply, calls.INFO.hides)
    assert hidden == {"environment": {"A": HIDDEN}, "spec": {"user": "a", "environment": {"A": HIDDEN}}}
    assert routes._hidden({"environment": {}, "spec": {}}, calls.INFO.hides) == {"environment": {}, "spec": {}}


@pytest.mark.parametrize(("text", "signal"), [("INT", StopSignal.INT), ("SIGQUIT", StopSignal.QUIT)])
def test_a_signal_has_a_name(text: str, signal: StopSignal) -> None:
    assert assignments.parse(f"stop_signal={text}").value is signal
    read = settings.parse(f"profiles: {{a: {{stop_signal: {text}}}}}".encode(), "f")
    assert read.profiles["a"].said["stop_signal"] is signal
    for bad in ("9", "KILL", "int", ""):
        with pytest.raises(InvalidInput):
            settings.parse(f"profiles: {{a: {{stop_signal: '{bad}'}}}}".encode(), "f")


@pytest.mark.parametrize("user", ["postgres", "70", "70:70", "www-data:adm", "_apt", "0"])
def test_a_user_may_be_a_name_or_a_number_with_a_group(user: str) -> None:
    assert assignments.parse(f"user={user}").value == user


@pytest.mark.parametrize("user", ["a b", ":", "a:", ":a", "-u", "70000", "a:b:c", "$(id)", "a\nb", "é", "x" * 33])
def test_an_impossible_user_is_refused(user: str) -> None:
    with pytest.raises(InvalidInput):
        assignments.parse(f"user={user}")


def test_a_new_container_takes_over_what_the_settings_say_of_limits_and_weights() -> None:
    config = settings.parse(b"swap: 0\ncpu_weight: 50\nio_weight: 7\nmemory: 512M\nstop_timeout: 5\n", "x")
    made = merging.merge({}, {"cpu_weight": 60}, config)
    assert (made.swap, made.cpu_weight, made.io_weight, made.memory) == (0, 60, 7, 512 << 20)
    assert made.stop_timeout is None  # the setting is read at each stop
    plain = merging.merge({}, {}, settings.Config())
    assert (plain.swap, plain.cpu_weight, plain.io_weight) == (None, None, None)
