"""verify."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

import click

from lxcfleet.api.client import Client
from lxcfleet.api.findings import EvidenceRecord, ProofRecord
from lxcfleet.api.queries import VerifyRequest
from lxcfleet.cli import options
from lxcfleet.cli.session import connect
from lxcfleet.cli.statuses import FOUND
from lxcfleet.cli.ui import output, parts
from lxcfleet.spec.policies.cves import parse_cve
from lxcfleet.units import counted

RENEWAL_SECONDS = 30.0
"""The longest wait, in seconds, for parts of lxcfleet's own that the daemon is about to renew."""
PAUSE_SECONDS = 0.5


@click.command(short_help="Prove that a patch is in every container, or in some.")
@options.selected
@click.option("--package", "packages", multiple=True, metavar="PKG", help="Only its files count; may be repeated.")
@click.option(
    "--cve", "cves", multiple=True, metavar="ID", callback=options.read_all_by(partial(map, parse_cve)),
    help="Only the fix of this CVE counts; may be repeated.",
)  # fmt: skip
@click.option(
    "--deep", is_flag=True, help="Compare all files of changed packages with those that containers see: also documentation."
)
@options.formatted
@options.quiet("Print only the names of containers that are not proven.")
@click.pass_context
def verify(
    ctx: click.Context,
    *,
    patterns: tuple[str, ...],
    labels: tuple[str, ...],
    everything: bool,
    packages: tuple[str, ...],
    cves: tuple[str, ...],
    deep: bool,
    style: str,
    quiet: bool,
) -> int:
    """Prove that a patch is in every container: all, or those chosen.

    A container is proven when all its processes could be read, none runs an old file or may have read an old module, it is
    served no old file of a package that changed since its start, and nothing in its delta keeps the host's files out
    (settings in /etc do not count). With --package all files of these packages are compared. What could not be looked at
    is not proven, and nothing is while dpkg has not finished. `-f json` is a record to be filed; it says what was not
    compared.

    With --cve it is proven if its packages have the fix of this CVE, as their changelogs or debsecan's data tell, and nothing
    old of these packages runs. A CVE that none of them names is not proven.

    Unless some containers are chosen, lxcfleet's own parts on the host count, too: none may run old code.

    Exit status 0: all are proven. 4: some are not.

    \b
    Examples:
      lxcfleet verify
      lxcfleet verify --package libssl3 --package openssl
      lxcfleet verify --deep --package ca-certificates
      lxcfleet verify --cve CVE-2026-28387
      lxcfleet verify -f json >evidence-$(date -I).json
    """
    chosen = options.optional_selection(patterns, labels, everything)
    proof = _proof(connect(ctx), VerifyRequest(chosen, packages, deep, cves))
    records = proof["containers"]
    if quiet:
        output.write("".join(f"{record['name']}\n" for record in records if not record["proven"]))
    else:
        output.show(style, proof, lines=lambda: _lines(proof), rows=lambda: _rows(records))
    if style == "table" and not records:
        output.say(output.NOT_CHOSEN if chosen.narrow else "lxcfleet: no containers")
    if proof["reboot"] and style == "table" and not quiet:
        output.say(f"lxcfleet: the host has to be rebooted for {', '.join(proof['reboot'])}: of these nothing is proven")
    return 0 if proof["proven"] else FOUND


def _proof(client: Client, ask: VerifyRequest) -> ProofRecord:
    """The proof. While nothing but parts that the daemon is about to renew are old, this waits for a while."""
    deadline = time.monotonic() + RENEWAL_SECONDS
    while True:
        proof = client.verify(ask)
        old = [part for part in proof["parts"] if part["stale"]]
        only = bool(old) and all(part["renewing"] for part in old) and all(each["proven"] for each in proof["containers"])
        if not only or time.monotonic() > deadline:
            return proof
        time.sleep(PAUSE_SECONDS)


def _lines(proof: ProofRecord) -> list[str]:
    records = proof["containers"]
    former = {name: old for old, found in proof["renamed"].items() for name in found}
    packages = [
        f"{name} {version}{f' (asked for as {former[name]})' if name in former else ''}"
        for name, version in proof["packages"].items()
    ]
    packages += [f"{name} (removed; {counted(files, 'file')} of it known)" for name, files in proof["gone"].items()]
    subject = ", ".join(packages) or "all packages"
    if proof["cves"]:
        subject = ", ".join(f"{each['cve']} ({', '.join(each['packages']) or 'in no package'})" for each in proof["cves"])
    good = sum(record["proven"] for record in records)
    head = f"{proof['time']}  {proof['host']}, {proof['system']}, packages {proof['base']}: {subject}"
    foot = f"proven: {good} of {counted(len(records), 'container')}"
    table = _table(records, output.terminal_width()) if records else []
    said = [f"{each['cve']}: {output.printable(each['line'])}" for each in proof["cves"] if each["line"]]
    notes = [output.printable(f"{record['name']}: {record['note']}") for record in records if record["note"]]
    return [output.printable(head), *said, *table, *notes, *parts.lines(proof["parts"]), foot]


def _table(records: Sequence[EvidenceRecord], width: int | None) -> list[str]:
    """The table of containers. Reasons that do not fit beside a container stand below it, and are never cut."""
    rows = [("NAME", "PROVEN", "RESTARTED", "PROCESSES", "OLD", "SHADOWS", "WHY NOT"), *map(_row, records)]
    lines = output.columns(rows)
    if width is None or max(map(len, lines)) <= width:
        return lines
    import textwrap

    head, *lines = output.columns([row[:-1] for row in rows], width)
    table = [head]
    for line, record in zip(lines, records, strict=True):
        table.append(line)
        for reason in map(output.printable, record["reasons"]):
            table += textwrap.wrap(
                reason, width, initial_indent="    ", subsequent_indent="      ",
                break_long_words=False, break_on_hyphens=False,
            )  # fmt: skip
    return table


def _row(record: EvidenceRecord) -> tuple[str, ...]:
    counts = (record["processes"], len(record["old"]), len(record["shadows"]))
    proven = "yes" if record["proven"] else "NO"
    return record["name"], proven, record["restarted"] or "", *map(str, counts), "; ".join(record["reasons"])


def _rows(records: Sequence[EvidenceRecord]) -> list[list[str]]:
    rows = [["name", "proven", "state", "restarted", "processes", "mappings", "old", "shadows", "reasons"]]
    for record in records:
        counts = [record["processes"], record["mappings"], len(record["old"]), len(record["shadows"])]
        first = [record["name"], str(record["proven"]).lower(), record["state"], record["restarted"] or ""]
        rows.append([*first, *map(str, counts), "; ".join(record["reasons"])])
    return rows


VERBS = {"verify": verify}
