"""Arguments and answers of the launcher's operations on volumes, apps and secrets; see operations. No secret is here."""

from __future__ import annotations

from typing import Any, TypedDict

from lxcfleet.errors import ErrorBody


class VolumeItem(TypedDict):
    """A volume to make or change."""

    name: str
    record: str
    """The text of its file ``volume.yaml``."""


class AppItem(TypedDict):
    """A release of an app, to seal or to read."""

    name: str
    version: str
    source: str
    """The directory or the archive that it is made of."""
    strip: int
    """So many directories are taken off the names in an archive."""
    record: str
    """The text of its file ``app.yaml``, as far as it is known."""
    inside: str
    """If ``source`` is the delta of a container that built it: the path inside; empty: it is not."""


class MountsItem(TypedDict):
    """The mounts that new or changed containers are to have beside their layers."""

    volumes: list[str]
    coming: list[str]
    """Volumes that will be there by then, and that are not looked for now."""
    privileged: bool
    stack: Any
    """Their layers; see base.stack.Stack.to_json."""


class FetchItem(TypedDict):
    """A secret whose value is to be there."""

    key: str
    """See spec.container.secrets.key_of."""
    source: Any
    """See spec.container.secrets.SecretSource."""
    anew: bool
    """Whether its source is asked even if the value is there."""


class Fetched(TypedDict):
    """The outcome: nothing of the value itself."""

    error: ErrorBody | None
    digest: str
    changed: bool
    """Whether it is another value than before."""


class DeliverItem(TypedDict):
    """A container that is to have the present values of its secrets."""

    name: str
    first_id: int | None
    secrets: Any
    """See data.secrets.Item."""


class Delivered(TypedDict):
    """The outcome for one container."""

    name: str
    error: ErrorBody | None
    digests: dict[str, str]
    """Of the values that it has now, by file."""


class TidyItem(TypedDict):
    """Directories of secrets to remove."""

    gone: list[str]
    """Those of these containers."""
    only: list[str] | None
    """Those of all but these containers; None: of no others."""
    last: bool
    """Whether no container has secrets."""
