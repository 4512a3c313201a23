"""stale."""

from __future__ import annotations

from collections.abc import Sequence

import click

from lxcfleet.api.findings import OldFileRecord, PartRecord, StaleRecord
from lxcfleet.cli import options
from lxcfleet.cli.session import connect
from lxcfleet.cli.statuses import FOUND, SOME_FAILED
from lxcfleet.cli.ui import output, parts
from lxcfleet.errors import FleetError
from lxcfleet.spec.selection import Selection
from lxcfleet.units import counted, some

OK, WARNING, CRITICAL, UNKNOWN = range(4)
"""Exit statuses of a monitoring plugin, by the Monitoring Plugins Development Guidelines."""
_WORDS = ("OK", "WARNING", "CRITICAL", "UNKNOWN")
_SHOWN = 3
"""How many processes a line of the table names, and how many containers the line of the monitoring plugin does."""


@click.command()
@options.selected
@options.formatted
@options.quiet("Print only the names of stale containers.")
@click.option("--nagios", is_flag=True, help="One line and exit status 0, 1, 2 or 3, as monitoring plugins do.")
@click.pass_context
def stale(
    ctx: click.Context,
    *,
    patterns: tuple[str, ...],
    labels: tuple[str, ...],
    everything: bool,
    style: str,
    quiet: bool,
    nagios: bool,
) -> int:
    """Show which containers run old code: all, or those chosen.

    A container is stale when one of its processes maps or runs a file that is no longer the host's file at that path,
    as happens when the host is patched. It is also stale when an interpreter in it may have read an old module, or when
    it is served old files of packages. Only a restart heals that; `verify` proves it afterwards.

    If no containers are chosen, lxcfleet's own parts on the host are looked at, too: its daemon, launcher, booter,
    attacher, forwarder, dnsmasq and responder. The daemon renews them by itself, and those that it is about to renew do not
    count; -q leaves them out.

    Exit status 4: some are stale. 3: none is, but some could not be looked at.

    \b
    Examples:
      lxcfleet stale
      lxcfleet stale -q 'web*'
      lxcfleet restart $(lxcfleet stale -q)
      lxcfleet stale -f json | jq '.[] | select(.stale) | {name, files: [.files[].path]}'
    """
    chosen = options.optional_selection(patterns, labels, everything)
    if nagios:
        said = [option for option, given in (("-f", style != "table"), ("-q", quiet)) if given]
        options.refuse(said, "--nagios prints one line of its own", "leave out one of them")
        return _plugin(ctx, chosen)
    client = connect(ctx)
    records = client.stale(chosen)
    own = parts.counted(client.parts(), chosen, records)
    found = [record for record in records if record["stale"]]
    if quiet:
        output.write("".join(f"{record['name']}\n" for record in found))
    else:
        shown = [*records, *parts.as_stale(own)]
        output.show(style, shown, lines=lambda: [*_table(found), *parts.lines(own)], rows=lambda: _rows(shown))
    complain(records)
    if style == "table" and not quiet and not found and not parts.lines(own):
        processes = sum(record["processes"] for record in records)
        looked = f"{counted(processes, 'process')} in {counted(len(records), 'container')}"
        output.say(f"lxcfleet: nothing stale: {looked} looked at" if records or not chosen.narrow else output.NOT_CHOSEN)
    return status_of(records, own)


def status_of(records: Sequence[StaleRecord], own: Sequence[PartRecord] = ()) -> int:
    """The exit status for these containers and lxcfleet's own parts. Parts that are being renewed do not count."""
    if any(record["stale"] for record in records) or any(part["stale"] and not part["renewing"] for part in own):
        return FOUND
    return SOME_FAILED if any(record["problem"] for record in records) else 0


def complain(records: Sequence[StaleRecord]) -> None:
    """Say which containers could not be looked at, and why."""
    for record in records:
        if record["problem"]:
            error = FleetError("not all of it could be looked at", why=record["problem"])
            output.say_error(error, record["name"])


def _table(records: Sequence[StaleRecord]) -> list[str]:
    if not records:
        return []
    rows = [("NAME", "PROCESSES", "FILE", "WHY", "PACKAGE", "VERSION ON THE HOST")]
    for record in records:
        for file in record["files"]:
            why = file["why"] if file["layer"] == "base" else f"{file['why']} ({file['layer']})"
            package = (file["package"] or "", file["version"] or "")
            rows.append((record["name"], _processes(file), file["path"], why, *package))
        if record["base"] is not None:
            rows.append((record["name"], "", f"generation {record['base']}", "another base", "", ""))
    return output.columns(rows, output.terminal_width())


def _processes(file: OldFileRecord) -> str:
    return some([f"{process['command']} {process['pid']}" for process in file["processes"]], _SHOWN)


def _rows(records: Sequence[StaleRecord]) -> list[list[str]]:
    rows = [["name", "state", "stale", "path", "why", "layer", "package", "version", "pids", "problem"]]
    for record in records:
        stale, problem = str(record["stale"]).lower(), record["problem"] or ""
        for file in record["files"]:
            pids = " ".join(str(process["pid"]) for process in file["processes"])
            package = (file["package"] or "", file["version"] or "")
            what = [file["path"], file["why"], file["layer"], *package, pids]
            rows.append([record["name"], record["state"], stale, *what, problem])
        if not record["files"]:
            rows.append([record["name"], record["state"], stale, *[""] * 6, problem])
    return rows


def _plugin(ctx: click.Context, chosen: Selection) -> int:
    try:
        client = connect(ctx)
        records = client.stale(chosen)
        own = parts.counted(client.parts(), chosen, records)
    except FleetError as error:
        return _plugin_line(UNKNOWN, f"{error.message}: {error.why}".replace("\n", "; "))
    found = [record["name"] for record in records if record["stale"]]
    unread = [record["name"] for record in records if record["problem"]]
    numbers = f"stale={len(found)};;0;0;{len(records)} unread={len(unread)};0;;0;{len(records)}"
    if found:
        said = f"old code runs in {len(found)} of {counted(len(records), 'container')}: {some(found, _SHOWN, ' ')}"
        return _plugin_line(CRITICAL, said, numbers)
    if old := [parts.title(part) for part in own if part["stale"] and not part["renewing"]]:
        return _plugin_line(WARNING, f"lxcfleet's own {', '.join(old)} run old code", numbers)
    if unread:
        said = f"{counted(len(unread), 'container')} could not be looked at: {some(unread, _SHOWN, ' ')}"
        return _plugin_line(WARNING, said, numbers)
    return _plugin_line(OK, f"no old code in {counted(len(records), 'container')}", numbers)


def _plugin_line(status: int, text: str, numbers: str = "") -> int:
    line = output.printable(f"LXCFLEET {_WORDS[status]} - {text}").replace("|", "/")
    output.write(line + (f" | {numbers}" if numbers else "") + "\n")
    return status


VERBS = {"stale": stale}
