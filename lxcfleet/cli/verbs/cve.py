"""cve."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click

from lxcfleet.api.findings import CveDataRecord, CveRecord, CvesRecord
from lxcfleet.cli import options
from lxcfleet.cli.session import connect
from lxcfleet.cli.statuses import FOUND
from lxcfleet.cli.ui import output
from lxcfleet.errors import InvalidInput
from lxcfleet.spec.states import CveState
from lxcfleet.units import counted, some

OLD_DAYS = 7.0
"""Days from which on debsecan's data is called old."""
_SHOWN = 3
"""How many containers a line of the table names."""


@click.command(short_help="Show which CVEs are closed in containers, and which are not.")
@options.selected
@click.option(
    "--state", "states", multiple=True, type=click.Choice([state.value for state in CveState]),
    help="Only CVEs, and containers, of this state; may be repeated.",
)  # fmt: skip
@click.option("--package", "packages", multiple=True, metavar="PKG", help="Only those of this package, or of this source.")
@options.formatted
@options.quiet("Print only the CVEs.")
@click.pass_context
def cve(
    ctx: click.Context,
    *,
    patterns: tuple[str, ...],
    labels: tuple[str, ...],
    everything: bool,
    states: tuple[str, ...],
    packages: tuple[str, ...],
    style: str,
    quiet: bool,
) -> int:
    """Show which CVEs are closed in containers, and which are not: in all, or in those chosen.

    Nothing is fetched. The changelogs of packages that changed since the containers' start tell what the change closed. The
    data of debsecan, if the setting `cve` names a mirror of it, tells what is not closed yet.

    \b
    old-code-runs  the fix is in the packages, and code from before still runs: restart the container
    fix-available  the container's packages do not have the fix, and there is one
    open           no fix is known
    unknown        nobody can tell; why is said
    proven         the fix is in the packages, and nothing old of them runs, as `verify` proves it

    Exit status 4: of those shown, a container runs code with a CVE that its packages have closed.

    \b
    Examples:
      lxcfleet cve
      lxcfleet cve 'web*' --package openssl
      lxcfleet cve --state old-code-runs -f json
      lxcfleet verify --cve CVE-2026-28387
    """
    cves = [each for each in patterns if each.upper().startswith("CVE-")]
    if cves:
        raise InvalidInput(
            f"{cves[0]} is no container", hint=f"whether it is closed everywhere: lxcfleet verify --cve {cves[0].upper()}"
        )
    chosen = options.optional_selection(patterns, labels, everything)
    found = _only(connect(ctx).cves(chosen), states, packages)
    if quiet:
        output.write("".join(f"{name}\n" for name in sorted({record["cve"] for record in found["cves"]})))
    else:
        output.show(style, found, lines=lambda: _table(found["cves"]), rows=lambda: _rows(found["cves"]))
    if style == "table" and not quiet:
        _notes(found, chosen=chosen.narrow, filtered=bool(states or packages))
    elif found["data"] is not None and (found["data"]["days"] or 0.0) > OLD_DAYS:
        output.say(f"lxcfleet: {output.printable(_age(found['data']))}")
    runs = any(place["state"] == CveState.OLD_CODE_RUNS for record in found["cves"] for place in record["places"])
    return FOUND if runs else 0


def _only(found: CvesRecord, states: Sequence[str], packages: Sequence[str]) -> CvesRecord:
    """The records that the filters leave."""
    names = {name.partition(":")[0] for name in packages}
    kept: list[CveRecord] = []
    for record in found["cves"]:
        places = [place for place in record["places"] if not states or place["state"] in states]
        if places and (not names or record["source"] in names or names.intersection(record["packages"])):
            kept.append(record.copy())
            kept[-1]["places"] = places
    unread = [
        each for each in found["unread"] if not names or each["source"] in names or names.intersection(each["packages"])
    ]
    left = found.copy()
    left["cves"], left["unread"] = kept, unread
    return left


def _table(records: Sequence[CveRecord]) -> list[str]:
    if not records:
        return []
    rows = [("CVE", "PACKAGE", "STATE", "CONTAINERS", "WHY")]
    for record in records:
        for place in record["places"]:
            why = "; ".join(place["why"]) or (record["line"] or "" if record["partly"] else "")
            state = CveState(place["state"]).words
            rows.append((record["cve"], record["source"], state, _containers(place["containers"]), why))
        if record["partly"] and record["line"]:
            rows.append(("", "", "", "", f"its changelog says: {record['line']}"))
    return output.columns(rows, output.terminal_width())


def _containers(names: Sequence[str]) -> str:
    return f"{len(names)}: {some(names, _SHOWN, ' ')}"


def _rows(records: Sequence[CveRecord]) -> list[list[str]]:
    rows = [["cve", "source", "packages", "state", "count", "containers", "fixed", "urgency", "why", "line"]]
    for record in records:
        for place in record["places"]:
            rows.append([
                record["cve"], record["source"], " ".join(record["packages"]), place["state"],
                str(len(place["containers"])), " ".join(place["containers"]), record["fixed"] or "",
                record["urgency"] or "", "; ".join(place["why"]), record["line"] or "",
            ])  # fmt: skip
    return rows


def _notes(found: CvesRecord, *, chosen: bool, filtered: bool) -> None:
    if not found["containers"]:
        output.say(output.NOT_CHOSEN if chosen else "lxcfleet: no containers")
        return
    if not found["cves"]:
        what = "no such CVE" if filtered else "no CVE"
        output.say(f"lxcfleet: {what} was found for {counted(len(found['containers']), 'container')}")
    for line in _unknown(found):
        output.say(f"lxcfleet: {output.printable(line)}")


def _unknown(found: CvesRecord) -> Iterator[str]:
    """The things that are not known, in words. That is not the same as that there is nothing."""
    for each in found["unread"]:
        where = some(each["containers"], _SHOWN)
        if each["source"]:
            yield f"it is not known which CVEs the change of {each['source']} closed in {where}: {each['why']}"
        else:
            yield f"nothing is known of {where}: {each['why']}"
    data = found["data"]
    if data is None:
        yield "it is not known which CVEs no version closes yet: the setting `cve: {source: …}` names no data of debsecan"
    elif data["problem"]:
        yield f"it is not known which CVEs no version closes yet: {data['problem']}"
    else:
        yield _age(data)


def _age(data: CveDataRecord) -> str:
    age = data["days"] or 0.0
    old = f", older than {OLD_DAYS:g} days: it lacks all that was found since" if age > OLD_DAYS else ""
    return f"{data['file']} is of {data['written']}, {age:g} days old{old}"


VERBS = {"cve": cve}
