"""The launcher: the process that forks a child for each call of liblxc and each change of mounts.

liblxc holds Python's global lock while it works and is not safe in threads, so the daemon never calls it. All
children share the launcher's mount namespace, where the mask is mounted, and which goes when the launcher does.
"""

from __future__ import annotations

import socket
import sys

from lxcfleet.host.kernel import home, syscalls
from lxcfleet.launcher import forking
from lxcfleet.launcher.children import run
from lxcfleet.paths import Paths


def main() -> None:
    """Serve requests from descriptor ``argv[1]`` until the daemon closes it."""
    requests = socket.socket(fileno=int(sys.argv[1]))
    # argv[2] is the daemon's lock: open here and in the children, so that the lock is
    # free only once nobody works for the old daemon any more.
    held = requests.fileno(), int(sys.argv[2])
    paths = Paths.from_environment()
    home.keep()
    syscalls.unshare_mounts()
    forking.serve(requests, lambda message, descriptors: run.run(message, descriptors, paths, held), "main")


if __name__ == "__main__":
    main()
