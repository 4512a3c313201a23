"""volume list, create, info and rm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from lxcfleet.api.records import VolumeRecord
from lxcfleet.api.requests import CreateVolumeRequest, RemoveVolumesRequest
from lxcfleet.cli import complete, options
from lxcfleet.cli.session import connect
from lxcfleet.cli.ui import output
from lxcfleet.cli.ui.follow import run_operation
from lxcfleet.spec.container.volumes import check_volume
from lxcfleet.spec.reading.names import parse_label
from lxcfleet.units import parse_size

_FIELDS = ("name", "size_bytes", "used_bytes", "containers", "labels", "first_id", "created", "path", "problem")


@click.group(cls=options.Suggesting)
def volume() -> None:
    """Volumes: directories that outlive containers.

    A container gets one with `create -v VOLUME:/PATH` or `set NAME volumes=VOLUME:/PATH`, and any number of containers can
    have it at once. Its files have ids of their own on the host's disk, and in each container those of the container:
    uid 33 is uid 33 in all of them.

    \b
    Examples:
      lxcfleet volume create uploads
      lxcfleet create web -n 3 -v uploads:/srv/uploads -- /usr/sbin/nginx -g 'daemon off;'
    """


@volume.command("list")
@options.formatted
@options.quiet("Print only names.")
@click.pass_context
def list_(ctx: click.Context, *, style: str, quiet: bool) -> None:
    """Show all volumes, and which containers have them.

    USED is told where the file system counts it (project quotas, for volumes with a size); `volume info` adds it up.

    \b
    Examples:
      lxcfleet volume list
      lxcfleet volume list -f json | jq -r '.[] | select(.containers == []) | .name'
    """
    records = connect(ctx).volumes()
    output.show_list(
        style, quiet, records, _FIELDS, table=lambda: _table(records), text=_text,
        nothing="no volumes",
    )  # fmt: skip


def _table(records: Sequence[VolumeRecord]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("NAME", "SIZE", "USED", "CONTAINERS", "LABELS")]
    for record in records:
        problem = [f"! {record['problem'].splitlines()[0]}"] if record["problem"] else []
        last = " ".join(part for part in (_text(record, "labels"), *problem) if part)
        size, used = (output.size(record[key]) for key in ("size_bytes", "used_bytes"))  # type: ignore[literal-required]
        rows.append((record["name"], size, used, _text(record, "containers"), last))
    return rows


def _text(record: VolumeRecord, key: str) -> str:
    value: Any = record[key]  # type: ignore[literal-required]
    if isinstance(value, dict):
        return ",".join(f"{inner}={text}" for inner, text in value.items())
    return ",".join(value) if isinstance(value, list) else "" if value is None else str(value)


def _used(record: VolumeRecord) -> str:
    used = record["used_bytes"]
    if used is None and record["problem"] is None:
        return "not known: it could not be added up in time; `lxcfleet du --volumes` takes longer"
    return output.size(used)


@volume.command()
@click.argument("name", shell_complete=complete.volumes)
@options.formatted
@click.pass_context
def info(ctx: click.Context, name: str, *, style: str) -> None:
    """Show all about one volume.

    \b
    Examples:
      lxcfleet volume info uploads
      lxcfleet volume info uploads -f json | jq .used_bytes
    """
    record = connect(ctx).volume(check_volume(name))
    texts = {
        "size_bytes": ("size", output.size(record["size_bytes"]) or "no limit"),
        "used_bytes": ("used", _used(record)),
    }

    def lines() -> list[str]:
        named = [texts.get(key, (key.replace("_", " "), _text(record, key))) for key in _FIELDS]
        return output.columns([(f"{word}:", text) for word, text in named])

    output.show(style, record, lines=lines, rows=lambda: [_FIELDS, [_text(record, key) for key in _FIELDS]])


@volume.command()
@click.argument("name")
@click.option(
    "--size", metavar="SIZE", default=None, callback=options.read_by(parse_size),
    help="The most bytes that may be on it, such as 50G. Takes project quotas. Default: no limit.",
)  # fmt: skip
@options.labelled("A label; may be repeated.")
@click.option("--ensure", is_flag=True, help="Make sure that it exists; leave it as it is if it does, and say what differs.")
@options.dry_run
@options.formatted
@options.quiet("Print only the name, if it was created.")
@click.pass_context
def create(
    ctx: click.Context,
    /,
    *,
    name: str,
    size: int | None,
    labels: tuple[str, ...],
    ensure: bool,
    dry_run: bool,
    style: str,
    quiet: bool,
) -> int:
    """Create an empty volume. It belongs to root of each container that mounts it.

    \b
    Examples:
      lxcfleet volume create uploads --size 50G
      lxcfleet volume create uploads --ensure -f json     for scripts: changes nothing the second time
    """
    request = CreateVolumeRequest(check_volume(name), size or 0, dict(map(parse_label, labels)), ensure, dry_run)
    return run_operation(ctx, lambda client: client.create_volume(request), style=style, quiet=quiet, dry_run=dry_run)


@volume.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=complete.volumes)
@options.dry_run
@options.formatted
@options.quiet("Print only the names of those that were removed.")
@click.pass_context
def rm(ctx: click.Context, /, *, names: tuple[str, ...], dry_run: bool, style: str, quiet: bool) -> int:
    """Remove volumes and all files on them. None is removed if a container's spec still names one of them.

    \b
    Examples:
      lxcfleet volume rm uploads
      lxcfleet volume rm uploads cache --dry-run
    """
    request = RemoveVolumesRequest(tuple(map(check_volume, names)), dry_run)
    return run_operation(ctx, lambda client: client.remove_volumes(request), style=style, quiet=quiet, dry_run=dry_run)


VERBS = {"volume": volume}
