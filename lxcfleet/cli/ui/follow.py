"""Follow an operation to its end and show its results. Ctrl-C cancels the part that has not begun."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

import click

from lxcfleet.api.client import Client
from lxcfleet.cli.session import connect
from lxcfleet.cli.ui.output import NOTHING_CHOSEN, columns, printable, say, show, write
from lxcfleet.cli.ui.progress import Progress
from lxcfleet.errors import FleetError, NotFound, Unreachable
from lxcfleet.spec.results import Result, exit_status
from lxcfleet.spec.selection import natural_order
from lxcfleet.units import some

if TYPE_CHECKING:
    from lxcfleet.api.records import CreationRecord, OperationRecord, ResultRecord, RolloutRecord

INTERRUPTED = 130

_BAKE = "bake app"
"""The action that a cancellation ends in the middle. Others go on to the end of what they have begun."""
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
    wait: bool = True,
    nothing: str = NOTHING_CHOSEN,
) -> int:
    """Begin an operation by ``begin``, follow it and show its results; gives the exit status. ``update``: whether the
    operation changes existing containers that differ from the request; ``wait``: whether to follow the rollout that
    restarts those of them whose change takes a restart; ``nothing``: what is said if no container is concerned."""
    client = connect(ctx)
    with _Patience() as patience:
        operation = begin(client)
        if not quiet:
            tell_notes(operation)
        if dry_run:
            return _show_plan(operation, style, quiet, update, nothing)
        with Progress(operation["action"], operation["total"]) as progress:
            following = _Following(client, operation, progress)
            try:
                ended = following.to_the_end(patience)
            except KeyboardInterrupt:
                progress.note(f"lxcfleet: left; operation {operation['id']} goes on in the daemon")
                return INTERRUPTED
    results = ended["results"]
    if not update:
        show_results(results, style, quiet, seconds=progress.seconds, operation=ended, nothing=nothing)
        _tell_differences(results, quiet)
        restarted = 0
    else:
        rollout = cast("CreationRecord", operation)["rollout"]
        try:
            record = _restarts(client, rollout, wait=wait and not following.interrupted, quiet=quiet)
        except KeyboardInterrupt:
            say("lxcfleet: left; the rollout that changes the specs goes on: `lxcfleet rollout status`")
            return INTERRUPTED
        taken_back = _settle(results, record, rollout)
        show_results(results, style, quiet, seconds=progress.seconds, operation=ended, more={"rollout": record})
        _tell_changes(results, quiet or style != "table")
        restarted = _tell_restarts(record, quiet or style != "table", taken_back=taken_back)
    _tell_notes(results, quiet)
    if ended["status"] == "cancelled":
        say(_cancelled(ended))
    return INTERRUPTED if following.interrupted else status_of(results) or restarted


def finish(
    ctx: click.Context, operation: OperationRecord, *, style: str, quiet: bool, more: Mapping[str, Any]
) -> int:
    """Follow an operation that was begun, and show its results; gives the exit status. ``more``: see ``show_results``."""
    with Progress(operation["action"], operation["total"]) as progress:
        following = _Following(connect(ctx), operation, progress)
        try:
            ended = following.to_the_end()
        except KeyboardInterrupt:
            progress.note(f"lxcfleet: left; operation {operation['id']} goes on in the daemon")
            return INTERRUPTED
    results = ended["results"]
    show_results(results, style, quiet, seconds=progress.seconds, operation=ended, more=more)
    _tell_notes(results, quiet)
    if ended["status"] == "cancelled":
        say(_cancelled(ended))
    return INTERRUPTED if following.interrupted else status_of(results)


class _Patience:
    """Until ``is_over``, puts the first Ctrl-C off: nothing is followed yet that it could cancel. A second one interrupts at
    once."""

    def __init__(self) -> None:
        self._asked = False
        self._before: Any = signal.SIG_IGN

    def __enter__(self) -> _Patience:
        self._before = signal.getsignal(signal.SIGINT)
        if self._before is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, self._before)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True

    def is_over(self) -> None:
        """From now on each Ctrl-C interrupts; one that was put off does so here. Raises KeyboardInterrupt."""
        self.__exit__()
        if self._asked:
            raise KeyboardInterrupt


class _Following:
    def __init__(self, client: Client, operation: OperationRecord, progress: Progress) -> None:
        self._client = client
        self._operation = operation
        self._id = operation["id"]
        self._progress, self._action = progress, operation["action"]
        self._seen: set[str] = set()
        self.interrupted = False

    def to_the_end(self, patience: _Patience | None = None) -> OperationRecord:
        """The operation once it has ended; a second Ctrl-C raises KeyboardInterrupt. ``patience``: it is over now."""
        try:
            if patience is not None:
                patience.is_over()
            return self._follow()
        except KeyboardInterrupt:
            pass
        self.interrupted = True
        what = "ending the command" if self._action == _BAKE else "finishing what has begun"
        self._progress.note(f"lxcfleet: {what}; Ctrl-C again leaves at once")
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
                    return cast("OperationRecord", item)
                result = cast("ResultRecord", item)
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
        again = "the same command again"
        if self._operation["action"] == "create":
            again = "`create` with -n and how many are missing"
        return Unreachable(
            f"the daemon went away before operation {self._id} had ended",
            why=f"{why}; of the {self._operation['action']}, {done} of {total} were told to be done",
            hint="what had begun is finished once the daemon is back: `lxcfleet events -f` follows that, `lxcfleet list`"
            f" shows how far it is; {again} does the rest",
        )


def _restarts(client: Client, rollout: str | None, *, wait: bool, quiet: bool) -> RolloutRecord | None:
    """The rollout that restarts containers for their changes, or the one that takes it back; with ``wait`` at its end. None:
    there is none, or another one has taken its place."""
    record = client.rollout() if rollout is not None else None
    if record is None or rollout not in (record["id"], record["undoes"]):
        return None
    if wait and record["ended"] is None:
        from lxcfleet.cli.ui import rolling

        return rolling.follow(client, record, quiet=quiet)
    return record


def _settle(results: Sequence[ResultRecord], record: RolloutRecord | None, begun: str | None) -> bool:
    """Tell in the results what became of containers in the rollout of changes; gives whether these were taken back."""
    if record is None:
        return False
    from lxcfleet.cli.ui import rolling

    taken_back = record["undoes"] == begun
    rolling.settle(results, record, taken_back=taken_back)
    return taken_back


def _tell_restarts(record: RolloutRecord | None, quiet: bool, *, taken_back: bool) -> int:
    """Tell how the rollout of changes is; gives its exit status. ``taken_back``: see ``_settle``."""
    if record is None:
        return 0
    from lxcfleet.cli.ui import rolling

    if taken_back:
        raise rolling.tell_taken_back(record)
    if not quiet:
        how = "changed" if all(each["live"] for each in record["containers"]) else "restarted"
        more = ": `lxcfleet rollout status --follow` shows how far" if record["ended"] is None else ""
        say(f"lxcfleet: {record['total']} of them {how} in waves: rollout {record['id']} is {record['status']}{more}")
    return rolling.tell_halt(record)


def _show_plan(operation: OperationRecord, style: str, quiet: bool, update: bool, nothing: str) -> int:
    plan, results = operation["plan"], operation["results"]
    data = {"changed": operation["changed"], "dry_run": True, "plan": plan, "results": results}
    if quiet:
        write("".join(f"{result['name']}\n" for result in results if result["changed"]))
    else:
        rows = [["plan"], *([line] for line in plan)]
        show(style, data, lines=lambda: map(printable, plan), rows=lambda: rows)
        if not results and style == "table":
            say(nothing)
    if not update:
        _tell_differences(results, quiet)
    _tell_notes(results, quiet)
    return status_of(results)


def tell_notes(record: Mapping[str, Any]) -> None:
    """Tell what may keep containers from their work."""
    for note in record.get("notes", ()):
        say(printable(f"lxcfleet: note: {note}"))


def _tell_differences(results: Sequence[ResultRecord], quiet: bool) -> None:
    """Tell the fields in which existing containers differ from the request: one message for all with the same differences."""
    for names, text in [] if quiet else _alike(results, "{key}: {has} (asked: {asked})"):
        say(printable(f"lxcfleet: {names}: not as asked, and left so: {text}"))


def _tell_notes(results: Sequence[ResultRecord], quiet: bool) -> None:
    """Tell what the operator should know: one message for all containers with the same notes."""
    alike: dict[str, list[str]] = {}
    for result in [] if quiet else results:
        for note in result.get("notes", []):
            alike.setdefault(note, []).append(result["name"])
    for note, names in alike.items():
        say(printable(f"lxcfleet: {_some(names)}: {note}"))


def _some(names: Sequence[str]) -> str:
    return some(natural_order(names), _NAMED)


def _tell_changes(results: Sequence[ResultRecord], quiet: bool) -> None:
    """Tell the changed fields of containers: one message for all containers with the same changes."""
    done = [result for result in results if result["status"] not in ("not begun", "taken back")]
    for names, text in [] if quiet else _alike(done, "{key}: {asked} (was: {has})"):
        say(printable(f"lxcfleet: {names}: {text}"))


def tell_planned(results: Sequence[ResultRecord]) -> None:
    """Tell the fields of containers that would be changed, as ``_tell_changes`` does afterwards."""
    for names, text in _alike(results, "{key}: would be {asked} (is: {has})"):
        say(printable(f"lxcfleet: {names}: {text}"))


def _alike(results: Sequence[ResultRecord], form: str) -> Iterator[tuple[str, str]]:
    alike: dict[str, list[str]] = {}
    for result in results:
        parts = [form.format(key=key, has=has, asked=asked) for key, (has, asked) in result.get("differs", {}).items()]
        if parts:
            alike.setdefault("; ".join(parts), []).append(result["name"])
    for text, names in alike.items():
        yield _some(names), text


def show_changes(results: Sequence[ResultRecord], style: str, data: Any) -> None:
    """Show the outcome for each container whose spec was to change. ``data``: the data for JSON and YAML."""
    show(style, data, lines=lambda: _lines(results, None), rows=lambda: _rows(results))
    _tell_changes(results, style != "table")
    _tell_notes(results, style != "table")


def show_results(
    results: Sequence[ResultRecord],
    style: str,
    quiet: bool,
    *,
    seconds: float = 0.0,
    operation: OperationRecord | None = None,
    more: Mapping[str, Any] | None = None,
    nothing: str = NOTHING_CHOSEN,
) -> None:
    """Show the outcome for each container. ``more``: what JSON and YAML have besides."""
    by_name = {result["name"]: result for result in results}
    ordered = [by_name[name] for name in natural_order(by_name)]
    if quiet:
        # An apply names the results of volumes “volume NAME”; other verbs read these names as containers'.
        write("".join(f"{result['name']}\n" for result in ordered if result["changed"] and " " not in result["name"]))
        return
    if not ordered and style == "table":
        say(nothing)
    changed = any(result["changed"] for result in ordered)
    data = {"changed": changed, "operation": operation["id"] if operation else None, "results": ordered, **(more or {})}
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
    rest = "ended before it was done" if operation["action"] == _BAKE else "not begun"
    return f"lxcfleet: cancelled: {done} done, {failures}{max(0, operation['total'] - done - failed)} {rest}"


def status_of(results: Sequence[ResultRecord]) -> int:
    """The exit status for ``results``."""
    return exit_status(Result.from_json(result) for result in results)
