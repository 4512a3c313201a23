"""JSON Schema of settings and specs: texts that it accepts and refuses, compared with the readers."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck as Check
from hypothesis import given, settings
from jsonschema import Draft202012Validator

from lxcfleet.containers import store
from lxcfleet.errors import FleetError, InvalidInput
from lxcfleet.spec.container.fields import stored
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.files import fleet_file, schema
from lxcfleet.spec.files.fleet_sources import Sources
from lxcfleet.spec.files.settings import Config, describe, parse
from lxcfleet.spec.reading import strict_yaml
from lxcfleet.spec.reading.rows import rows_of
from lxcfleet.spec.reading.terms import Init

from .test_round_trip import CONFIGS

SETTINGS = Draft202012Validator(schema.settings())
SPEC = Draft202012Validator(schema.spec())
FLEET = Draft202012Validator(schema.fleet())
OLD = """
version: 1
init: "app"
command: ["sleep", "9"]
environment: {"A": "1"}
labels: {}
profile: null
first_id: 1879048192
network: "none"
memory: 0
created: "2026-01-01T00:00:00Z"
"""


def load(text: str) -> Any:
    return strict_yaml.load(text.encode())


@pytest.mark.parametrize("make", schema.FILES.values(), ids=schema.FILES)
def test_they_are_schemas(make: Any) -> None:
    Draft202012Validator.check_schema(make())


@settings(max_examples=40, deadline=None, suppress_health_check=list(Check))
@given(CONFIGS)
def test_any_possible_settings_are_valid(config: Config) -> None:
    SETTINGS.validate(load(describe(config)))


@pytest.mark.parametrize(
    "text",
    [
        "", "memory: 512M", "memory: 536870912", "rollout: {max_unavailable: 25%, canaries: 1}", "network:",
        "profiles: {a: }", "profiles: {a: {health: {exec: null, tcp: 80, retries: }}}",
        "profiles: {a: {health: {tcp: 80}, memory: 1g, stop_signal: SIGINT}}", "profiles: {a: {network: null}}",
    ],
)  # fmt: skip
def test_settings_as_people_write_them_are_valid(text: str) -> None:
    parse(text.encode(), "f")
    SETTINGS.validate(load(text))


@pytest.mark.parametrize(
    "text",
    [
        "workers: 1000", "workers: many", "worker: 1", "memory: lots", "network: {default: host}", "network: []",
        "log_level: loud", "reconcile: 1", "rollout: {canaries: 101%}", "patch: {windows: Sat}", "pids: 1.5", "pids: true",
        "profiles: {a: {health: {tcp: 80, http: /}}}", "profiles: {a: {health: {}}}", "profiles: {a: {labels: {a: 1}}}",
        "profiles: {a: {init: vm}}", "profiles: {a: {first_id: 65536}}", "profiles: {a: {stop_signal: KILL}}", "profiles: []",
        "profiles: {a: {command: sleep}}", "profiles: {a: {user: 'a b'}}", "profiles: {a: {rollout: {priority: x}}}", "[]",
    ],
)  # fmt: skip
def test_settings_that_the_reader_refuses_are_not_valid(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse(text.encode(), "f")
    assert not SETTINGS.is_valid(load(text))


ODD: list[Any] = [
    None, True, False, 0, 1, -1, 1001, 1 << 62, 0.5, -0.5, "", " ", "0", "25%", "101%", "max", "none", "no", "512M", "1 G",
    "10m", "1 MIN", "2H", "inf", "auto", "Sat 22:00-04:00", "a b", "é", "/srv", "tcp 80", "10.0.0.0/8", "fd00::/64",
    "SIGTERM", "app", "host", "daemon:daemon", "on-failure", "80:80", "data:/srv", [], {}, ["a"], ["80:80"], ["data:/srv"],
    [1], {"a": "b"}, {"db": "healthy"}, {"tcp": 80}, {"every": "1d", "keep": 3}, {"policy": False}, {"policy": "always"},
]  # fmt: skip
"""Values that some field may have, and that most fields refuse."""


def places(of: dict[str, Any], depth: int = 2) -> Iterator[tuple[str, ...]]:
    """The keys that a schema has, each with the keys above it."""
    for each in (*of.get("anyOf", ()), *of.get("oneOf", ())):
        yield from places(each, depth)
    for key, inner in of.get("properties", {}).items():
        yield (key,)
        if depth > 1:
            yield from ((key, *below) for below in places(inner, depth - 1))


def odd(of: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Mappings with one value, each of the odd ones at each place that the schema has."""
    for place in sorted({*places(of)}):
        for value in ODD:
            whole = value
            for key in reversed(place):
                whole = {key: whole}
            yield whole


def refused(of: Draft202012Validator, values: Iterable[Any], read: Callable[[bytes], object]) -> list[str]:
    """The values that the reader takes, and the schema refuses."""
    found = []
    for value in values:
        text = json.dumps(value)
        with contextlib.suppress(FleetError):
            read(text.encode())
            if not of.is_valid(load(text)):
                found.append(text)
    return found


def test_settings_that_the_reader_takes_are_valid() -> None:
    assert refused(SETTINGS, odd(schema.settings()), lambda text: parse(text, "f")) == []


def test_specs_that_the_reader_takes_are_valid() -> None:
    old = load(OLD)
    specs = ({**old, **each} for each in odd(schema.spec()))
    assert refused(SPEC, specs, lambda text: store.parse("web", text, "f")) == []


def test_fleet_files_that_the_reader_takes_are_valid() -> None:
    groups = odd(schema.fleet()["properties"]["groups"]["additionalProperties"])
    files = ({"lxcfleet": 1, "fleet": "shop", "groups": {"web": each}} for each in groups)
    assert refused(FLEET, files, lambda text: fleet_file.parse(Sources(text.decode(), "f"), Config())) == []


@pytest.mark.parametrize(
    "text", ["stop_timeout: 2M", "stop_timeout: 1 Min", "rollout: {bake: 1H}", "profiles: {a: {restart: no}}"]
)
def test_words_that_the_reader_takes_in_several_forms_are_valid(text: str) -> None:
    parse(text.encode(), "f")
    SETTINGS.validate(yaml.safe_load(text))
    SETTINGS.validate(load(text))


def test_specs_of_this_version_and_of_the_former_one_are_valid() -> None:
    spec = Spec("web", Init.APP, ("sleep", "9"), user="daemon", created="2026-01-01T00:00:00Z")
    SPEC.validate(load(store.render(spec)))
    SPEC.validate(load(OLD))
    assert not SPEC.is_valid(load(OLD + "colour: red\n"))
    assert store.parse("web", OLD.encode(), "f").command == ("sleep", "9")


def test_every_key_is_in_them_with_its_help() -> None:
    for rows, made in ((rows_of(Config), schema.settings()), (stored(), schema.spec())):
        for key, row in rows.items():
            assert made["properties"][key]["description"] == row.help
