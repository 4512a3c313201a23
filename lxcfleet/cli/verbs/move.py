"""move."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import click

from lxcfleet.api.client import Client
from lxcfleet.api.moves import (
    CheckArrivalRequest,
    ForgetMoveRequest,
    MoveContainer,
    MoveMessage,
    MoveRecord,
    OfferRecord,
    OfferRequest,
)
from lxcfleet.cli import complete, options
from lxcfleet.cli.session import connect
from lxcfleet.cli.statuses import SOME_FAILED
from lxcfleet.cli.ui import output, ssh
from lxcfleet.cli.ui.attach import received
from lxcfleet.cli.ui.meter import Meter
from lxcfleet.cli.ui.ssh import Way
from lxcfleet.errors import Busy, Conflict, FleetError, InvalidInput, NotFound, Unreachable, WrongState, from_body
from lxcfleet.spec import moves
from lxcfleet.spec.moves import Journal, Next, Step, check_host
from lxcfleet.spec.reading.names import check_name

_NEXT_DAEMON, _AGAIN = 60.0, 0.5
"""For so many seconds the next daemon is waited for, and after so many it is asked again."""
_NO_LINE, _LINE_AGAIN = 60.0, 5.0
"""The same for the other host, if what became of the container is not known."""
_FIELDS = ("name", "step", "host", "since", "authority")


@dataclass(frozen=True)
class How:
    """How containers are moved."""

    way: Way
    keep: bool = False
    timeout: float = 120.0
    dry_run: bool = False


@dataclass
class Outcome:
    """What became of one container."""

    name: str
    status: str
    error: FleetError | None = None
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """As ``-f json`` has it."""
        error = None if self.error is None else self.error.body()
        changed = self.error is None and self.status != "planned"
        return {"name": self.name, "status": self.status, "changed": changed, "error": error, "notes": self.notes}


@click.command()
@click.argument("words", nargs=-1, metavar="[NAME|GLOB]... [USER@]HOST", shell_complete=complete.names)
@options.labelled("Only those that have this label; may be repeated.")
@click.option("--all", "everything", is_flag=True, help="All containers.")
@click.option("--continue", "onward", is_flag=True, help="Go on with moves that were broken off; no HOST is named.")
@click.option("--abort", is_flag=True, help="Take moves back that were broken off; no HOST is named.")
@click.option("--forget", is_flag=True, help="You know that it runs nowhere else: it belongs to this host.")
@click.option("--list", "listed", is_flag=True, help="Only show the moves that are not over.")
@click.option("--keep", is_flag=True, help="Keep its files here in the end, as a copy that does not start.")
@click.option("--timeout", type=options.Time(1, 86400), default=120.0, metavar="TIME",
              help="How long it may take there to become healthy; default: 120.")
@click.option("--port", type=click.IntRange(1, 65535), default=None, metavar="PORT", help="Of ssh.")
@click.option("--ssh-config", "config", type=click.Path(exists=True, dir_okay=False, resolve_path=True), default=None,
              metavar="FILE", help="ssh's configuration, in the place of the usual one.")
@options.dry_run
@options.formatted
@options.quiet("Print only the names of those that were moved.")
@click.pass_context
def move(
    ctx: click.Context, /, *, words: tuple[str, ...], labels: tuple[str, ...], everything: bool, onward: bool, abort: bool,
    forget: bool, listed: bool, keep: bool, timeout: float, port: int | None, config: str | None,
    dry_run: bool, style: str, quiet: bool,
) -> int:  # fmt: skip
    """Move containers to another host by ssh.

    A container is stopped, its archive goes to `lxcfleet import` on the other host, and it starts there. Once that host has
    said that it is healthy, it is removed here; --keep keeps its files. If it does not become healthy, it runs here again.
    Both hosts note each step, so that never both run it: after anything was killed or a line was cut, `--continue` goes on,
    and `--abort` takes it back. The other host needs lxcfleet, of this release or a newer one, room, the container's secrets,
    apps and volumes, and a key of yours; ssh has to know its host key. Snapshots do not go along.

    \b
    Examples:
      lxcfleet move web1 root@other
      lxcfleet move --all root@other
      lxcfleet move --list
      lxcfleet move web1 --continue
    """
    said = {"--continue": onward, "--abort": abort, "--forget": forget, "--list": listed}
    chosen = [option for option, value in said.items() if value]
    if len(chosen) > 1:
        raise InvalidInput(f"{chosen[0]} and {chosen[1]} exclude each other", hint="leave out one of them")
    if chosen and dry_run:
        options.refuse(["--dry-run"], f"{chosen[0]} does what the journal says", "leave it out; --list shows the journal")
    client = connect(ctx)
    if listed:
        return _list(client, words, style)
    if chosen:
        return _go_on(client, words, chosen[0], How(Way(""), keep, timeout=timeout), (style, quiet))
    if not words or (len(words) == 1 and not everything and not labels):
        raise click.UsageError("name containers, and last the host to which they go", ctx)
    how = How(Way(check_host(words[-1]), port or 0, config or ""), keep, timeout, dry_run)
    selection = options.selection(words[:-1], labels, everything)
    names = [each["name"] for each in client.containers(selection)]
    if not names:
        output.say(output.NOTHING_CHOSEN)
    return _show([_attempt(name, lambda name: _Move(client, name, how).begin()) for name in names], style, quiet)


def _go_on(client: Client, names: Sequence[str], option: str, how: How, shown: tuple[str, bool]) -> int:
    if not names:
        raise InvalidInput("no container chosen", hint="give the names that `lxcfleet move --list` shows")
    records = {each["name"]: each for each in client.moves()}

    def one(name: str) -> Outcome:
        check_name(name)
        if option == "--forget":
            record = client.forget_move(ForgetMoveRequest(name))
            return Outcome(name, "forgotten", notes=[f"it was {record['step']}, with {record['host']}"])
        if name not in records:
            raise NotFound(f"{name} does not move", hint="`lxcfleet move --list` shows those that do")
        record = records[name]
        if not record["away"]:
            raise WrongState(
                f"{name} came from {record['host']}, which leads its move", why=f"here it is {record['step']}",
                hint=f"there: lxcfleet move {name} {option}; if that host is lost, here: lxcfleet move {name} --forget",
            )  # fmt: skip
        way = Way(record["host"], record["port"], record["config"])
        each = _Move(client, name, How(way, how.keep, timeout=how.timeout), record["id"])
        return each.go_on(record) if option == "--continue" else each.abort(record)

    return _show([_attempt(name, one) for name in names], *shown)


def _attempt(name: str, work: Any) -> Outcome:
    try:
        outcome: Outcome = work(name)
    except FleetError as error:
        outcome = Outcome(name, "failed", error)
        output.say_error(error, name)
    for note in outcome.notes:
        output.say(output.printable(f"lxcfleet: {name}: {note}"))
    return outcome


class _DaemonGone(Unreachable):
    """The daemon here ended in the middle of a move."""


class _Move:
    """The move of one container, as this side leads it."""

    def __init__(self, client: Client, name: str, how: How, move: str = "") -> None:
        self._client, self._name, self._how = client, name, how
        self._id = move or secrets.token_hex(8)
        self._meter = Meter()
        self._notes: list[str] = []

    # -- what is asked of the other host ---------------------------------------------------------------------

    def _there(self, do: str, *more: str) -> Any:
        return ssh.ask(self._how.way, ["lxcfleet", "receive", do, self._name, self._id, *more])

    def _status(self) -> Journal | None:
        return _journal(self._there("status"))

    def _grant(self) -> None:
        self._tell("starts there")
        self._there("grant", "--timeout", f"{self._how.timeout:g}")

    def _tell(self, what: str) -> None:
        output.say(output.printable(f"lxcfleet: {self._name}: {what}"))

    # -- from the beginning ----------------------------------------------------------------------------------

    def begin(self) -> Outcome:
        """Move it. Raises FleetError."""
        offer = self._client.offer_move(OfferRequest(self._name, self._how.keep))
        self._check(offer)
        self._notes += offer["notes"]
        if self._how.dry_run:
            return Outcome(self._name, "planned", None, [*self._notes, f"{output.size(offer['bytes'])} would be moved"])
        try:
            self._send(offer)
        except _DaemonGone as error:
            return self._after_the_daemon(error)
        return self._settle()

    def _send(self, offer: OfferRecord) -> None:
        """Copy it, hand it over, and go on to the end. Raises FleetError.

        The command line that starts it there waits all the while, and the daemon here tells it of the hand-over itself: from
        then on it starts there, whatever becomes of us.
        """
        grant = ["lxcfleet", "receive", "grant", self._name, self._id, "--timeout", f"{self._how.timeout:g}", "--when-told"]
        with contextlib.ExitStack() as opened, ssh.running(self._how.way, grant) as waiting:
            connection = self._copy(offer, opened, waiting)
            try:
                self._say(connection, "hand")
            except Unreachable:
                raise  # whether it was handed over, the journal says
            except FleetError:
                self._clear()
                raise
            self._tell("starts there")
            self._finish(connection, Next.GRANT, lambda: ssh.result(waiting))

    def _after_the_daemon(self, error: FleetError) -> Outcome:
        """The daemon here was killed in the middle. The next one knows from the journal whose the container is; go on with
        what was handed over. Raises FleetError."""
        deadline = time.monotonic() + _NEXT_DAEMON
        while True:
            try:
                record = next((each for each in self._client.moves() if each["name"] == self._name), None)
                if record is None or record["id"] != self._id or record["authority"]:
                    raise error
                self._tell("the daemon here has ended, and another one goes on")
                return self.go_on(record)
            except (Unreachable, Busy) as another:
                if another is error or time.monotonic() > deadline:
                    raise
                time.sleep(_AGAIN)

    def _check(self, offer: OfferRecord) -> None:
        """Ask the other host whether it can come. What a former move left there goes first. Raises FleetError."""
        keys = ("name", "protocol", "version", "origin", "bytes", "spec")
        own: dict[str, Any] = {**offer}
        question = {key: own[key] for key in keys}
        CheckArrivalRequest.from_json(question)
        for last in (False, True):
            answer = ssh.ask(self._how.way, ["lxcfleet", "receive", "check"], question)
            left = str((answer or {}).get("left") or "")
            if not left:
                self._notes += [str(each) for each in _list_in(answer or {}, "notes")]
                return
            if self._how.dry_run:
                self._notes.append("what a move that was broken off left there would be removed first")
                return
            if last:
                break
            ssh.ask(self._how.way, ["lxcfleet", "receive", "revoke", self._name, moves.check_id(left)])
        raise Conflict(f"{self._name} is not moved", why="what a former move left on the other host can't be removed")

    def _copy(self, offer: OfferRecord, opened: contextlib.ExitStack, waiting: ssh.Running) -> socket.socket:
        """Have it stopped here and copied there; gives the connection to the daemon. Raises FleetError: then it runs here.

        ``waiting``: the command line there that the daemon tells of the hand-over."""
        origin = {"id": self._id, "origin": offer["origin"], "ran": offer["ran"]}
        more = [] if offer["ran"] else ["--no-start"]
        words = ["lxcfleet", "import", "--trusted", *more, "-f", "json", "--moved", json.dumps(origin), "-"]
        with ssh.running(self._how.way, words) as other:
            connection = opened.enter_context(self._attach(other.stdin, waiting.stdin, onward=False))
            other.close_stdin()
            waiting.close_stdin()  # the daemon alone has it
            try:
                self._until_sent(connection)
                self._notes += _imported(other)
                there = self._status()
                if there is None or there.step is not Step.RECEIVED:
                    raise WrongState(f"{self._name} did not arrive", why="the other host does not know it")
            except BaseException as error:
                opened.close()  # the daemon has it run here again
                failure = _reason(other, error)
                self._clear()
                if failure is not None:
                    raise failure from error
                raise
        return connection

    def _until_sent(self, connection: socket.socket) -> None:
        while True:
            message = self._hear(connection)
            if message.get("step") == "sent":
                self._meter.clear()
                return
            if message.get("step"):
                self._tell("is stopped here" if message["step"] == "stopping" else "is copied")
            self._meter.show(self._name, message.get("bytes", 0))

    def _clear(self) -> None:
        """Have the other host remove the copy, which never ran."""
        with contextlib.suppress(FleetError):
            self._there("revoke")

    # -- what both ways have ---------------------------------------------------------------------------------

    def _attach(self, archive: int = -1, grant: int = -1, *, onward: bool) -> socket.socket:
        way = self._how.way
        request: MoveContainer = {
            "move": self._name, "id": self._id, "host": way.host, "port": way.port, "config": way.config, "onward": onward,
        }  # fmt: skip
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            return self._client.attach(request, (null, null if archive < 0 else archive, null if grant < 0 else grant))
        finally:
            os.close(null)

    def _hear(self, connection: socket.socket) -> MoveMessage:
        data = received(connection)
        if not data:
            raise _DaemonGone(
                f"{self._name}: the daemon went away in the middle of a move", why="it closed the connection",
                hint="`lxcfleet move --list` shows how far that is; if it is there: lxcfleet move NAME --continue",
            )  # fmt: skip
        message: MoveMessage = json.loads(data)
        if "error" in message:
            raise from_body(message["error"])
        return message

    def _say(self, connection: socket.socket, what: str) -> MoveMessage:
        try:
            connection.send(json.dumps({"do": what}).encode())
        except OSError as error:
            raise _DaemonGone(f"{self._name}: the daemon went away in the middle of a move", why=str(error)) from error
        return self._hear(connection)

    def _finish(self, connection: socket.socket, following: Next, grant: Callable[[], object]) -> None:
        """From the hand-over to the end. ``grant``: has it start there, and ends once it is healthy. If it does not become
        that, it is taken back. Raises FleetError."""
        if following is Next.GRANT:
            try:
                grant()
            except (FleetError, KeyboardInterrupt) as error:
                raise self._give_up(connection, error) from error
            following = Next.NOTE
        if following is Next.NOTE:
            self._say(connection, "healthy")
        self._say(connection, "keep" if self._how.keep else "end")

    def _settle(self) -> Outcome:
        with contextlib.suppress(FleetError):  # it only forgets what is over
            self._there("settle")
        kept = ["its files stay here, and do not start"] if self._how.keep else []
        return Outcome(self._name, "moved", None, [*self._notes, *kept])

    def _give_up(self, connection: socket.socket, error: BaseException) -> FleetError:
        """It does not become healthy there: have it run here again, if the other host can be reached. Gives the error."""
        why = error if isinstance(error, FleetError) else FleetError("it was interrupted")
        try:
            left = self._reaching(lambda: self._there("revoke"))
        except FleetError as second:
            return Unreachable(
                f"{self._name} was handed to {self._how.way.host}, and what became of it is not known",
                why=f"{why.message}{': ' if why.why else ''}{why.why}; {second.message}",
                hint=f"it starts here no more: once that host is there, lxcfleet move {self._name} --continue, or --abort",
            )  # fmt: skip
        told = self._say(connection, "back")
        self._notes_of(told)
        stays = f"; what ran on {self._how.way.host} stays there, stopped" if left is not None else ""
        return WrongState(
            f"{self._name} is not moved, and is here again{stays}", why=f"{why.message}{': ' if why.why else ''}{why.why}",
            hint=why.hint,
        )  # fmt: skip

    def _reaching(self, work: Callable[[], Any]) -> Any:
        """What ``work`` asks of the other host, once that can be reached again: a line may be cut for a moment."""
        deadline = time.monotonic() + _NO_LINE
        while True:
            try:
                return work()
            except Unreachable as error:
                if time.monotonic() > deadline:
                    raise
                self._tell(f"{error.message}; it is tried again")
                time.sleep(_LINE_AGAIN)

    def _notes_of(self, message: MoveMessage) -> None:
        for note in message.get("notes", []):
            self._tell(note)

    # -- what was broken off ---------------------------------------------------------------------------------

    def go_on(self, record: MoveRecord) -> Outcome:
        """Go on with it. Raises FleetError."""
        here, there = _journal(record), self._status()
        following = moves.onward(here, there, self._id)
        if following is Next.DONE:
            return self._settle()
        if following is Next.LOST:
            raise Conflict(
                f"{self._name} is not on {self._how.way.host} any more, and belongs there", why="somebody removed it there",
                hint=f"have it run here again, with the files that are here: lxcfleet move {self._name} --abort",
            )  # fmt: skip
        if following in (Next.ANEW, Next.CLEAR, Next.HAND):
            raise WrongState(f"{self._name} is not moved at the moment", hint="move it anew: it belongs to this host")
        with self._attach(onward=True) as connection:
            if following is Next.BACK:
                self._notes_of(self._say(connection, "back"))
                return Outcome(self._name, "back")
            self._finish(connection, following, self._grant)
        return self._settle()

    def abort(self, record: MoveRecord) -> Outcome:
        """Take it back. Raises FleetError."""
        here, there = _journal(record), self._status()
        following = moves.backward(here, there, self._id)
        if following is Next.STAYS:
            raise Conflict(
                f"{self._name} runs on {self._how.way.host}, and is healthy there", why="so its move is not taken back",
                hint=f"end it: lxcfleet move {self._name} --continue; then move it back from there",
            )  # fmt: skip
        with self._attach(onward=True) as connection:
            left = self._there("revoke") if following is Next.REVOKE else None
            self._notes_of(self._say(connection, "back"))
        stays = [f"what ran on {self._how.way.host} stays there, stopped"] if left is not None else []
        return Outcome(self._name, "back", None, stays)


def _imported(other: ssh.Running) -> list[str]:
    """The notes of an import on the other host. Raises FleetError if it failed."""
    result = other.answer()
    found = [each for each in _list_in(result, "results") if isinstance(each, dict)]
    for body in [result.get("error"), *(each.get("error") for each in found)]:
        if body:
            raise ssh.error_of(other.way, body)
    return [str(note) for each in found for note in _list_in(each, "notes")]


def _list_in(said: Mapping[str, Any], key: str) -> list[Any]:
    """A list in what the other host says; empty where it has something else there."""
    found = said.get(key)
    return found if isinstance(found, list) else []


def _reason(other: ssh.Running, error: BaseException) -> FleetError | None:
    """Why the other host did not take all of the archive, if that is why the export failed here."""
    if not isinstance(error, FleetError) or isinstance(error, Unreachable) or other.answered:
        return None
    try:
        _imported(other)
    except FleetError as found:
        return found
    return None


def _journal(record: MoveRecord | None) -> Journal | None:
    if record is None:
        return None
    try:
        return moves.parse(json.dumps({key: record[key] for key in Journal.__dataclass_fields__}))  # type: ignore[literal-required]
    except (KeyError, ValueError) as error:
        raise InvalidInput("what the other host says of the move makes no sense", why=str(error)) from error


# -- what is shown ------------------------------------------------------------------------------------------------


def _list(client: Client, names: Sequence[str], style: str) -> int:
    records = [each for each in client.moves() if not names or each["name"] in names]
    texts = [[each["name"], each["step"], each["host"], each["since"], _belongs(each)] for each in records]
    rows = [[*_FIELDS], *texts]
    output.show(style, records, lines=lambda: output.columns(rows) if texts else [], rows=lambda: rows)
    return 0


def _belongs(record: MoveRecord) -> str:
    return "here" if record["authority"] else "there"


def _show(outcomes: Sequence[Outcome], style: str, quiet: bool) -> int:
    done = [each for each in outcomes if each.error is None]
    if quiet:
        output.write("".join(f"{each.name}\n" for each in done))
    else:
        rows = [["name", "status"], *([each.name, each.status] for each in outcomes)]
        data = {"changed": any(each.to_json()["changed"] for each in outcomes), "results": [e.to_json() for e in outcomes]}
        output.show(style, data, lines=lambda: output.columns(rows[1:]) if outcomes else [], rows=lambda: rows)
    if len(done) == len(outcomes):
        return 0
    errors = [each.error.exit_status for each in outcomes if each.error is not None]
    return SOME_FAILED if done else errors[0]


VERBS = {"move": move}
