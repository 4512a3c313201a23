"""Run a program of the host's and get what it printed."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Container, Mapping, Sequence

from lxcfleet.errors import HostError


class ProgramFailed(HostError):
    """A program ended with an exit status that means failure."""

    said: str = ""
    """All that it printed on stderr."""


def run(
    argv: Sequence[str],
    *,
    input: bytes | None = None,
    timeout: float = 60.0,
    environment: Mapping[str, str] | None = None,
    allowed: Container[int] = (0,),
) -> str:
    """What ``argv`` printed on stdout. Raises ProgramFailed with the command line and what it printed on stderr; HostError
    where it could not be run, or did not end within ``timeout`` seconds.

    ``environment``: all that it gets; None: what this process has. ``allowed``: exit statuses that are no failure.
    Output that is not UTF-8 comes back with surrogate escapes.
    """
    line = shlex.join(argv)
    try:
        done = subprocess.run(
            argv, input=input, capture_output=True, timeout=timeout, check=False, env=environment
        )
    except OSError as error:
        raise HostError(f"can't run {argv[0]}", why=f"{line}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise HostError(f"{argv[0]} did not end within {timeout:.0f} s", why=line) from error
    if done.returncode not in allowed:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        # The line that says so (nft goes on with a picture of the place), or else the last one.
        reason = next((text for text in said if "error" in text.lower()), said[-1] if said else None)
        reason = reason or f"exit status {done.returncode}"
        failed = ProgramFailed(f"{argv[0]} failed", why=f"{line}: {reason}")
        failed.said = "\n".join(said)
        raise failed
    return done.stdout.decode(errors="surrogateescape")
