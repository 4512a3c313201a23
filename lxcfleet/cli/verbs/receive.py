"""receive: what `lxcfleet move` of another host has done here. People have no use for it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import click

from lxcfleet.api.moves import ArrivalRequest, CheckArrivalRequest, Do
from lxcfleet.api.requests import WaitRequest
from lxcfleet.cli.session import connect
from lxcfleet.cli.ui import output
from lxcfleet.errors import FleetError, InvalidInput, WrongState, from_body
from lxcfleet.spec import moves
from lxcfleet.spec.selection import Selection

_MOST = 1 << 22


@click.command(hidden=True)
@click.argument("what", type=click.Choice(["check", *(each.value for each in Do)]))
@click.argument("name", required=False, default="")
@click.argument("move", required=False, default="")
@click.option("--timeout", type=click.FloatRange(1, 86400), default=120.0, metavar="SECONDS",
              help="Of `grant`: until it is healthy.")
@click.option("--when-told", is_flag=True, help="Of `grant`: once stdin says that it was handed over; never, if stdin ends.")
@click.pass_context
def receive(ctx: click.Context, /, *, what: str, name: str, move: str, timeout: float, when_told: bool) -> int:
    """Take a container that another host's `lxcfleet move` sends; it calls this by ssh.

    `check` reads a question from stdin. The answer is JSON on stdout; whether it is an error is in it.

    \b
    Examples:
      lxcfleet receive status web1 0123456789abcdef
    """

    def work() -> Any:
        if when_told and sys.stdin.buffer.readline(len(moves.HANDED_OVER)) != moves.HANDED_OVER:
            raise WrongState(f"{name} was not handed over", why="the other side ended before that")
        client = connect(ctx)
        if what == "check":
            return client.check_arrival(CheckArrivalRequest.from_json(_stdin()))
        found = client.arrival(ArrivalRequest.from_json({"name": name, "id": move, "do": what}))
        if what != Do.GRANT:
            return found
        if found is not None and found["ran"]:
            (result,) = client.wait(WaitRequest(Selection((name,)), "healthy", timeout))
            if result["error"] is not None:
                raise from_body(result["error"])
        return client.arrival(ArrivalRequest(name, move, Do.CONFIRM))

    output.write(json.dumps(_answer(work)) + "\n")
    return 0


def _stdin() -> object:
    try:
        return json.loads(sys.stdin.buffer.read(_MOST))
    except (ValueError, RecursionError) as error:
        raise InvalidInput("the question is not JSON", why=str(error)) from error


def _answer(work: Callable[[], Any]) -> dict[str, Any]:
    try:
        return {"result": work()}
    except FleetError as error:
        return {"error": error.body()}


VERBS = {"receive": receive}
