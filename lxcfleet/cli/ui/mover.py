"""The move of one container to another host, as the command line leads it: by ssh there, and by the daemon here."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lxcfleet.api.client import Client
from lxcfleet.api.moves import CheckArrivalRequest, MoveContainer, MoveMessage, MoveRecord, OfferRecord, OfferRequest
from lxcfleet.cli.ui import output, ssh
from lxcfleet.cli.ui.attach import received
from lxcfleet.cli.ui.meter import Meter
from lxcfleet.cli.ui.ssh import Way
from lxcfleet.errors import Busy, Conflict, FleetError, InvalidInput, Unreachable, WrongState, from_body
from lxcfleet.spec import moves
from lxcfleet.spec.moves import Journal, MoveStep, Next

_NEXT_DAEMON, _AGAIN = 60.0, 0.5
"""For so many seconds the next daemon is waited for, and after so many it is asked again."""
_NO_LINE, _LINE_AGAIN = 60.0, 5.0
"""The same for the other host, if what became of the container is not known."""


@dataclass(frozen=True)
class How:
    """How containers are moved."""

    way: Way
    keep: bool = False
    timeout: float = 120.0
    dry_run: bool = False


@dataclass
class Outcome:
    """The outcome of a move for one container."""

    name: str
    status: str
    error: FleetError | None = None
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """As ``-f json`` has it."""
        error = None if self.error is None else self.error.body()
        changed = self.error is None and self.status != "planned"
        return {"name": self.name, "status": self.status, "changed": changed, "error": error, "notes": self.notes}


class _DaemonGone(Unreachable):
    """The daemon here ended in the middle of a move."""


class _Unknown(Unreachable):
    """The fate of a container that was handed over is not known."""


class _Lost(Conflict):
    """The container that was handed over is not on the other host any more."""


class Mover:
    """The move of one container, as this side leads it."""

    def __init__(self, client: Client, name: str, how: How, move: str = "") -> None:
        self._client, self._name, self._how = client, name, how
        self._id = move or secrets.token_hex(8)
        self._ran = True
        """Whether it is to run there."""
        self._meter = Meter()
        self._notes: list[str] = []

    # -- what is asked of the other host ---------------------------------------------------------------------

    def _there(self, do: str, *more: str) -> Any:
        return ssh.ask(self._how.way, ["lxcfleet", "receive", do, self._name, self._id, *more])

    def _status(self) -> Journal | None:
        return _journal(self._there("status"))

    def _grant(self) -> None:
        self._tell_of_its_start()
        self._there("grant", "--timeout", f"{self._how.timeout:g}")

    def _tell_of_its_start(self) -> None:
        self._tell("starts there" if self._ran else "was stopped, and stays so there")

    def _tell(self, what: str) -> None:
        output.say(output.printable(f"lxcfleet: {self._name}: {what}"))

    # -- from the beginning ----------------------------------------------------------------------------------

    def begin(self) -> Outcome:
        """Move it. Raises FleetError."""
        offer = self._client.offer_move(OfferRequest(self._name, self._how.keep))
        self._check(offer)
        self._ran = offer["ran"]
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
            # The line may have been cut since then, and be there again: what was copied is not copied anew for that.
            starting = (lambda: ssh.result(waiting)) if waiting.runs() else self._grant
            try:
                self._say(connection, "hand")
            except Unreachable:
                raise  # whether it was handed over, the journal says
            except FleetError:
                self._clear()
                raise
            self._tell_of_its_start()
            self._finish(connection, Next.GRANT, starting)

    def _after_the_daemon(self, error: FleetError) -> Outcome:
        """The daemon here was killed in the middle. The next one knows from the journal whose the container is; go on with
        what was handed over. Raises FleetError."""
        deadline, handed = time.monotonic() + _NEXT_DAEMON, False
        while True:
            try:
                record = next((each for each in self._client.moves() if each["name"] == self._name), None)
                if record is None or record["id"] != self._id or record["authority"]:
                    raise error
                handed = True
                self._tell("the daemon here has ended, and another one goes on")
                return self.go_on(record)
            except (Unreachable, Busy) as another:
                if another is error or isinstance(another, _Unknown):
                    raise
                if time.monotonic() > deadline:
                    raise (self._unknown(another) if handed else error) from another
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
                if there is None or there.step is not MoveStep.RECEIVED:
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
            if message.get("step") == "stopping":
                if self._ran:
                    self._tell("is stopped here")
            elif message.get("step"):
                self._tell("is copied")
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
                self._start_there(grant)
            except (_Unknown, _Lost):
                raise
            except (FleetError, KeyboardInterrupt) as error:
                self._give_up(connection, error)
            following = Next.NOTE
        if following is Next.NOTE:
            self._say(connection, "healthy")
        self._say(connection, "keep" if self._how.keep else "end")

    def _start_there(self, grant: Callable[[], object]) -> None:
        """Have it start there, and wait until it is healthy. Raises FleetError.

        A line that is cut tells nothing of the container, which may run there, and well: so the other host is asked how far
        it is, and told again. Another ``receive grant`` may be at work there, whose ssh is gone: that one is waited for.
        """
        deadline, pause = time.monotonic() + self._how.timeout + _NO_LINE, 0.0
        while True:
            try:
                grant()
                return
            except FleetError as error:
                cut = isinstance(error, Unreachable | Busy)
                following = self._after_failure(error, cut=cut)
                if following is Next.NOTE:
                    return
                if following is Next.REVOKE:
                    raise
                if time.monotonic() > deadline:
                    raise self._unknown(error) from error
            time.sleep(pause)
            grant, pause = self._grant, _LINE_AGAIN

    def _after_failure(self, error: FleetError, *, cut: bool) -> Next:
        """The next step by the status of the other host, after it was to start the container. Raises _Unknown, _Lost."""
        if cut:
            what = "something else is at work on it" if isinstance(error, Busy) else error.message
            self._tell(f"{what}; {self._how.way.host} is asked how far it is")
        try:
            there = self._reaching(self._status)
        except FleetError as second:
            raise self._unknown(error, second) from second
        following = moves.after_failure(there, self._id, cut=cut)
        if following is Next.LOST:
            raise self._lost() from error
        return following

    def _settle(self) -> Outcome:
        with contextlib.suppress(FleetError):  # it only forgets what is over
            self._there("settle")
        kept = ["its files stay here, and do not start"] if self._how.keep else []
        return Outcome(self._name, "moved", None, [*self._notes, *kept])

    def _give_up(self, connection: socket.socket, error: BaseException) -> None:
        """It does not become healthy there: have it run here again, if the other host can be reached. Raises FleetError.

        It returns only if the other host has noted by then that it is healthy there, and so does not give it back.
        """
        why = error if isinstance(error, FleetError) else FleetError("it was interrupted")
        try:
            left = self._reaching(lambda: self._there("revoke"))
        except Conflict:
            self._tell(f"is healthy there by now, and stays: {why.message}")
            return
        except FleetError as second:
            raise self._unknown(why, second) from error
        told = self._say(connection, "back")
        self._notes_of(told)
        stays = f"; what ran on {self._how.way.host} stays there, stopped" if left is not None else ""
        raise WrongState(
            f"{self._name} is not moved, and is here again{stays}", why=f"{why.message}{': ' if why.why else ''}{why.why}",
            hint=why.hint,
        ) from error  # fmt: skip

    def _unknown(self, why: FleetError, second: FleetError | None = None) -> _Unknown:
        more = f"; {second.message}" if second is not None and second.message != why.message else ""
        return _Unknown(
            f"{self._name} was handed to {self._how.way.host}, and what became of it is not known",
            why=f"{why.message}{': ' if why.why else ''}{why.why}{more}",
            hint=f"it starts here no more: once that host is there, lxcfleet move {self._name} --continue, or --abort",
        )  # fmt: skip

    def _lost(self) -> _Lost:
        return _Lost(
            f"{self._name} is not on {self._how.way.host} any more, and belongs there", why="somebody removed it there",
            hint=f"have it run here again, with the files that are here: lxcfleet move {self._name} --abort",
        )  # fmt: skip

    def _reaching(self, work: Callable[[], Any]) -> Any:
        """The answer that ``work`` gets from the other host, once that can be reached, and is at work on the container no
        more: a line may be cut for a moment."""
        deadline = time.monotonic() + _NO_LINE
        while True:
            try:
                return work()
            except (Unreachable, Busy) as error:
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
        self._ran = record["ran"]
        following = moves.onward(here, there, self._id)
        if following is Next.DONE:
            return self._settle()
        if following is Next.LOST:
            raise self._lost()
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
