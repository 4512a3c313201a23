"""Keeps a container that `lxcfleet run` runs in the foreground. Only children of the launcher use this.

The keeper is a process of its own, which the daemon begins and does not need afterwards: it copies the streams of process 1,
passes signals on, hears from the kernel how process 1 ends, and tells the client. So daemon and launcher may be killed, or
exchanged by a new version, and neither the container nor its caller notices. The protocol is ForegroundRequest's.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import time
import tty
from collections.abc import Mapping, Sequence
from typing import Any

from lxcfleet.errors import FleetError
from lxcfleet.host.lxc import liblxc, monitor
from lxcfleet.host.lxc.streams import Copies, InitStreams, LogTail, Terminal
from lxcfleet.host.process import proc
from lxcfleet.host.process.ends import ProcessEnd

TIDY_SECONDS = 10.0
"""The longest time, in seconds, that a monitor may take to tidy up before the client is told of the end all the same."""
HEAR_SECONDS = 1.0
"""The longest time, in seconds, from the end of process 1 to the kernel's word on how it ended."""
_LOOK_SECONDS = 0.02
_NUDGE_SECONDS = 1.0
"""systemd that has just begun may not listen yet, so the signal that shuts it down is sent again."""
_ASKS_TO_END = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
_MESSAGE = 65536


def serve(request: Mapping[str, Any], descriptors: Sequence[int], lxc_path: str) -> None:
    """Serve one run: ``descriptors`` are the client's connection, the daemon's, stdin, stdout and stderr."""
    client, daemon = socket.socket(fileno=descriptors[0]), socket.socket(fileno=descriptors[1])
    client.setblocking(False)
    keeper = _Keeper(request, client, descriptors[2:5], lxc_path)
    try:
        with daemon:
            pid = keeper.begun(daemon)
        if pid is not None:
            keeper.keep(pid)
    except FleetError as error:
        keeper.say({"error": error.body()})


class _Keeper:
    """One run of one container."""

    def __init__(
        self, request: Mapping[str, Any], client: socket.socket, standard: Sequence[int], lxc_path: str
    ) -> None:
        self._name: str = request["name"]
        self._request = request
        self._client: socket.socket | None = client
        self._standard = list(standard)
        self._lxc_path = lxc_path
        self._source: InitStreams | None = LogTail(request["log"], standard[1]) if request["system"] else None
        """The copier of the streams. The log of a console is read from its present end on."""
        self._deadline: float | None = None
        """When process 1 is killed."""
        self._nudge: float | None = None
        """When the signal that shuts a system down is sent again."""
        self._pid = self._process = -1
        """Process 1, and a descriptor of it."""
        self._monitor: int | None = None
        """A descriptor of its monitor; None: that has ended."""
        self._unheard: list[int] = []
        """Signals for process 1 that it would not hear yet."""
        self._go = -1
        """The pipe that lets the command begin."""
        self._waits = False
        """Whether the start waits for something else, which may take any time."""
        self._early: list[int] = []
        """Signals that came before there was a process 1."""

    def say(self, message: Mapping[str, Any], *descriptors: int) -> None:
        """Tell the client something, if it is still there."""
        if self._client is not None:
            with contextlib.suppress(OSError):
                socket.send_fds(self._client, [json.dumps(message).encode()], descriptors)

    # -- its beginning ---------------------------------------------------------------------------------------

    def begun(self, daemon: socket.socket) -> int | None:
        """The pid of process 1, once the daemon has told it. Raises FleetError.

        If the daemon is killed before that, the next one goes on with the start, if that is noted on disk. None: it is not,
        and the client, to whom the connection just ends, asks the next daemon; or nobody waits for the start any more.
        """
        while True:
            ready = self._wait(daemon, None)
            if daemon.fileno() in ready:
                data = daemon.recv(_MESSAGE)
                if not data:
                    return self._found()
                said = json.loads(data)
                if said.get("error"):
                    raise _Told(said["error"])
                if "pid" in said:
                    return int(said["pid"])
                self._waits = True
                self.say({"status": said["waits"]})
            if self._waits and self._is_given_up():
                return None

    def _found(self) -> int | None:
        """The pid of process 1 as liblxc knows it, once the container runs; None: nobody will start it."""
        while not self._is_given_up():
            wanted = os.path.exists(self._request["pending"])
            with contextlib.suppress(FleetError):
                pid = liblxc.init_pid(self._name, self._lxc_path)
                if pid is not None:
                    return pid
            if not wanted:
                return None
            self._wait(None, _LOOK_SECONDS * 5)
        return None

    def _wait(self, daemon: socket.socket | None, seconds: float | None) -> set[int]:
        """Wait for the daemon or the client; what the client says is taken note of."""
        poll = select.poll()
        for each in (daemon, self._client):
            if each is not None:
                poll.register(each, select.POLLIN)
        ready = {descriptor for descriptor, _ in poll.poll(None if seconds is None else seconds * 1000)}
        if self._client is not None and self._client.fileno() in ready:
            self._hear()
        return ready

    def _is_given_up(self) -> bool:
        """Whether the client is gone, or was asked to end, before there was anything to end."""
        ending = [number for number in self._early if number in _ASKS_TO_END]
        if ending:
            self.say({"exit": 128 + ending[0], "renew": False})
        return bool(ending) or self._client is None

    # -- its run ---------------------------------------------------------------------------------------------

    def keep(self, pid: int) -> None:
        """Serve the run of this process 1 to its end, and tell how it ended."""
        self._pid = pid
        try:
            self._process = os.pidfd_open(pid)
        except OSError:  # it has ended, or the daemon saw that already, and gave no pid
            self._tidied()
            self.say({"exit": None, "renew": False})
            return
        family = proc.parent_and_start(pid)
        self._monitor = None if family is None else proc.open_pid(family[0])
        end = _listening(pid)
        self._begin(pid)
        self.say({"started": pid})
        if self._client is None:
            self._left()
        self._pass_on_early()
        self._copy()
        status = _heard(end)
        renew = self._is_to_be_renewed()
        if self._source is not None:
            self._source.finish()
        self._tidied()
        code = None if status is None else self._code(status)
        if self._request["system"]:
            renew = renew or os.path.exists(self._request["pending"])
            self.say({"exit": None, "system": True, "likely": code, "renew": renew})
        else:
            self.say({"exit": code, "renew": renew})

    def _begin(self, pid: int) -> None:
        request = self._request
        if request["system"]:
            return
        if request["tty"]:
            master = liblxc.console(self._name, self._lxc_path)
            tty.setraw(master)  # the console ends lines already, and echoes
            terminal = Terminal(master, pid)
            self.say({"terminal": True}, terminal.master)
            self._source = terminal
            terminal.close_master()
        else:
            out, err = self._standard[1], self._standard[2]
            stdin = self._standard[0] if request["stdin"] else None
            self._source = Copies(request["pipes"], stdin, out, err, request["log"], request["log_bytes"])
        # The command waits for this; see containers.lxc_config.
        self._go = os.open(os.path.join(request["pipes"], "go"), os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def _copy(self) -> None:
        """Copy streams and pass signals on until process 1 has ended."""
        while True:
            poll = select.poll()
            poll.register(self._process, select.POLLIN)
            if self._client is not None:
                poll.register(self._client, select.POLLIN)
            if self._source is not None:
                self._source.register(poll)
            ready = dict(poll.poll(self._patience()))
            if self._process in ready:
                return
            if self._client is not None and self._client.fileno() in ready:
                self._hear()
            if self._source is not None and self._source.serve(ready):
                self._send(signal.SIGPIPE)  # nobody reads the output any more
            self._look_at_the_clock()

    def _patience(self) -> float | None:
        moments = [each for each in (self._deadline, self._nudge) if each is not None]
        pause = None if self._source is None else self._source.pause
        left = [max(0.0, each - time.monotonic()) for each in moments] + ([] if pause is None else [pause])
        left += [_LOOK_SECONDS] if self._unheard else []
        return min(left) * 1000 if left else None

    def _look_at_the_clock(self) -> None:
        now = time.monotonic()
        if self._deadline is not None and now >= self._deadline:
            self._deadline = None
            self._send(signal.SIGKILL)
        if self._nudge is not None and now >= self._nudge:
            self._shut_down()
        self._deliver()

    def _hear(self) -> bool:
        """Take the client's next message; False: it is gone."""
        assert self._client is not None
        try:
            data = self._client.recv(_MESSAGE)
            said = json.loads(data) if data else None
        except BlockingIOError:
            return True
        except OSError:
            said = None
        except ValueError:
            return True
        if not isinstance(said, dict):
            self._client.close()
            self._client = None
            if self._process >= 0:
                self._left()
            return False
        number, size = said.get("signal"), said.get("size")
        if isinstance(number, int) and 0 < number < signal.NSIG:
            if self._process >= 0:
                self._pass_on(number)
            else:
                self._early.append(number)
        if isinstance(self._source, Terminal) and isinstance(size, list):
            self._source.resize(size)
        return True

    def _left(self) -> None:
        """The client was killed: end the container, unless it is to run on."""
        if self._source is not None:
            self._source.leave()
        if self._request["detach"]:
            return
        with contextlib.suppress(OSError):
            os.close(os.open(self._request["left"], os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._deadline = time.monotonic() + self._request["stop_timeout"]
        self._pass_on(self._request["stop_signal"])

    def _pass_on(self, number: int) -> None:
        if self._request["system"] and number in (*_ASKS_TO_END, self._request["stop_signal"]):
            self._shut_down()
        elif self._request["system"]:
            self._send(number)
        else:
            self._unheard.append(number)
            self._deliver()

    def _pass_on_early(self) -> None:
        for number in self._early:
            self._pass_on(number)

    def _deliver(self) -> None:
        """Send process 1 what came for it, once it hears: until then it is a shell, and then tini that sets itself up.

        The kernel drops signals that the first process of a container has no handler for (pid_namespaces(7)), and with them
        a stop that comes while the container starts. tini begins its child when it handles them all (tini.c, main).
        """
        if self._unheard and proc.has_children(self._pid):
            for number in self._unheard:
                self._send(number)
            self._unheard.clear()

    def _shut_down(self) -> None:
        self._send(signal.SIGRTMIN + 3)
        self._nudge = time.monotonic() + _NUDGE_SECONDS

    def _send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._process, number)

    # -- its end ---------------------------------------------------------------------------------------------

    def _is_to_be_renewed(self) -> bool:
        """Whether somebody wants a restart: a rollout, or the operator."""
        try:
            with open(self._request["note"], "rb") as file:
                return bool(json.load(file)["renew"])
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def _tidied(self) -> None:
        """Wait until the container counts as stopped: a monitor that ends closes its socket first, and whoever is told of the
        end by us may ask the daemon at once, which goes by the process."""
        deadline = time.monotonic() + TIDY_SECONDS
        if self._monitor is not None:
            poll = select.poll()
            poll.register(self._monitor, select.POLLIN)
            poll.poll(TIDY_SECONDS * 1000)
        while time.monotonic() < deadline:
            with contextlib.suppress(FleetError):
                if not monitor.runs(self._name, self._lxc_path):
                    return
            time.sleep(_LOOK_SECONDS)

    def _code(self, status: int) -> int:
        """The exit status as a shell has it.

        Of a system container only the daemon knows it for sure: a shutdown or reboot from inside changes the status that the
        monitor gets (reboot(2)), and not the one that the kernel tells others (kernel/pid_namespace.c).
        """
        if os.WIFEXITED(status):
            return os.WEXITSTATUS(status)
        return 128 + os.WTERMSIG(status)


class _Told(FleetError):
    """An error that the daemon told, and that is passed on as it is."""

    def __init__(self, body: Any) -> None:
        super().__init__(body["message"])
        self._body = body

    def body(self) -> Any:
        """The same."""
        return self._body


def _listening(pid: int) -> ProcessEnd | None:
    try:
        return ProcessEnd(pid)
    except OSError:
        return None  # the client asks the daemon then


def _heard(end: ProcessEnd | None) -> int | None:
    if end is None:
        return None
    deadline = time.monotonic() + HEAR_SECONDS
    while (status := end.status()) is None and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS / 10)
    return status
