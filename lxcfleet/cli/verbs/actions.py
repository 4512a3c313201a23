"""start, stop, restart, freeze, unfreeze, destroy: one action on the chosen containers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from lxcfleet.api.requests import ActionRequest
from lxcfleet.cli import options
from lxcfleet.cli.ui import rolling
from lxcfleet.cli.ui.follow import run_operation
from lxcfleet.errors import InvalidInput
from lxcfleet.spec.states import Action

_Callback = Callable[..., Any]
_Decorator = Callable[[_Callback], _Callback]

_timeout = click.option(
    "--timeout",
    type=options.Time(0, 86400),
    default=None,
    metavar="TIME",
    help="How long they may take to shut down until they are killed; default: each one's stop_timeout, else that of"
    " lxcfleet.yaml.",
)
_drain = options.drain(
    "How long they stay up after they left names and ports; default: each one's drain, else network.drain of lxcfleet.yaml."
)
_until_boot = click.option("--until-boot", is_flag=True, help="Those that run start again when the host boots.")
_no_deps = click.option(
    "--no-deps", is_flag=True, help="Do not wait for the containers that they depend on (depends_on)."
)
_force = click.option("--force", is_flag=True, help="Also those that run.")
_forced = click.option("--force", is_flag=True, help="Although this host is drained.")
_with_snapshots = click.option(
    "--with-snapshots", is_flag=True, help="Also those that have snapshots: these are removed with them."
)


def _verb(action: Action, text: str, *extra: _Decorator) -> click.Command:
    def act(
        ctx: click.Context,
        /,
        *,
        patterns: tuple[str, ...],
        labels: tuple[str, ...],
        everything: bool,
        dry_run: bool,
        style: str,
        quiet: bool,
        **more: Any,
    ) -> int:
        chosen = options.selection(patterns, labels, everything)
        if more.pop("rolling", False):
            return rolling.restart(ctx, chosen, more, style=style, quiet=quiet, dry_run=dry_run)
        for option in rolling.refused(more):
            raise InvalidInput(f"{option} says how to restart in waves", hint="add --rolling")
        if more.get("until_boot") and more.get("drain") is not None:
            options.refuse(["--drain"], "with --until-boot nobody takes over, so nobody drains", "leave out one of them")
        request = ActionRequest(action, chosen, dry_run=dry_run, **more)
        return run_operation(ctx, lambda client: client.act(request), style=style, quiet=quiet, dry_run=dry_run)

    function: _Callback = click.pass_context(act)
    quiet: _Decorator = options.quiet("Print only the names that changed.")
    decorators: list[_Decorator] = [quiet, options.formatted, options.dry_run, *extra, options.selected]
    for decorate in decorators:
        function = decorate(function)
    return click.command(action.value, help=text)(function)


_START = """Start containers, each on a fresh mount of the host's root.

One that depends on others (depends_on) is blocked until they are as it wants them, and then starts by itself; they are not
started for it. A stop ends its waiting.

\b
Examples:
  lxcfleet start web1 db1
  lxcfleet start 'web*' -l tier=front
  lxcfleet start --all
"""

_STOP = """Shut containers down, and kill what does not end in time.

\b
Examples:
  lxcfleet stop web1
  lxcfleet stop --all --timeout 60
  lxcfleet stop 'job*' --timeout 0        kill at once
  lxcfleet stop --all --until-boot        as systemd does when the host goes down
"""

_RESTART = """Stop and start on a fresh mount, to run what the host has.

All at once, but for the last member of a group: with a drain time it stays until another one is back, for a minute at the
most. A single one then serves all clients for a while.

With --rolling in waves: no more than --max-unavailable are down at the same moment, each wave has to be healthy before
the next one, and one that is not halts it; `lxcfleet rollout` says how it is. Those that do not run are left out.

\b
Examples:
  lxcfleet restart --all
  lxcfleet restart -l tier=front --timeout 30
  lxcfleet restart -l tier=front --rolling --max-unavailable 1
"""

_FREEZE = """Hold all processes of containers where they are.

\b
Examples:
  lxcfleet freeze 'job*'
"""

_UNFREEZE = """Let the processes of frozen containers go on.

\b
Examples:
  lxcfleet unfreeze 'job*'
"""

_DESTROY = """Remove containers and all that they wrote (also: rm). This can't be undone.

One that has snapshots is left alone, unless --with-snapshots is said.

\b
Examples:
  lxcfleet destroy web3
  lxcfleet destroy 'web*' --dry-run
  lxcfleet destroy --all --force
"""

VERBS = {
    "start": _verb(Action.START, _START, _no_deps, _forced),
    "stop": _verb(Action.STOP, _STOP, _timeout, _drain, _until_boot),
    "restart": _verb(Action.RESTART, _RESTART, _timeout, _drain, _no_deps, rolling.rolling_options),
    "freeze": _verb(Action.FREEZE, _FREEZE),
    "unfreeze": _verb(Action.UNFREEZE, _UNFREEZE),
    "destroy": _verb(Action.DESTROY, _DESTROY, _force, _with_snapshots, _drain),
}
