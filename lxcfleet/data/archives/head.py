"""The head of an archive, its first member ``export.yaml``: what the archive is, and what its container was. Pure.

An archive is a tar file, compressed by zstd, with these members in this order:

- ``export.yaml``: the head;
- ``base``: what the records of packages and accounts of the base were at the container's last start, for the merge at the
  next one (see base.merge.reconcile); it is missing if the container has no such records of its own;
- ``delta/``: the container's own layer, with owners from 0 to 65535, as the container itself has them;
- ``volumes/NAME/``: the files of its volumes, if they were asked for, with owners of the same kind.

Format 2 has in its head what each of its volumes was. One without files of volumes is of format 1, so that a lxcfleet which
knows no other one can read it. In format 1 the head has the names of the volumes alone.

lxcfleet writes POSIX extended headers alone, and reads nothing else: see ``entries``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lxcfleet.errors import InvalidInput, NoCapacity, Unsupported
from lxcfleet.spec.container.volumes import Volume, check_volume
from lxcfleet.spec.reading import strict_yaml
from lxcfleet.spec.reading.names import check_name
from lxcfleet.spec.reading.reader import Fields
from lxcfleet.spec.reading.rows import read_said, rows_of
from lxcfleet.units import as_size

FORMAT = 2
_WITHOUT_VOLUMES = 1
HEAD = "export.yaml"
BASE = "base"
DELTA = "delta"
VOLUMES = "volumes"
MOST_HEAD = 256 << 10
"""Bytes that a head may have. The parser of YAML takes about 10 seconds of a processor for each MiB that somebody made so."""
_SNAPSHOT = re.compile("[0-9a-f]{32}")
_SAID = 40
"""Characters of a value that can't be used that are shown."""


@dataclass(frozen=True)
class ArchiveHead:
    """The head of an archive."""

    name: str
    """The container's name."""
    version: str
    """The version of lxcfleet that wrote the archive."""
    created: str
    """When, as an ISO 8601 time in UTC."""
    still: str
    """Why nothing changed meanwhile: ``frozen`` or ``stopped``."""
    spec: Mapping[str, Any]
    """The container's spec, as its file has it. Values of secrets are in no spec."""
    system: Mapping[str, str] = field(default_factory=dict)
    """Fields of /etc/os-release of the base: ``ID``, ``VERSION_ID``, ``PRETTY_NAME``."""
    packages: str = ""
    """SHA-256 of the base's dpkg status."""
    snapshot: str = ""
    """The name of the member ``base``: see base.merge.reconcile; empty: there is none."""
    volumes: tuple[Volume, ...] = ()
    """The volumes whose files are in the archive, as they were on their host; in format 1 the names alone are known."""


def render(head: ArchiveHead) -> str:
    """The text of ``export.yaml``. Raises NoCapacity if it is longer than one that is read."""
    values: dict[str, object] = {
        "format": FORMAT if head.volumes else _WITHOUT_VOLUMES,
        "lxcfleet": head.version,
        "name": head.name,
        "created": head.created,
        "still": head.still,
        "base": {"system": dict(head.system), "packages": head.packages, "snapshot": head.snapshot},
        "volumes": {
            each.name: {key: row.render(getattr(each, key)) for key, row in rows_of(Volume).items()} for each in head.volumes
        } if head.volumes else [],
        "spec": dict(head.spec),
    }
    lines = [f"{key}: {strict_yaml.inline(value)}" for key, value in values.items()]
    text = "\n".join(["# A container that lxcfleet exported; `lxcfleet import` makes it anew.", *lines, ""])
    size = len(text.encode("utf-8", "surrogateescape"))
    if size > MOST_HEAD:
        raise NoCapacity(
            f"the spec of {head.name} is too long for an archive",
            why=f"with what else is told of the container it has {as_size(size)}, and at most {as_size(MOST_HEAD)} are read",
            hint=f"shorten it, such as by files of a volume in place of environment: lxcfleet info {head.name}",
        )
    return text


def parse(text: bytes) -> ArchiveHead:
    """The head in ``text``. Raises Unsupported for another format, InvalidInput with all that is wrong otherwise."""
    try:
        data = strict_yaml.load(text)
    except ValueError as error:
        raise InvalidInput("this archive can't be used", why=f"{HEAD}: {error}", hint=_HINT) from error
    fields = Fields(data, HEAD)
    found = fields.raw("format")
    _refuse_other_format(found, fields.raw("lxcfleet"))
    fields.skip("format")
    version, name, created = fields.text("lxcfleet"), fields.text("name"), fields.text("created")
    try:
        check_name(name)
    except InvalidInput as error:
        fields.complain("name", error.message)
    still = fields.text("still")
    base = fields.nested("base")
    snapshot = base.optional_text("snapshot") or ""
    if snapshot and not _SNAPSHOT.fullmatch(snapshot):
        base.complain("snapshot", "is not the name of a snapshot")
    system = base.pairs("system", lambda key, value: (key, value))
    packages = base.optional_text("packages") or ""
    volumes = _volumes(fields) if found == FORMAT else tuple(map(Volume, fields.texts("volumes")))
    for volume in volumes:
        try:
            check_volume(volume.name)
        except InvalidInput as error:
            fields.complain("volumes", error.message)
    if len({each.name for each in volumes}) < len(volumes):
        fields.complain("volumes", "names one twice")
    spec = fields.raw("spec")
    fields.skip("spec")
    if not isinstance(spec, Mapping):
        fields.complain("spec", "is to be a mapping")
        spec = {}
    fields.finish("this archive can't be used")
    return ArchiveHead(name, version, created, still, spec, system, packages, snapshot, volumes)


def _volumes(fields: Fields) -> tuple[Volume, ...]:
    within = fields.nested("volumes")
    found = []
    for name in within.keys():
        each = within.nested(name)
        found.append(Volume(name, **read_said(rows_of(Volume).values(), each)))
        each.close()
    return tuple(found)


_HINT = "an archive is made by `lxcfleet export`"


def _refuse_other_format(found: object, version: object) -> None:
    """Raise Unsupported for an archive that another version of lxcfleet wrote in another form."""
    if type(found) is int and found in (_WITHOUT_VOLUMES, FORMAT):
        return
    if type(found) is int and found > FORMAT:
        raise Unsupported(
            f"this archive has format {str(found)[:_SAID]}, and this lxcfleet reads formats up to {FORMAT}",
            why=f"lxcfleet {str(version)[:_SAID]} wrote it, which is newer than this one",
            hint="upgrade lxcfleet here, then import it",
        )
    raise Unsupported(
        "this archive can't be used", why=f"{HEAD}: format: {str(found)[:_SAID]!r} is none that lxcfleet has written",
        hint=_HINT,
    )
