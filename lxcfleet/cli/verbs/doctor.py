"""doctor."""

from __future__ import annotations

import click

from lxcfleet.api.queries import DoctorRequest
from lxcfleet.api.records import DoctorRecord, FindingRecord
from lxcfleet.cli import options
from lxcfleet.cli.session import connect
from lxcfleet.cli.statuses import FOUND
from lxcfleet.cli.ui import output
from lxcfleet.spec.reading.names import check_count
from lxcfleet.spec.reading.terms import Init
from lxcfleet.units import counted

_FIELDS = ("check", "level", "message", "have", "need", "hint", "fixable")


@click.command()
@click.option("-n", "--count", type=int, default=1, metavar="N", help="How many more containers; default: 1.")
@click.option(
    "--init",
    type=click.Choice(options.INITS),
    default=Init.SYSTEM.value,
    help="Of which kind; default: system.",
)
@click.option(
    "--fix", is_flag=True, help="Raise what can be raised safely, also for the time after a reboot."
)
@options.formatted
@click.pass_context
def doctor(ctx: click.Context, count: int, init: str, fix: bool, style: str) -> int:
    """Compare what N more containers need with what is there.

    Exit status 4 means that they would not fit or can't run.

    \b
    Examples:
      lxcfleet doctor
      lxcfleet doctor -n 100 --init app
      lxcfleet doctor -n 500 --fix
    """
    check_count(count)
    client = connect(ctx)
    asked = DoctorRequest(count, Init(init))
    record = client.fix(asked) if fix else client.doctor(asked)
    output.show(style, record, lines=lambda: _lines(record, count, init), rows=lambda: _rows(record))
    return FOUND if any(finding["level"] == "fail" for finding in record["findings"]) else 0


def _lines(record: DoctorRecord, count: int, init: str) -> list[str]:
    findings = record["findings"]
    table = output.columns([(_word(f), f["check"], f["message"]) for f in findings]) if findings else []
    indent = " " * (max((len(_word(f)) for f in findings), default=0) + 2)
    lines = []
    for finding, line in zip(findings, table, strict=True):
        lines.append(line)
        if finding["level"] != "ok":
            hint = finding["hint"] + (" (doctor --fix does it)" if finding["fixable"] else "")
            lines += [indent + output.printable(hint)] if hint else []
    fits = record["fits"]
    room = "no limit met" if fits is None else f"room for {fits} more"
    return [*lines, f"asked: {counted(count, f'more {init} container')}; {room}"]


def _word(finding: FindingRecord) -> str:
    return "FAIL" if finding["level"] == "fail" else finding["level"]


def _rows(record: DoctorRecord) -> list[list[str]]:
    rows = [list(_FIELDS)]
    for finding in record["findings"]:
        values = {field: finding.get(field) for field in _FIELDS} | {
            "fixable": str(finding["fixable"]).lower()
        }
        rows.append(["" if value is None else str(value) for value in values.values()])
    return rows


VERBS = {"doctor": doctor}
