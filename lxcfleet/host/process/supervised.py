"""Programs of which nothing is left once they are over, in a container or on the host: tests."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from lxcfleet.host.kernel import syscalls
from lxcfleet.host.process.enclosure import Enclosure

_PIECE = 65536
_LARGEST = 1 << 20
"""Bytes of a process's environment that are looked at."""
_ROUNDS = 20
"""How often processes are looked for: each may have started another one at the moment of its end."""
_ROUND_SECONDS = 0.02
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126


@contextlib.contextmanager
def none_left(mark: str, find: Callable[[], Collection[int]]) -> Iterator[None]:
    """Afterwards, kill those of the processes that ``find`` gives which have ``mark`` (NAME=VALUE) in their environment.

    Children inherit it, whatever session or process group they choose. A process that empties its environment is not found.
    """
    try:
        yield
    finally:
        for _ in range(_ROUNDS):
            if not [pid for pid in find() if _kill_marked(pid, mark.encode())]:
                break
            time.sleep(_ROUND_SECONDS)


def _kill_marked(pid: int, mark: bytes) -> bool:
    """Kill a process if it has the mark; whether it had. proc(5): a process that has ended has no environment."""
    try:
        process = os.pidfd_open(pid)  # before its environment is read, so that no other process of that number is hit
    except OSError:
        return False
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            if mark not in file.read(_LARGEST).split(b"\0"):
                return False
        signal.pidfd_send_signal(process, signal.SIGKILL)
        return True
    except OSError:
        return False
    finally:
        os.close(process)


def run(
    argv: Sequence[str], environment: Mapping[str, str], *, seconds: float, most: int, within: Enclosure | None = None
) -> tuple[int | None, str]:
    """Run a program of the host without input; its exit status, and the last ``most`` bytes of what it printed. ``within``:
    the cgroup that it gets.

    None: it did not end within ``seconds``. This process adopts what the program leaves, and ends that; so nothing else of
    this process's children may run.
    """
    syscalls.adopt_orphans()

    def become() -> None:
        syscalls.die_with_parent()
        if within is not None:
            within.enter()

    try:
        process = subprocess.Popen(
            argv, env=dict(environment), cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True,
            preexec_fn=become,  # noqa: PLW1509  no threads here
        )  # fmt: skip
    except (FileNotFoundError, NotADirectoryError):
        return _NOT_FOUND, f"{argv[0]}: there is no such program on the host"
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return _NOT_EXECUTABLE, f"{argv[0]} can't be run: {error}"
    try:
        ended, output = _read(process, time.monotonic() + seconds, most)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        if within is not None:
            within.end()
        code = process.wait()
        _end_children()
        assert process.stdout is not None
        process.stdout.close()
    return None if not ended else 128 - code if code < 0 else code, output.decode(errors="replace")


def _read(process: subprocess.Popen[bytes], deadline: float, most: int) -> tuple[bool, bytes]:
    """Whether it ended in time, and the end of its output."""
    assert process.stdout is not None
    descriptor, output, closed, ended = process.stdout.fileno(), b"", False, False
    os.set_blocking(descriptor, False)
    end = os.pidfd_open(process.pid)
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.register(end, select.POLLIN)
    try:
        while not ended and (left := deadline - time.monotonic()) > 0:
            ended = end in {number for number, _ in poll.poll(left * 1000)}
            with contextlib.suppress(BlockingIOError):
                piece = os.read(descriptor, _PIECE)
                output = (output + piece)[-most:]
                if not piece and not closed:
                    closed = True
                    poll.unregister(descriptor)
        return ended, output
    finally:
        os.close(end)


def _end_children() -> None:
    """Kill all children of this process, and those that it gets from them, until there are none."""
    for _ in range(_ROUNDS):
        with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
            children = [int(pid) for pid in file.read().split()]
        if not children:
            return
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 1.0
        with contextlib.suppress(ChildProcessError):
            while time.monotonic() < deadline and os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.001)
