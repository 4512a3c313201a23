"""secret list and refresh."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from lxcfleet.api.records import SecretRecord
from lxcfleet.api.requests import RefreshSecretsRequest
from lxcfleet.cli import complete, options
from lxcfleet.cli.session import connect
from lxcfleet.cli.ui import output
from lxcfleet.cli.ui.follow import run_operation
from lxcfleet.errors import InvalidInput

_FIELDS = ("name", "source", "refresh_seconds", "containers", "fetched", "changed", "problem")


@click.group(cls=options.Suggesting)
def secret() -> None:
    """Secrets: files in /run/secrets, kept in memory only.

    Their sources are declared by name, in `secrets:` of /etc/lxcfleet/lxcfleet.yaml or of a fleet file: a credential of
    systemd's, a file, or a command. A container gets one with `create --secret NAME`. Values are shown nowhere.

    \b
    Examples:
      lxcfleet create web --secret db-pw,uid=33,mode=0400 -- /usr/sbin/nginx -g 'daemon off;'
      lxcfleet secret refresh db-pw
    """


@secret.command("list")
@options.formatted
@options.quiet("Print only names.")
@click.pass_context
def list_(ctx: click.Context, *, style: str, quiet: bool) -> None:
    """Show the secrets that are declared, where they come from, and which containers have them. Values are not shown.

    \b
    Examples:
      lxcfleet secret list
      lxcfleet secret list -f json | jq -r '.[] | select(.problem) | .name'
    """
    records = connect(ctx).secrets()
    output.show_list(
        style, quiet, records, _FIELDS, table=lambda: _table(records), text=_text,
        nothing="no secrets are declared",
    )  # fmt: skip


def _table(records: Sequence[SecretRecord]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("NAME", "SOURCE", "CHANGED", "CONTAINERS")]
    for record in records:
        problem = [f"! {record['problem'].splitlines()[0]}"] if record["problem"] else []
        last = " ".join(part for part in (_text(record, "containers"), *problem) if part)
        rows.append((record["name"], record["source"], record["changed"] or "", last))
    return rows


def _text(record: SecretRecord, key: str) -> str:
    value: Any = record[key]  # type: ignore[literal-required]
    return ",".join(value) if isinstance(value, list) else "" if value is None else str(value)


@secret.command()
@click.argument("names", nargs=-1, metavar="[NAME...]", shell_complete=complete.secrets)
@click.option("--all", "everything", is_flag=True, help="All that are declared.")
@options.dry_run
@options.formatted
@options.quiet("Print only the names of those that have another value.")
@click.pass_context
def refresh(
    ctx: click.Context, /, *, names: tuple[str, ...], everything: bool, dry_run: bool, style: str, quiet: bool
) -> int:
    """Ask the sources of secrets anew. Containers that run have new values at once; what `on_change` says follows in waves.

    A source that fails keeps the former value. NAME is FLEET/NAME for a secret of a fleet file, if several have that name.

    \b
    Examples:
      lxcfleet secret refresh db-pw
      lxcfleet secret refresh --all -f json | jq .changed
    """
    if bool(names) == everything:
        raise InvalidInput("say which secrets" if not names else "--all goes without names", hint="name them, or say --all")
    request = RefreshSecretsRequest(names, everything, dry_run)
    return run_operation(ctx, lambda client: client.refresh_secrets(request), style=style, quiet=quiet, dry_run=dry_run)


VERBS = {"secret": secret}
