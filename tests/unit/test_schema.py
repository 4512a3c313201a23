"""JSON Schema of settings and specs: texts that it accepts and refuses, compared with the readers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck as Check
from hypothesis import given, settings
from jsonschema import Draft202012Validator

from lxcfleet.containers import store
from lxcfleet.errors import InvalidInput
from lxcfleet.spec.container.fields import stored
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.files import schema
from lxcfleet.spec.files.settings import Config, describe, parse
from lxcfleet.spec.reading import strict_yaml
from lxcfleet.spec.reading.rows import rows_of
from lxcfleet.spec.reading.terms import Init

from .test_round_trip import CONFIGS

SETTINGS = Draft202012Validator(schema.settings())
SPEC = Draft202012Validator(schema.spec())
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
