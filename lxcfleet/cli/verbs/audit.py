"""audit."""

from __future__ import annotations

import click

from lxcfleet.cli import options
from lxcfleet.cli.session import connect
from lxcfleet.cli.statuses import FOUND, SOME_FAILED
from lxcfleet.cli.ui import output
from lxcfleet.cli.verbs.shadow import shadow
from lxcfleet.errors import FleetError
from lxcfleet.units import counted


@click.group(cls=options.Suggesting)
def audit() -> None:
    """Look for what should not be so in containers.

    \b
    Examples:
      lxcfleet audit exposure       what of the host they can read and should not
      lxcfleet audit shadow         what in their deltas keeps patches of the host out
    """


@audit.command(short_help="Show what of the host they can read and should not.")
@options.selected
@options.formatted
@options.quiet("Print only the names of containers that can read something.")
@click.pass_context
def exposure(
    ctx: click.Context,
    *,
    patterns: tuple[str, ...],
    labels: tuple[str, ...],
    everything: bool,
    style: str,
    quiet: bool,
) -> int:
    """Show what of the host running containers can read and should not: all, or those chosen.

    Whatever unprivileged users of the host can't read is looked for from inside each container, as its root. The mask
    hides such files from the next start on; those that became private later are told of here until then. Files that a
    rule of yours shows by name are left out.

    Exit status 4: something can be read. 3: nothing, but some containers could not be looked at.

    \b
    Examples:
      lxcfleet audit exposure
      lxcfleet audit exposure 'web*' -f json
      lxcfleet restart $(lxcfleet audit exposure -q)
    """
    chosen = options.optional_selection(patterns, labels, everything)
    records = connect(ctx).exposure(chosen)
    found = [record for record in records if record["exposed"]]
    rows = [(record["name"], each["path"], each["why"], each["rule"]) for record in found for each in record["exposed"]]
    if quiet:
        output.write("".join(f"{record['name']}\n" for record in found))
    else:
        head = ("NAME", "FILE OF THE HOST", "WHY IT IS PRIVATE", "RULE")
        output.show(
            style,
            records,
            lines=lambda: output.columns([head, *rows], output.terminal_width()) if rows else [],
            rows=lambda: [("name", "path", "why", "rule"), *rows],
        )
    failed = [record for record in records if record["problem"]]
    for record in failed:
        output.say_error(FleetError("it could not be looked at", why=record["problem"] or ""), record["name"])
    if style == "table" and not quiet:
        looked = sum(record["state"] in ("running", "frozen") for record in records) - len(failed)
        if not records and chosen.narrow:
            output.say(output.NOT_CHOSEN)
        elif not found:
            output.say(f"lxcfleet: nothing exposed: {counted(looked, 'running container')} looked at")
        else:
            output.say("lxcfleet: a restart hides it: lxcfleet restart " + " ".join(record["name"] for record in found))
    return FOUND if found else SOME_FAILED if failed else 0


audit.add_command(shadow)

VERBS = {"audit": audit}
