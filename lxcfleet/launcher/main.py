"""The launcher: the process that forks a child for each call of liblxc and each change of mounts.

liblxc holds Python's global lock while it works and is not safe in threads, so the daemon never calls it. All
children share the launcher's mount namespace, where the mask is mounted, and which goes when the launcher does.

One request is one datagram: an operation's name and its argument, with a reply socket and any other descriptors.
A request too large for a datagram comes in a memfd. The child answers on the reply socket, and no other process keeps a
copy of it. So when the socket closes without an answer, the daemon knows that the child died.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
from pathlib import Path

from lxcfleet.host.kernel import home, syscalls
from lxcfleet.launcher.children import run
from lxcfleet.launcher.children.answer import MAX_DATAGRAM
from lxcfleet.launcher.children.preparing import CHILD_SECONDS
from lxcfleet.paths import Paths


def main() -> None:
    """Serve requests from descriptor ``argv[1]`` until the daemon closes it."""
    requests = socket.socket(fileno=int(sys.argv[1]))
    # argv[2] is the daemon's lock: open here and in the children, so that the lock is
    # free only once nobody works for the old daemon any more.
    paths = Paths.from_environment()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    home.keep()
    syscalls.unshare_mounts()
    syscalls.make_slave(Path("/"))
    gc.collect()
    gc.disable()
    gc.freeze()
    while True:
        message, descriptors, _, _ = socket.recv_fds(requests, MAX_DATAGRAM, 8)
        if not message and not descriptors:
            return
        if _fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.alarm(CHILD_SECONDS)
            run.run(message, descriptors, paths, (requests.fileno(), int(sys.argv[2])))
        for descriptor in descriptors:
            os.close(descriptor)


def _fork() -> int:
    """Like os.fork, but -1 if the host has no room for another process: the request stays unanswered then.

    If this process ended, its mounted mask would go, too; to mount that again takes many more processes.
    """
    try:
        return os.fork()
    except OSError as error:
        print(f"lxcfleet.launcher: fork: {error.strerror}", file=sys.stderr, flush=True)
        return -1


if __name__ == "__main__":
    main()
