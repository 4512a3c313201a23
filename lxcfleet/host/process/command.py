"""Runs a program of the host and returns its output."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Container, Mapping, Sequence

from lxcfleet.errors import HostError


class ProgramFailed(HostError):
    """A program ended with an exit status that means failure."""

    said: str = ""
    """The whole output on stderr."""


def run(
    argv: Sequence[str],
    *,
    input: bytes | None = None,
    timeout: float = 60.0,
    environment: Mapping[str, str] | None = None,
    allowed: Container[int] = (0,),
) -> str:
    """The output of ``argv`` on stdout. Raises ProgramFailed with the command line and the output on stderr; HostError
    if the program could not be run, or did not end within ``timeout`` seconds.

    ``environment``: the whole environment; None: that of this process. ``allowed``: exit statuses that mean success.
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
        # The line with the error (nft prints further lines that show its place), or else the last line.
        reason = next((text for text in said if "error" in text.lower()), said[-1] if said else None)
        reason = reason or f"exit status {done.returncode}"
        failed = ProgramFailed(f"{argv[0]} failed", why=f"{line}: {reason}")
        failed.said = "\n".join(said)
        raise failed
    return done.stdout.decode(errors="surrogateescape")
