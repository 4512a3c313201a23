"""JSON Schema (2020-12) of settings, specs and fleet files, made from their rows. Editors complete and check files by it."""

from __future__ import annotations

from typing import Any

from lxcfleet.spec.container.fields import stored
from lxcfleet.spec.container.secrets import SOURCES
from lxcfleet.spec.files import fleet_apps, fleet_file, fleet_layers, fleet_volumes
from lxcfleet.spec.files.settings import Config
from lxcfleet.spec.reading.rows import rows_of, schema_of

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def settings() -> dict[str, Any]:
    """The schema of /etc/lxcfleet/lxcfleet.yaml, which may be empty."""
    return {
        "$schema": _DIALECT,
        "title": "lxcfleet.yaml: the settings of lxcfleetd",
        **schema_of(rows_of(Config).values()),
        "type": ["object", "null"],
    }


def spec() -> dict[str, Any]:
    """The schema of /var/lib/lxc/NAME/lxcfleet.yaml."""
    schema = schema_of(stored().values())
    return {
        "$schema": _DIALECT,
        "title": "lxcfleet.yaml of a container: the values that were asked for when it was created",
        **schema,
        "properties": {"version": {"const": 1}, **schema["properties"]},
        "required": ["version", "created"],
    }


def fleet() -> dict[str, Any]:
    """The schema of a fleet file. What a profile, a group or a member says may be a part of a value, and null removes."""
    of_containers = [*fleet_layers.container_rows().values()]
    layer = [*of_containers, fleet_layers.ENV_FILES]
    member = {**schema_of(layer, part=True), "type": ["object", "null"]}
    group = schema_of([*fleet_layers.OWN.values(), *of_containers], part=True)
    members = {
        "description": "The values that differ for one of its containers, by name.", "type": ["object", "null"],
        "additionalProperties": member,
    }  # fmt: skip
    group = {**group, "type": ["object", "null"], "properties": {**group["properties"], "members": members}}
    name = {"pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"}
    volume = {**schema_of([*fleet_volumes.ROWS.values(), fleet_layers.HOSTS]), "type": ["object", "null"]}
    app = {**schema_of([*fleet_apps.ROWS.values(), fleet_layers.HOSTS]), "type": ["object", "null"]}
    groups = {"type": ["object", "null"], "propertyNames": name, "additionalProperties": group}
    return {
        "$schema": _DIALECT,
        "title": "A fleet as a file, for lxcfleet apply",
        "type": "object",
        "properties": {
            "lxcfleet": {"description": "The version of the format.", "const": fleet_file.FORMAT},
            "fleet": {"description": "Its name: the owner of the containers that it makes.", "type": "string", **name},
            fleet_file.SECRETS: {
                "description": "Where the values of secrets come from, by name.",
                **SOURCES.schema(), "type": ["object", "null"], "propertyNames": name,
            },
            fleet_volumes.KEY: {
                "description": "Volumes that are there before the containers that mount them, by name.",
                "type": ["object", "null"], "propertyNames": name, "additionalProperties": volume,
                "maxProperties": fleet_volumes.MOST,
            },
            fleet_apps.KEY: {
                "description": "Apps whose releases the containers have, by name.",
                "type": ["object", "null"], "propertyNames": name, "additionalProperties": app,
                "maxProperties": fleet_apps.MOST,
            },
            "profiles": {
                "description": "Parts that several groups have, by name.", "type": ["object", "null"],
                "additionalProperties": member,
            },
            "groups": {"description": "Containers that are alike, by name.", **groups},
        },
        "required": ["lxcfleet", "fleet"],
        "additionalProperties": False,
    }  # fmt: skip


FILES = {"lxcfleet.schema.json": settings, "spec.schema.json": spec, "fleet.schema.json": fleet}
"""The files that `make docs` writes to docs/schema, each with the function that makes its content."""
