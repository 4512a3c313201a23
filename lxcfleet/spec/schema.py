"""JSON Schema (2020-12) of the settings file and of specs, made from their rows. Editors complete and check files by it."""

from __future__ import annotations

from typing import Any

from lxcfleet.spec.fields import stored
from lxcfleet.spec.rows import rows_of, schema_of
from lxcfleet.spec.settings import Config

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
        "title": "lxcfleet.yaml of a container: what was asked for when it was created",
        **schema,
        "properties": {"version": {"const": 1}, **schema["properties"]},
        "required": ["version", "created"],
    }


FILES = {"lxcfleet.schema.json": settings, "spec.schema.json": spec}
"""The files that `make docs` writes to docs/schema, each with the function that makes its content."""
