"""Operations: the results of their jobs."""

from __future__ import annotations

import asyncio
import errno

import pytest

from lxcfleet.runtime.operations import Job, Operation, Operations
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
        assert "free -h" in first.error["hint"]
        assert first.error["why"] == f"/srv/apps: Too many open files (errno {errno.EMFILE})"
        assert second.error is not None
        assert second.error["why"] == "KeyError: 'x'"
        assert (third.status, third.error) == ("done", None)

    asyncio.run(go())


@pytest.mark.parametrize(
    ("error", "code", "why"),
    [
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "host-error", f"Cannot allocate memory (errno {errno.ENOMEM})"),
        (KeyError("x"), "failed", "KeyError: 'x'"),
    ],
)
def test_work_that_is_broken_off_is_no_success(error: Exception, code: str, why: str) -> None:
    """Before, its operation ended with the results so far, and so as done."""

    async def work(operation: Operation) -> None:
        operation.add(Result("a", "done", True))
        raise error

    async def go() -> None:
        operation = Operations().run("apply", 2, work)
        while not operation.ended:
            await asyncio.sleep(0)
        _, last = operation.results
        assert (last.name, last.status) == ("apply", "failed")
        assert last.error is not None
        assert (last.error["code"], last.error["why"]) == (code, why)

    asyncio.run(go())
