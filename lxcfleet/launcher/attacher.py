"""The attacher: the process that forks a child for each command in a container: those of users, and checks of health.

It is a launcher with few modules. liblxc forks three times for one command, and each fork costs as much as its process is
large: the page table is copied, and then each page that either side writes. For a copy of the launcher, which has all modules
of the network and of packages, a command takes twice the processor's time.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence

from lxcfleet.host.process import proc
from lxcfleet.launcher import forking
from lxcfleet.launcher.children import commands
from lxcfleet.paths import Paths


def main() -> None:
    """Serve requests from descriptor ``argv[1]`` until the daemon closes it. ``argv[2]`` is the daemon's lock."""
    requests = socket.socket(fileno=int(sys.argv[1]))
    held = requests.fileno(), int(sys.argv[2])
    paths = Paths.from_environment()

    def work(message: bytes, descriptors: Sequence[int]) -> None:
        request, passed = forking.whole(message, descriptors)
        proc.finish(lambda: commands.run(request, passed, paths, held))

    forking.serve(requests, work, "attacher")


if __name__ == "__main__":
    main()
