"""Servant processes of the daemon, which are let go while the daemon goes on."""

from __future__ import annotations

import asyncio
import os
import resource
import select
import subprocess
import time
from pathlib import Path

import pytest

from lxcfleet.host.process.servant import Servant


@pytest.mark.reaches("processes", reason="a real servant ends")
def test_the_event_loop_goes_on_while_a_servant_ends(tmp_path: Path) -> None:
    """Before, after a patch or when a launcher was about to end, the daemon did nothing else for up to 5 seconds.

    This servant ends once there is a file, which only a loop that goes on can make. Otherwise it would be killed in the end.
    """
    file = tmp_path / "end"
    lock = os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
    program = f"import os, time\nwhile not os.path.exists({str(file)!r}): time.sleep(0.01)"
    servant = Servant("servant", ["-c", program], lock, dict(os.environ))

    async def run() -> subprocess.Popen[bytes]:
        servant.start()
        process = servant._process
        assert process is not None
        ending = asyncio.ensure_future(servant.end())
        await asyncio.sleep(0)
        assert servant.pid is None  # later requests go to another process
        file.touch()
        await ending
        return process

    assert asyncio.run(run()).returncode == 0
    os.close(lock)


@pytest.mark.reaches("processes", reason="two real servants")
def test_a_request_for_which_a_servant_has_no_room_goes_to_the_next_one(tmp_path: Path) -> None:
    """Before, it waited for ever at the socket of the one that was let go, and all later requests behind it."""
    lock = os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
    file = tmp_path / "second"
    program = (
        "import os, socket, sys, time\n"
        "requests = socket.socket(fileno=int(sys.argv[1]))\n"
        f"if os.path.exists({str(file)!r}):\n    while requests.recv(4096): pass\n"
        "else:\n    time.sleep(60)"
    )
    servant = Servant("servant", ["-c", program, "{requests}"], lock, dict(os.environ))

    async def run() -> None:
        async def fill() -> None:
            while servant.generation < 2:
                await servant.send(b"request", [])

        requests = servant.start()
        filling = asyncio.ensure_future(fill())
        while select.select([], [requests], [], 0)[1]:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        process = servant._process
        assert process is not None
        file.touch()
        process.kill()  # stuck, so it is let go only by this
        await servant.end()
        await filling
        servant.close()

    asyncio.run(asyncio.wait_for(run(), 100))
    os.close(lock)


@pytest.mark.reaches("processes", reason="ten real servants begin")
def test_a_servant_has_the_usual_limit_of_the_stack_from_its_beginning(tmp_path: Path) -> None:
    """Before, some had the daemon's, and so had their containers: execve(2) put it back after the daemon had set another."""
    former = resource.getrlimit(resource.RLIMIT_STACK)
    lock = os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(10):
            resource.setrlimit(resource.RLIMIT_STACK, (16 << 20, former[1]))
            servant = Servant("servant", ["-c", "import time; time.sleep(9999)"], lock, dict(os.environ))
            servant.start()
            process = servant._process
            assert process is not None
            time.sleep(0.05)  # the program has begun
            assert resource.prlimit(process.pid, resource.RLIMIT_STACK)[0] == 8 << 20
            process.kill()
            servant.close()
    finally:
        resource.setrlimit(resource.RLIMIT_STACK, former)
        os.close(lock)
