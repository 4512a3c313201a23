"""Runs a command line of the operator's, with a limit on its time and output."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping

from lxcfleet.errors import HostError


def run(command: str, environment: Mapping[str, str], *, seconds: float, most: int) -> tuple[int, str]:
    """Run ``command`` without input; returns its exit status and the first ``most`` bytes of its output on both streams.

    /bin/sh runs it in a session of its own, of which no process is left afterwards. Raises HostError if it can't be started,
    or did not end in time.
    """
    try:
        process = subprocess.Popen(
            ["/bin/sh", "-c", command], env=dict(environment), cwd="/", stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    except (OSError, ValueError) as error:
        raise HostError("the command can't be run", why=str(error)) from error
    try:
        output = _read(process, time.monotonic() + seconds, most)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        ended = process.wait()
        assert process.stdout is not None
        process.stdout.close()
    if output is None:
        raise HostError(f"the command did not end within {seconds:g} s", why=command)
    return ended, output.decode(errors="replace")


def _read(process: subprocess.Popen[bytes], deadline: float, most: int) -> bytes | None:
    """Its output until it ends; None if the time is up before that."""
    assert process.stdout is not None
    descriptor, output = process.stdout.fileno(), b""
    end = os.pidfd_open(process.pid)
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.register(end, select.POLLIN)
    try:
        while (left := deadline - time.monotonic()) > 0:
            ready = {number for number, _ in poll.poll(left * 1000)}
            if descriptor in ready:
                piece = os.read(descriptor, 65536)
                output += piece[: most - len(output)]
                if not piece:
                    poll.unregister(descriptor)
            elif end in ready:
                return output
        return None
    finally:
        os.close(end)
