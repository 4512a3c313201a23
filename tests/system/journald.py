"""A real journald of a test's own, in a mount namespace with a /run of its own: the host's, if there is one, is left alone.

Its socket and its files are reached through /proc/PID/root.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .harness import until

PROGRAM = Path("/lib/systemd/systemd-journald")

_INSIDE = """
mount --make-rprivate / && mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /var/log &&
mkdir -p /run/systemd/journald.conf.d /run/log && echo "$1" >/run/systemd/journald.conf.d/test.conf && exec "$2"
"""
_SETTINGS = "[Journal]\nStorage=volatile\nRateLimitIntervalSec=0\nRuntimeMaxUse=1G\nReadKMsg=no\nForwardToWall=no\n"


class Journal:
    """One journald that runs."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.root = Path(f"/proc/{process.pid}/root")
        self.socket = self.root / "run/systemd/journal/socket"
        until(lambda: self.socket.exists() and list((self.root / "run/log/journal").glob("*/*")), 10, "journald runs")

    def entries(self, *matches: str) -> list[dict[str, Any]]:
        """All entries that match, the oldest first."""
        argv = ["journalctl", "-D", str(self.root / "run/log/journal"), "-o", "json", "--all", "-q", *matches]
        shown = subprocess.run(argv, capture_output=True, check=False, timeout=120).stdout
        return [json.loads(line) for line in shown.splitlines()]

    def messages(self, *matches: str) -> list[str]:
        """What these entries say."""
        return [str(entry.get("MESSAGE")) for entry in self.entries(*matches)]

    def pause(self) -> None:
        """Have it answer nobody."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Have it answer again."""
        self._process.send_signal(signal.SIGCONT)


@contextmanager
def journald() -> Iterator[Journal]:
    """A journald for as long as the ``with`` takes."""
    assert PROGRAM.exists(), "the tests need systemd's journald"
    assert shutil.which("journalctl")
    process = subprocess.Popen(
        ["unshare", "-m", "sh", "-c", _INSIDE, "sh", _SETTINGS, str(PROGRAM)],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=sys.stderr, env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    try:
        yield Journal(process)
    finally:
        process.kill()
        process.wait()
