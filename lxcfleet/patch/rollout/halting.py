"""The operator's own command for halts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from lxcfleet.errors import HostError
from lxcfleet.host.process import shell

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
