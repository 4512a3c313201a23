"""The fake launcher's booter starts containers as real processes, each with a real monitor process, but without LXC.

Like the real booter it is a process of its own, without threads, so that it forks quickly. A request is one datagram with
a reply socket as descriptor. Its words, with a NUL between them: name, console's file, NAME=VALUE for each variable, an
empty word, and the command. The answer is the pid of process 1, or ``null``.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import select
import signal
import socket
import struct
import sys

SYSTEM = signal.SIGRTMIN + 3
"""The signal that asks systemd to shut down."""
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
"""linux/sched.h. ``os.unshare`` came with Python 3.12."""


def main() -> None:
    """Serve requests from descriptor ``argv[1]`` until it is closed; containers are below ``argv[2]``, and monitors tell
    what happens through the FIFO ``argv[3]``."""
    requests = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        message, descriptors, _, _ = socket.recv_fds(requests, 1 << 16, 1)
        if not message:
            return
        if os.fork() == 0:
            requests.close()
            monitor(message.decode().split("\0"), sys.argv[2], sys.argv[3], socket.socket(fileno=descriptors[0]))
        os.close(descriptors[0])


def tell(fifo: str, kind: int, name: str, value: int) -> None:
    """Write a record as liblxc does; see host.lxc.monitor_fifo. Nobody may be listening."""
    with contextlib.suppress(OSError):
        descriptor = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        os.write(descriptor, struct.pack("@i256si", kind, name.encode(), value))
        os.close(descriptor)


def monitor(words: list[str], lxc_path: str, fifo: str, reply: socket.socket) -> None:
    """Be the container's monitor: listen on the socket where liblxc's monitor would, start process 1, and end with it."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        name, console, *rest = words
        end = rest.index("")
        listener = numbered_after_connections(socket.socket(socket.AF_UNIX))
        listener.bind(f"\0{lxc_path}/{name}/command")
        listener.listen(64)
        tell(fifo, 0, name, 1)
        pid = os.fork()
        if pid == 0:
            reply.close()
            listener.close()
            init(console, dict(each.split("=", 1) for each in rest[:end]), rest[end + 1 :])
        reply.send(str(pid).encode())
        reply.close()
        held = answer_until_end(listener, pid)
        with contextlib.suppress(OSError):  # all of its session; its number is its own until it is waited for
            os.killpg(pid, signal.SIGKILL)
        tell(fifo, 2, name, os.waitpid(pid, 0)[1])
        # liblxc's monitor has a hook that notes who waits, for a daemon that looks too late. This one has none, so the daemon
        # must see either the connections, or no socket at all.
        listener.close()
        for connection in held.values():
            connection.close()
    except OSError as error:
        reply.send(b"null")
        print(f"booter: {error}", file=sys.stderr)
    finally:
        os._exit(0)


def numbered_after_connections(listener: socket.socket) -> socket.socket:
    """The same socket with a higher number than all connections will have, so that who lists them comes to it last."""
    with listener:
        return socket.socket(fileno=fcntl.fcntl(listener, fcntl.F_DUPFD_CLOEXEC, 512))


def answer_until_end(listener: socket.socket, pid: int) -> dict[int, socket.socket]:
    """Take all connections, as many daemons may come while a container runs; until process 1 has ended.

    Returns those that nobody has closed: liblxc's monitor keeps them until it has told of the end.
    """
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    poll.register(os.pidfd_open(pid), select.POLLIN)
    held: dict[int, socket.socket] = {}
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == listener.fileno():
                connection, _ = listener.accept()
                held[connection.fileno()] = connection
                poll.register(connection, 0)  # its end is always told
            elif descriptor in held:
                poll.unregister(descriptor)
                held.pop(descriptor).close()
            else:
                return held


def own_network() -> None:
    """Leave the network of this machine, so that containers may listen on the same port, as real ones may."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET if os.geteuid() == 0 else CLONE_NEWUSER | CLONE_NEWNET) == -1:
        errno = ctypes.get_errno()
        raise OSError(errno, f"network namespace: {os.strerror(errno)}")


def init(console: str, environment: dict[str, str], command: list[str]) -> None:
    """Be process 1, in a session and a network of its own. All processes of the session end with it."""
    try:
        os.setsid()
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        output = os.open(console, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.closerange(3, 256)
        own_network()
        if not command:
            signal.signal(SYSTEM, lambda *_: os._exit(0))
            while True:
                signal.pause()
        os.execvpe(command[0], command, environment)
    finally:
        os._exit(127)


if __name__ == "__main__":
    main()
