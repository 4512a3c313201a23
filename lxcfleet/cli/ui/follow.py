"""Follow an operation to its end and show its results. Ctrl-C cancels the part that has not begun."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, cast

import click

from lxcfleet.api.client import Client
from lxcfleet.api.records import OperationRecord, ResultRecord
from lxcfleet.cli.session import connect
from lxcfleet.cli.ui.output import NOTHING_CHOSEN, columns, printable, say, show, write
from lxcfleet.cli.ui.progress import Progress
from lxcfleet.errors import FleetError, NotFound, Unreachable
from lxcfleet.spec.results import Result, exit_status
from lxcfleet.spec.selection import natural_order

INTERRUPTED = 130

SHORT = 20
"""Up to this many containers get a line each; more are summed up in one line."""
_NAMED = 5
"""How many containers with the same message are named in it."""


def run_operation(
    ctx: click.Context,
    begin: Callable[[Client], OperationRecord],
    *,
    style: str,
    quiet: bool,
    dry_run: bool,
    update: bool = False,
) -> int:
    """Begin an operation by ``begin``, follow it and show its results; gives the exit status. ``update``: whether the
    operation changes existing containers that differ from the request."""
    client = connect(ctx)
    with _patient() as asked_to_stop:
        operation = begin(client)
    if dry_run:
        return _show_plan(operation, style, quiet, update)
    with Progress(operation["action"], operation["total"]) as progress:
        following = _Following(client, operation, progress)
        try:
            ended = following.to_the_end(cancel=bool(asked_to_stop))
        except KeyboardInterrupt:
            progress.note(f"lxcfleet: left; operation {operation['id']} goes on in the daemon")
            return INTERRUPTED
    show_results(ended["results"], style, quiet, seconds=progress.seconds, operation=ended)
    if update:
        _tell_changes(ended["results"], quiet or style != "table")
        _tell_restarts(client, ended["results"])
    else:
        _tell_differences(ended["results"], quiet)
    if ended["status"] == "cancelled":
        say(_cancelled(ended))
    return INTERRUPTED if following.interrupted else status_of(ended["results"])


@contextmanager
def _patient() -> Iterator[list[int]]:
    """Put the first Ctrl-C off until the daemon has told the operation's id; a second Ctrl-C interrupts at once."""
    pending: list[int] = []
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, _frame: FrameType | None) -> None:
        if pending:
            raise KeyboardInterrupt
        pending.append(number)

    if before is signal.SIG_IGN:
        yield pending
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield pending
    finally:
        signal.signal(signal.SIGINT, before)


class _Following:
    def __init__(self, client: Client, operation: OperationRecord, progress: Progress) -> None:
        self._client = client
        self._operation = operation
        self._id = operation["id"]
        self._progress = progress
        self._seen: set[str] = set()
        self.interrupted = False

    def to_the_end(self, *, cancel: bool) -> OperationRecord:
        """The operation once it has ended; a second Ctrl-C raises KeyboardInterrupt."""
        if not cancel:
            try:
                return self._follow()
            except KeyboardInterrupt:
                pass
        self.interrupted = True
        self._progress.note("lxcfleet: finishing what has begun; Ctrl-C again leaves at once")
        try:
            self._client.cancel(self._id)
        except Unreachable as error:
            raise self._lost(error.why) from error
        except FleetError:
            pass  # the operation has just ended
        return self._follow()

    def _follow(self) -> OperationRecord:
        """Follow the operation. A new call repeats all earlier results, so an interrupted call loses nothing."""
        try:
            for item in self._client.follow(self._id):
                if "results" in item:
                    return cast(OperationRecord, item)
                result = cast(ResultRecord, item)
                if result["name"] not in self._seen:
                    self._seen.add(result["name"])
                    self._progress.add(result)
        except Unreachable as error:
            raise self._lost(error.why) from error
        except NotFound as error:
            raise self._lost("it was restarted, and knows no operation of before") from error
        raise self._lost("it closed the connection")

    def _lost(self, why: str) -> Unreachable:
        """The error for a daemon that ends before the operation. A restarted daemon finishes the containers that had begun,
        but it no longer knows the operation's id."""
        done, total = len(self._seen), self._operation["total"]
        return Unreachable(
            f"the daemon went away before operation {self._id} had ended",
            why=f"{why}; of the {self._operation['action']}, {done} of {total} were told to be done",
            hint="what had begun is finished once the daemon is back: `lxcfleet events -f` follows that, `lxcfleet list`"
            " shows how far it is; the same command again does the rest",
        )


def _tell_restarts(client: Client, results: Sequence[ResultRecord]) -> None:
    """Tell that a rollout restarts the containers whose change takes a restart. The client does not wait for it."""
    rollout, changed = client.rollout(), {result["name"] for result in results if result["changed"]}
    if rollout is None or rollout["ended"] is not None:
        return
    count = sum(member["name"] in changed for member in rollout["containers"])
    if count:
        say(
            f"lxcfleet: {count} of them are restarted in waves, as their changes take a restart:"
            " `lxcfleet rollout status --follow` shows how far"
        )


def _show_plan(operation: OperationRecord, style: str, quiet: bool, update: bool) -> int:
    plan, results = operation["plan"], operation["results"]
    data = {"changed": operation["changed"], "dry_run": True, "plan": plan, "results": results}
    if quiet:
        write("".join(f"{result['name']}\n" for result in results if result["changed"]))
    else:
        rows = [["plan"], *([line] for line in plan)]
        show(style, data, lines=lambda: map(printable, plan), rows=lambda: rows)
        if not results and style == "table":
            say(NOTHING_CHOSEN)
    if not update:
        _tell_differences(results, quiet)
    return status_of(results)


def _tell_differences(results: Sequence[ResultRecord], quiet: bool) -> None:
    """Tell the fields in which existing containers differ from the request: one message for all with the same differences."""
    for names, text in [] if quiet else _alike(results, "{key}: {has} (asked: {asked})"):
        say(printable(f"lxcfleet: {names}: not as asked, and left so: {text}"))


def _tell_changes(results: Sequence[ResultRecord], quiet: bool) -> None:
    """Tell the changed fields of containers: one message for all containers with the same changes."""
    for names, text in [] if quiet else _alike(results, "{key}: {asked} (was: {has})"):
        say(printable(f"lxcfleet: {names}: {text}"))


def _alike(results: Sequence[ResultRecord], form: str) -> Iterator[tuple[str, str]]:
    alike: dict[str, list[str]] = {}
    for result in results:
        parts = [form.format(key=key, has=has, asked=asked) for key, (has, asked) in result.get("differs", {}).items()]
        if parts:
            alike.setdefault("; ".join(parts), []).append(result["name"])
    for text, names in alike.items():
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        yield ", ".join(natural_order(names)[:_NAMED]) + more, text


def show_changes(results: Sequence[ResultRecord], style: str, data: Any) -> None:
    """Show the outcome for each container whose spec was to change. ``data``: the data for JSON and YAML."""
    show(style, data, lines=lambda: _lines(results, None), rows=lambda: _rows(results))
    _tell_changes(results, style != "table")


def show_results(
    results: Sequence[ResultRecord],
    style: str,
    quiet: bool,
    *,
    seconds: float = 0.0,
    operation: OperationRecord | None = None,
) -> None:
    """Show the outcome for each container."""
    by_name = {result["name"]: result for result in results}
    ordered = [by_name[name] for name in natural_order(by_name)]
    if quiet:
        write("".join(f"{result['name']}\n" for result in ordered if result["changed"]))
        return
    if not ordered and style == "table":
        say(NOTHING_CHOSEN)
    changed = any(result["changed"] for result in ordered)
    data = {"changed": changed, "operation": operation["id"] if operation else None, "results": ordered}
    show(style, data, lines=lambda: _lines(ordered, seconds), rows=lambda: _rows(ordered))


def _lines(results: Sequence[ResultRecord], seconds: float | None) -> list[str]:
    if not results:
        return []
    if len(results) <= SHORT:
        return columns([(result["name"], result["status"]) for result in results])
    counts: dict[str, int] = {}
    for result in results:
        counts[result["status"]] = counts.get(result["status"], 0) + 1
    took = "" if seconds is None else f" in {seconds:.1f} s"
    return [", ".join(f"{count} {status}" for status, count in counts.items()) + took]


def _rows(results: Sequence[ResultRecord]) -> list[list[str]]:
    rows = [["name", "status", "changed", "error"]]
    for result in results:
        error = result["error"]
        changed = str(result["changed"]).lower()
        rows.append([result["name"], result["status"], changed, error["message"] if error else ""])
    return rows


def _cancelled(operation: OperationRecord) -> str:
    errors = [result["error"] for result in operation["results"]]
    done = errors.count(None)
    failed = sum(error is not None and error["code"] != "cancelled" for error in errors)
    failures = f"{failed} failed, " if failed else ""
    return f"lxcfleet: cancelled: {done} done, {failures}{operation['total'] - done - failed} not begun"


def status_of(results: Sequence[ResultRecord]) -> int:
    """The exit status for ``results``."""
    return exit_status(Result.from_json(result) for result in results)
