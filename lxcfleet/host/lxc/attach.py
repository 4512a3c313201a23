"""Runs a command inside a container, by liblxc's attach. Only children of the attacher and of the launcher use this.

The protocol with the client is api.requests.AttachRequest's.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import _lxc

from lxcfleet.errors import FleetError, WrongState
from lxcfleet.host.kernel import syscalls
from lxcfleet.host.lxc import language, liblxc, monitor
from lxcfleet.host.process import passing, proc

if TYPE_CHECKING:  # the attacher copies itself for each command, and does without what it never calls
    from lxcfleet.host.process.enclosure import Enclosure

NOT_FOUND = 127
NOT_EXECUTABLE = 126
_HANGUP_SECONDS = 3.0
_KEPT = 4096
"""The most bytes of a check's output that are kept."""
_KILLED_SECONDS = 1.0
"""The longest time, in seconds, that a killed command may take to end."""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SHELL = ("/bin/sh", "-c", 'exec "$(getent passwd root | cut -d: -f7)" -l')
"""Starts root's own login shell, according to the container's passwd."""


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of a command, but for its language: no variable of ours gets into the container."""
    root = {"HOME": "/root", "USER": "root", "LOGNAME": "root"}
    return {"PATH": PATH, **root, "container": "lxc", **extra}


def run(request: Mapping[str, Any], descriptors: Sequence[int], lxc_path: str) -> None:
    """Serve one AttachRequest: ``descriptors`` are the client's connection, stdin, stdout and stderr.

    They were received so that no program inherits them, as the command must not have the client's connection.
    """
    client = socket.socket(fileno=descriptors[0])
    standard = list(descriptors[1:4])
    try:
        pid = _start(request, standard, client, lxc_path)
        process = _opened(pid, request["name"])
    except FleetError as error:
        _send(client, {"error": error.body()})
        return
    for descriptor in standard:
        os.close(descriptor)
    status = _watch(pid, process, client)
    _send(client, {"exit": status})


def check(
    name: str, lxc_path: str, command: Sequence[str], variables: Mapping[str, str], timeout: float,
    within: Enclosure | None = None,
) -> tuple[int | None, str]:
    """Run ``command`` inside; returns its exit status, and the end of its output. ``within``: the cgroup that it gets.

    Returns None if it did not end within ``timeout`` seconds: then it and its process group are killed. If it survives that,
    as it waits for a disk or is frozen with its container, it is left alone. Raises FleetError if it can't be started.
    """
    read, write = os.pipe()
    null = os.open(os.devnull, os.O_RDWR)
    try:
        become = _exec(command, environment(variables), [null, write, write])
        pid = _attach(name, lxc_path, become if within is None else _entered(within, become))
    finally:
        os.close(write)
        os.close(null)
    os.set_blocking(read, False)
    process = _opened(pid, name)
    poll = select.poll()
    poll.register(process, select.POLLIN)
    poll.register(read, select.POLLIN)
    text, deadline, ended, closed = b"", time.monotonic() + timeout, False, False
    while not ended and (left := deadline - time.monotonic()) > 0:
        ended = process in {descriptor for descriptor, _ in poll.poll(left * 1000)}
        with contextlib.suppress(BlockingIOError):
            piece = os.read(read, 65536)
            text = (text + piece)[-_KEPT:]
            if not piece and not closed:  # the output may end before the command does
                closed = True
                poll.unregister(read)
    if not ended:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        killed = select.poll()
        killed.register(process, select.POLLIN)
        if not killed.poll(_KILLED_SECONDS * 1000):
            return None, _said(text)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return None if not ended else 128 - code if code < 0 else code, _said(text)


def _said(text: bytes) -> str:
    return text.decode(errors="replace").strip()


def _start(request: Mapping[str, Any], standard: list[int], client: socket.socket, lxc_path: str) -> int:
    command = tuple(request["command"]) or SHELL
    variables = environment(request["environment"])
    if not request["tty"]:
        return _attach(request["name"], lxc_path, _exec(command, variables, standard))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = _attach(request["name"], lxc_path, _exec(command, variables, theirs))
    theirs.close()
    _, terminal = passing.received(ours, 16, 1)
    ours.close()
    with contextlib.suppress(OSError):
        socket.send_fds(client, [b'{"terminal": true}'], terminal)
    for descriptor in terminal:
        os.close(descriptor)
    return pid


def _attach(name: str, lxc_path: str, callback: Callable[[], int]) -> int:
    """Have ``callback`` run inside; the callback has to set up its standard streams itself.

    If liblxc were given the streams and one were a terminal, it would try to make that the controlling terminal, and fail:
    a terminal of the client's belongs to the client's session.
    """
    # Before it loses the rights for that: it shall have the priority that any program has, whatever the daemon has.
    os.setpriority(os.PRIO_PROCESS, 0, 0)
    with monitor.held(name, lxc_path) as lives, open(os.devnull, "r+b", buffering=0) as null:
        container = liblxc.container(name, lxc_path)
        if not container.running:
            raise WrongState(f"{name} is not running", hint=f"start it: lxcfleet start {name}")
        pid: int = container.attach(
            # If the monitor has ended, an impostor may have said which namespaces to enter.
            lambda _: callback() if lives() else NOT_EXECUTABLE,
            None,
            stdin=null.fileno(),
            stdout=null.fileno(),
            stderr=null.fileno(),
            env_policy=_lxc.LXC_ATTACH_CLEAR_ENV,
            initial_cwd="/",
        )
    if pid <= 0:
        why = f"liblxc could not attach; see {lxc_path}/{name}/lxc.log"
        raise FleetError(f"can't run a command in {name}", why=why)
    return pid


def _entered(within: Enclosure, become: Callable[[], int]) -> Callable[[], int]:
    def enter() -> int:
        syscalls.die_with_parent()
        within.enter()
        return become()

    return enter


def _exec(
    command: Sequence[str], variables: dict[str, str], streams: Sequence[int] | socket.socket
) -> Callable[[], int]:
    """Become ``command``. liblxc calls this inside the container, once it has entered it.

    ``streams``: its standard streams, or a socket to which the terminal is sent that it gets instead.
    """

    def become() -> int:
        if isinstance(streams, socket.socket):
            _take_terminal(streams)
        else:
            for number, descriptor in enumerate(streams):
                os.dup2(descriptor, number)
            with contextlib.suppress(PermissionError):  # the process may lead a session already
                os.setsid()  # else what it sends to its process group would go to ours, too
        os.umask(0o022)
        proc.unignore_signals()
        home = variables["HOME"]
        os.chdir(home if os.path.isdir(home) else "/")
        try:
            os.execvpe(command[0], list(command), variables if "LANG" in variables else {**language.variables(), **variables})
        except (FileNotFoundError, NotADirectoryError):
            problem, status = "not found in the container", NOT_FOUND
        except OSError as error:
            problem, status = error.strerror or "can't be executed", NOT_EXECUTABLE
        os.write(2, f"lxcfleet: {command[0]}: {problem}\n".encode(errors="surrogateescape"))
        return status

    return become


def _take_terminal(give: socket.socket) -> None:
    """Make a new terminal of the container's the standard streams, and send its master side to ``give``.

    The terminal is opened inside, so programs find it in the container's /dev/pts. Even if a hostile container puts something
    else there, the client only copies bytes to and from it.
    """
    master, slave = os.openpty()
    socket.send_fds(give, [b"terminal"], [master])
    os.close(master)
    give.close()
    with contextlib.suppress(PermissionError):  # already a session leader
        os.setsid()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for descriptor in range(3):
        os.dup2(slave, descriptor)
    if slave > 2:
        os.close(slave)


def _opened(pid: int, name: str) -> int:
    """A descriptor of the process that, by liblxc's answer, runs the command. Raises WrongState if that process is gone,
    for instance because the container is stopped at that moment."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        raise WrongState(f"the command was not run in {name}", why="the container ended at that moment") from None


def _watch(pid: int, process: int, client: socket.socket) -> int:
    """Pass on the client's signals until the command ends; returns its exit status, or 128 + N if signal N ended it."""
    poll = select.poll()
    poll.register(process, select.POLLIN)
    poll.register(client, select.POLLIN | select.POLLHUP)
    patience: float | None = None
    while True:
        ready = {descriptor for descriptor, _ in poll.poll(patience)}
        if process in ready:
            break
        if not ready:
            os.kill(pid, signal.SIGKILL)
            patience = None
            continue
        message = _receive(client)
        if message is None:  # the client is gone
            os.kill(pid, signal.SIGHUP)
            poll.unregister(client)
            patience = _HANGUP_SECONDS * 1000
        elif isinstance(message.get("signal"), int) and 0 < message["signal"] < signal.NSIG:
            os.kill(pid, message["signal"])
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return 128 - code if code < 0 else code


def _receive(client: socket.socket) -> dict[str, Any] | None:
    try:
        data = client.recv(4096)
        message = json.loads(data) if data else None
    except OSError:
        return None
    except ValueError:
        return {}
    return message if isinstance(message, dict) or message is None else {}


def _send(client: socket.socket, message: Mapping[str, Any]) -> None:
    with contextlib.suppress(OSError):
        client.send(json.dumps(message).encode())
