"""From a create request to names and specs."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from lxcfleet.api.requests import CreateRequest
from lxcfleet.containers.requests.request import find_command, resolve
from lxcfleet.errors import AlreadyExists, InvalidInput
from lxcfleet.spec.container.health import CheckKind, HealthCheck
from lxcfleet.spec.container.merging import differences
from lxcfleet.spec.container.ports import parse_port
from lxcfleet.spec.files.profiles import Profile
from lxcfleet.spec.files.settings import Config, NetworkSettings
from lxcfleet.spec.reading.terms import PIDS, Init, NetworkMode


def ask(
    name: str | None = None, count: int | None = None, *, ensure: bool = False, **said: Any
) -> CreateRequest:
    return CreateRequest(name, count, ensure, said=said)


def profile(**said: Any) -> Profile:
    return Profile(said)


CONFIG = Config(profiles={"web": profile(init=Init.APP, command=("nginx",), environment={"A": "1"}, labels={"role": "web"})})


def test_names_are_the_next_free_numbers() -> None:
    assert resolve(ask(count=3), CONFIG, {"c2"}).new == ("c1", "c3", "c4")
    assert resolve(ask(name="web", count=2), CONFIG, ()).new == ("web1", "web2")
    assert resolve(ask(name="web"), CONFIG, ()).new == ("web",)


def test_ensure_takes_the_first_numbers_and_leaves_existing_containers() -> None:
    wanted = resolve(ask(count=3, ensure=True), CONFIG, {"c2", "c9"})
    assert (wanted.new, wanted.present) == (("c1", "c3"), ("c2",))


def test_a_name_that_is_taken_is_refused() -> None:
    with pytest.raises(AlreadyExists):
        resolve(ask(name="web"), CONFIG, {"web"})


def test_a_command_makes_an_app_container() -> None:
    assert resolve(ask(command=("sleep", "1")), CONFIG, ()).like.init is Init.APP
    assert resolve(ask(), CONFIG, ()).like.init is Init.SYSTEM


def test_values_of_the_request_override_the_profile() -> None:
    asked = ask(profile="web", environment={"B": "2"}, labels={"role": "db"}, command=("sleep", "1"))
    like = resolve(asked, CONFIG, ()).like
    assert like.command == ("sleep", "1")
    assert (dict(like.environment), dict(like.labels)) == ({"A": "1", "B": "2"}, {"role": "db"})
    assert resolve(ask(profile="web"), CONFIG, ()).like.command == ("nginx",)


@pytest.mark.parametrize(
    "asked",
    [
        ask(init=Init.APP),
        ask(init=Init.SYSTEM, command=("sleep",)),
        ask(command=("A=b",)),
        ask(command=("\ud800",)),
        ask(name="x" * 64),
        ask(name="x" * 62, count=20),
        ask(count=0),
        ask(count=10**9),
    ],
)
def test_requests_that_make_no_sense_are_refused(asked: CreateRequest) -> None:
    with pytest.raises(InvalidInput):
        resolve(asked, CONFIG, ())


def test_variables_are_for_app_containers() -> None:
    with pytest.raises(InvalidInput, match="systemd hands none on"):
        resolve(ask(environment={"A": "1"}), CONFIG, ())
    assert resolve(ask(profile="web", init=Init.SYSTEM), CONFIG, ()).like.environment == {}


def test_privileged_containers_have_no_disk_limit() -> None:
    config = Config(disk=1 << 30, profiles={"small": profile(disk=1 << 25)})
    assert resolve(ask(), config, ()).like.disk == 1 << 30
    assert resolve(ask(profile="small"), config, ()).like.disk == 1 << 25
    assert resolve(ask(profile="small", disk=0), config, ()).like.disk == 0
    assert resolve(ask(privileged=True), config, ()).like.disk == 0
    for asked in (ask(privileged=True, disk=1 << 26), ask(privileged=True, profile="small")):
        with pytest.raises(InvalidInput, match="privileged"):
            resolve(asked, config, ())


def test_an_existing_container_may_differ_from_the_request() -> None:
    def differs(asked: CreateRequest, now: CreateRequest, config: Config = CONFIG) -> dict[str, tuple[str, str]]:
        made = dataclasses.replace(resolve(asked, CONFIG, ()).like, name="a", first_id=1 << 20, created="once")
        wanted = resolve(dataclasses.replace(now, name="a", ensure=True), config, {"a"})
        return differences(made, wanted.like, wanted.left)

    first = ask(command=("sleep", "9"), labels={"a": "1", "b": "2"}, environment={"KEY": "secret"}, memory=1 << 30)
    assert differs(first, first) == {}
    other = ask(
        command=("sleep", "1 0"), labels={"a": "1", "c": "3"}, environment={"KEY": "other"}, memory=1 << 29, cpus=1.5,
        ports=(parse_port("http=80"),), health=HealthCheck(CheckKind.TCP, port=80), privileged=True, autostart=False,
    )  # fmt: skip
    assert differs(first, other) == {
        "command": ("sleep 9", "sleep '1 0'"), "labels": ("b=2", "c=3"), "environment": ("KEY=…", "KEY=…"),
        "memory": ("1G", "512M"), "cpus": ("0", "1.5"), "ports": ("none", "http=80/tcp"), "privileged": ("no", "yes"),
        "health": ("none", "tcp=80 interval=10 timeout=5 retries=3 start_period=30"), "autostart": ("yes", "no"),
    }  # fmt: skip
    assert differs(first, ask())["init"] == ("app", "system")
    web = ask(profile="web")
    assert differs(web, web) == {}
    now = profile(init=Init.APP, command=("apache",), environment={"A": "1"}, labels={"role": "web"}, pids=7)
    changed = Config(profiles={"web": now})
    assert differs(web, web, changed) == {"command": ("nginx", "apache"), "pids": (str(PIDS), "7")}
    settings = Config(memory=1 << 30, cpus=1.0, pids=9, network=NetworkSettings(default=NetworkMode.NONE))
    plain = ask(command=("sleep", "9"))
    assert differs(plain, plain, settings) == {}, "the settings changed; nobody asked for another limit"


def test_an_unknown_profile_is_named() -> None:
    with pytest.raises(InvalidInput, match="'db'") as error:
        resolve(ask(profile="db"), CONFIG, ())
    assert error.value.why.endswith(": web")


def test_a_command_is_looked_up_in_the_path_of_the_container() -> None:
    find_command("sleep", {}, {"/usr/bin/sleep"}.__contains__)
    find_command("tool", {"PATH": "/opt/bin"}, {"/opt/bin/tool"}.__contains__)
    find_command("/srv/run", {}, {"/srv/run"}.__contains__)
    for command in ("nosuch", "/nosuch", "./relative", ""):
        with pytest.raises(InvalidInput):
            find_command(command, {}, {"/usr/bin/sleep"}.__contains__)


def test_a_check_comes_from_the_request_or_the_profile_and_needs_a_network_if_it_connects() -> None:
    usual, asked = HealthCheck(CheckKind.TCP, port=80), HealthCheck(CheckKind.EXEC, ("true",))
    config = Config(profiles={"web": profile(init=Init.APP, command=("nginx",), health=usual)})
    assert resolve(ask(profile="web"), config, ()).like.health == usual
    assert resolve(ask(profile="web", health=asked), config, ()).like.health == asked
    with pytest.raises(InvalidInput, match="needs a network"):
        resolve(ask(profile="web", network=NetworkMode.NONE), config, ())
    assert resolve(ask(profile="web", network=NetworkMode.NONE, health=asked), config, ()).like.health == asked


def test_no_container_is_isolated_on_the_host_s_network() -> None:
    with pytest.raises(InvalidInput, match="can't be isolated"):
        resolve(ask(command=("true",), network=NetworkMode.HOST, isolated=True), CONFIG, ())
    assert resolve(ask(command=("true",), network=NetworkMode.NONE, isolated=True), CONFIG, ()).like.isolated
