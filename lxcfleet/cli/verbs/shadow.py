"""audit shadow."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

import click

from lxcfleet.api.findings import DivergedRecord, ShadowRecord, ShadowsRecord
from lxcfleet.api.requests import FixShadowsRequest
from lxcfleet.cli import options
from lxcfleet.cli.session import connect
from lxcfleet.cli.statuses import FAILED, FOUND, SOME_FAILED
from lxcfleet.cli.ui import follow, output
from lxcfleet.errors import FleetError, InvalidInput
from lxcfleet.units import counted, some

_NAMED = 5
"""How many packages are named in a line."""


@click.command(short_help="Show files in deltas that keep the host's out.")
@options.selected
@click.option("--fix", "paths", multiple=True, metavar="PATH", help="Remove this file from the deltas; may be repeated.")
@click.option(
    "--fix-package", "packages", multiple=True, metavar="PACKAGE",
    help="Remove all of this package's shadows from the deltas; may be repeated.",
)
@click.option("-y", "--yes", is_flag=True, help="With --fix and --fix-package: do not ask.")
@options.dry_run
@options.formatted
@options.quiet("Print only the names of containers with shadows.")
@click.pass_context
def shadow(
    ctx: click.Context,
    *,
    patterns: tuple[str, ...],
    labels: tuple[str, ...],
    everything: bool,
    paths: tuple[str, ...],
    packages: tuple[str, ...],
    yes: bool,
    dry_run: bool,
    style: str,
    quiet: bool,
) -> int:
    """Show files in deltas that keep the host's out: of all containers, or those chosen.

    A shadow hides a file that a package of the host owns, so that patching the host does not reach the container: a
    library that was upgraded inside, a setting that was edited. A container whose packages are no longer the host's is
    named, with what is different; and so is a volume or another mount over a directory with files of packages.

    --fix removes the shadows that it names, from containers that are stopped, after showing them; what hides no
    package's file, a container's own data, is never removed. --fix-package removes all shadows of a package, as `apt
    install --reinstall` inside leaves them, with what dpkg has written about it: the host's package is the container's
    again. Settings in /etc that differ from the host's stay, and so do directories.

    Exit status 4: there are some. 3: none, but some deltas could not be read.

    \b
    Examples:
      lxcfleet audit shadow
      lxcfleet audit shadow web1 -f json
      lxcfleet audit shadow web1 --fix /usr/lib/x86_64-linux-gnu/libssl.so.3
      lxcfleet audit shadow web1 --fix-package nginx --dry-run
    """
    chosen = options.optional_selection(patterns, labels, everything)
    if not (paths or packages):
        said = [option for option, given in (("--yes", yes), ("--dry-run", dry_run)) if given]
        options.refuse(said, "without --fix nothing is removed", "add --fix PATH or --fix-package PACKAGE, or leave it out")
    elif not (chosen.patterns or chosen.labels or chosen.everything):
        raise InvalidInput("no container chosen", hint="give names, globs, -l KEY=VALUE or --all")
    if paths or packages:
        request = FixShadowsRequest(chosen, paths, dry_run, packages)
        return _fix(ctx, request, yes=yes, style=style, quiet=quiet)
    records = connect(ctx).shadows(chosen)
    found = [record for record in records if record["shadows"] or record["diverged"] or record["mounts"] or record["brings"]]
    if quiet:
        output.write("".join(f"{record['name']}\n" for record in found))
    else:
        output.show(style, records, lines=lambda: _lines(found), rows=lambda: _rows(records))
    failed = [record for record in records if record["problem"]]
    for record in failed:
        output.say_error(FleetError("its delta could not be read", why=record["problem"] or ""), record["name"])
    if style == "table" and not quiet and not found:
        looked = counted(len(records) - len(failed), "delta")
        output.say(f"lxcfleet: no shadows: {looked} looked at" if records or not chosen.narrow else output.NOT_CHOSEN)
    return FOUND if found else SOME_FAILED if failed else 0


def _fix(ctx: click.Context, request: FixShadowsRequest, *, yes: bool, style: str, quiet: bool) -> int:
    results = connect(ctx).fix_shadows(replace(request, dry_run=True))
    named = [(result["name"], path) for result in results for path in result.get("removed", ())]
    if named and not yes:
        for line in output.columns(named):
            output.say(line)
    if not request.dry_run:
        if named and not yes:
            if not sys.stdin.isatty():
                raise InvalidInput("nobody is there to confirm", hint="look at what goes with --dry-run, then add --yes")
            if not click.confirm(f"Remove {counted(len(named), 'file')} from deltas?", err=True):
                output.say("lxcfleet: nothing was removed")
                return FAILED
        results = connect(ctx).fix_shadows(request)
    for result in results:
        if result["error"]:
            output.say_error(result["error"], result["name"])
        for path, why in result.get("kept", {}).items():
            output.say(f"{result['name']}: stays: {output.printable(path)}: {why}")
    follow.show_results(results, style, quiet)
    return follow.status_of(results)


def _words(shadow: ShadowRecord) -> tuple[str, ...]:
    same = "same content" if shadow["same"] else shadow["age"]
    kind = shadow["kind"] if shadow["layer"] == "delta" else f"{shadow['kind']} ({shadow['layer']})"
    return shadow["path"], kind, same, shadow["package"], shadow["version"]


def _lines(records: Sequence[ShadowsRecord]) -> list[str]:
    rows = [(record["name"], *_words(each)) for record in records for each in record["shadows"]]
    head = ("NAME", "FILE", "DELTA HAS", "BESIDE THE HOST'S", "PACKAGE", "VERSION ON THE HOST")
    lines = output.columns([head, *rows], output.terminal_width()) if rows else []
    for record in records:
        for place, packages in record["mounts"].items():
            lines.append(output.printable(f"{record['name']}: the mount at {place} hides files of {some(packages, _NAMED)}"))
        if record["brings"]:
            text = f"its app {record['app']} brings {some(record['brings'], _NAMED)} of its own: rebuild it after patches"
            lines.append(output.printable(f"{record['name']}: {text}"))
        if record["diverged"]:
            lines += [output.printable(f"{record['name']}: {line}") for line in _differences(record["diverged"])]
    return lines


def _differences(diverged: DivergedRecord) -> list[str]:
    changed = [f"{name} {own} (host: {host})" for name, (own, host) in diverged["changed"].items()]
    added = [f"{name} {version}" for name, version in diverged["added"].items()]
    parts = (("has packages of its own", added), ("has other versions", changed), ("lacks", diverged["removed"]))
    return [f"{word}: {some(items, _NAMED)}" for word, items in parts if items]


def _rows(records: Sequence[ShadowsRecord]) -> list[list[str]]:
    rows = [["name", "path", "kind", "age", "same", "package", "version", "layer", "diverged", "problem"]]
    for record in records:
        last = [str(record["diverged"] is not None).lower(), record["problem"] or ""]
        for each in record["shadows"]:
            same = str(each["same"]).lower()
            what = [each["path"], each["kind"], each["age"], same, each["package"], each["version"], each["layer"]]
            rows.append([record["name"], *what, *last])
        if not record["shadows"]:
            rows.append([record["name"], *[""] * 7, *last])
    return rows
