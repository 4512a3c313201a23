"""A daemon over a fake launcher in a process of its own: another host for moves. ``python -m … DIRECTORY``.

It says ``ready``, then the states of its containers for each line on stdin, and ends with stdin.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from .real_daemon import Daemon

if __name__ == "__main__":
    with Daemon(Path(sys.argv[1])) as daemon:
        daemon.call(daemon.parts.moves.recover)
        print("ready", flush=True)
        for _ in sys.stdin:
            found = daemon.call(lambda: {each.name: str(each.state) for each in daemon.parts.registry})
            print(json.dumps(found), flush=True)
