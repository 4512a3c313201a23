"""Details for a halt: the end of the container's log, and the operator's own command."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from lxcfleet.errors import HostError
from lxcfleet.host.process import shell

LOG_LINES = 20
LOG_BYTES = 16384
"""A halt shows at most so many bytes of the end of a container's console."""
COMMAND_SECONDS = 60.0
"""Seconds that the operator's command may take."""
COMMAND_BYTES = 4096
"""A failure shows at most so many bytes of the command's output."""
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


async def run(command: str, facts: Mapping[str, str], say: Callable[[str], None]) -> None:
    """Run the operator's command for halts; ``say`` is called with its failure."""
    try:
        status, printed = await asyncio.to_thread(
            shell.run, command, {**ENVIRONMENT, **facts}, seconds=COMMAND_SECONDS, most=COMMAND_BYTES
        )
    except HostError as error:
        say(f"on_halt failed: {error.message}{f': {error.why}' if error.why else ''}")
        return
    if status:
        say(f"on_halt failed: exit status {status}: {printed.strip() or 'it printed nothing'}")


def log_end(path: str) -> str:
    """The last lines of a log."""
    try:
        with open(path, "rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - LOG_BYTES))
            text = file.read(LOG_BYTES)
    except OSError:
        return ""
    return "\n".join(text.decode(errors="replace").splitlines()[-LOG_LINES:])
