"""Operations: the results of their jobs."""

from __future__ import annotations

import asyncio
import errno

from lxcfleet.runtime.operations import Job, Operations
from lxcfleet.spec.results import Result


def test_what_the_host_refuses_and_what_is_a_defect_of_ours_cost_one_result_each() -> None:
    async def full() -> Result:
        raise OSError(errno.EMFILE, "Too many open files", "/srv/apps")

    async def wrong() -> Result:
        raise KeyError("x")

    async def well() -> Result:
        return Result("c", "done", True)

    async def go() -> None:
        operations = Operations()
        operation = operations.begin("remove app", [Job("a", full), Job("b", wrong), Job("c", well)], 1)
        while not operation.ended:
            await asyncio.sleep(0)
        first, second, third = operation.results
        assert first.error is not None
        assert (first.error["code"], first.error["message"]) == ("host-error", "a: remove app failed")
        assert first.error["why"] == f"/srv/apps: Too many open files (errno {errno.EMFILE})"
        assert second.error is not None
        assert second.error["why"] == "KeyError: 'x'"
        assert (third.status, third.error) == ("done", None)

    asyncio.run(go())
