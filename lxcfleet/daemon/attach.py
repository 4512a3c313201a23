"""The attach socket: takes a client's file descriptors and hands them to a child of the launcher.

The child then talks to the client on the client's own connection. So bytes never pass through the daemon, and
a command goes on when the daemon ends.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from collections.abc import Sequence
from typing import Any

from lxcfleet.api.calls import MAX_ATTACH
from lxcfleet.api.requests import AttachRequest
from lxcfleet.containers.registry import Registry
from lxcfleet.daemon.http.access import Access, Role, refuse
from lxcfleet.daemon.uses import foreground, moves
from lxcfleet.daemon.uses.archive_requests import parse_export, parse_import
from lxcfleet.daemon.uses.archives import Archives
from lxcfleet.daemon.uses.foreground import Foregrounds
from lxcfleet.daemon.uses.moves import Moves
from lxcfleet.errors import FleetError, InvalidInput, NoProgram, NotFound, WrongState
from lxcfleet.host.process import passing
from lxcfleet.launcher.client import Launcher
from lxcfleet.launcher.operations import ATTACH
from lxcfleet.runtime import unforeseen
from lxcfleet.spec.reading.names import check_name, check_variable
from lxcfleet.spec.reading.reader import Fields
from lxcfleet.spec.states import State

log = logging.getLogger(__name__)

_PATIENCE = 10.0
"""Seconds that a client may take to send its request."""


class AttachServer:
    """Accepts connections on the attach socket."""

    def __init__(
        self, listener: socket.socket, registry: Registry, launcher: Launcher, access: Access, runs: Foregrounds,
        archives: Archives, moves: Moves,
    ) -> None:
        self._access = access
        self._runs = runs
        self._archives = archives
        self._moves = moves
        self._listener = listener
        self._registry = registry
        self._launcher = launcher
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Accept until cancelled."""
        loop = asyncio.get_running_loop()
        self._listener.setblocking(False)
        while True:
            try:
                connection, _ = await loop.sock_accept(self._listener)
            except OSError as error:
                log.error("the attach socket: %s", error)
                await asyncio.sleep(1)
                continue
            task = loop.create_task(self._answer(connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def settle(self) -> None:
        """Return once those who were accepted have their commands; ``serve`` was cancelled."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _answer(self, connection: socket.socket) -> None:
        descriptors: list[int] = []
        with connection:
            try:
                async with asyncio.timeout(_PATIENCE):
                    await _readable(connection)
                message, descriptors = passing.received(connection, MAX_ATTACH, 8)
                refuse(self._access.role(connection), Role.ALL)
                data = _read(message, descriptors)
                if isinstance(data, dict) and "run" in data:
                    await self._runs.begin(foreground.parse(data), connection, descriptors)
                elif isinstance(data, dict) and "export" in data:
                    await self._archives.export(parse_export(data), connection, descriptors[1])
                elif isinstance(data, dict) and "unpack" in data:
                    await self._archives.take(parse_import(data), connection, descriptors[0])
                elif isinstance(data, dict) and "move" in data:
                    await self._moves.drive(moves.parse(data), connection, descriptors)
                else:
                    await self._attach(_parse(data), connection, descriptors)
            except NoProgram as error:
                _say(connection, {"error": error.body(), "exit": 127 if error.missing else 126})
            except FleetError as error:
                _say(connection, {"error": error.body()})
            except (ConnectionError, TimeoutError) as error:
                log.debug("a client of the attach socket went away: %s", error)
            except Exception as error:
                _say(connection, {"error": unforeseen.told(log, "a request of the attach socket", error).body()})
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)

    async def _attach(
        self, request: AttachRequest, connection: socket.socket, descriptors: Sequence[int]
    ) -> None:
        name = request["name"]
        if name not in self._registry or self._registry[name].running is None:
            await self._registry.observe()  # a look at all: not for each of a thousand commands in containers known to run
        self._check(name)
        request["environment"] = {**self._language(name), **request["environment"]}
        passed = [connection.fileno(), *descriptors]
        await self._launcher.send(ATTACH, json.dumps(request).encode(), passed)

    def _language(self, name: str) -> dict[str, str]:
        """The variables that give its own command a language."""
        spec = self._registry[name].spec
        own = {} if spec is None else spec.environment
        return {key: value for key, value in own.items() if key == "LANG" or key.startswith("LC_")}

    def _check(self, name: str) -> None:
        if name not in self._registry:
            raise NotFound(f"no container named {name}", hint="`lxcfleet list` shows the ones that exist")
        state = self._registry[name].state
        if state is State.FROZEN:
            raise WrongState(f"{name} is frozen", hint=f"let it go on: lxcfleet unfreeze {name}")
        if not state.alive:
            raise WrongState(f"{name} is not running", hint=f"start it: lxcfleet start {name}")


def _read(message: bytes, descriptors: list[int]) -> object:
    if len(descriptors) != 3:
        raise InvalidInput("the request must come with stdin, stdout and stderr")
    if any(map(os.isatty, descriptors)):
        raise InvalidInput(
            "a terminal must not be handed to a container",
            why="processes that the command leaves behind could read what is typed on it later",
            hint="copy it to and from a pipe, as `lxcfleet exec` does",
        )
    try:
        data: object = json.loads(message)
    except (ValueError, RecursionError) as error:
        raise InvalidInput("the request is not JSON, or too long", why=str(error)) from error
    return data


def _parse(data: object) -> AttachRequest:
    fields = Fields(data, "request")
    request: AttachRequest = {
        "name": check_name(fields.text("name")),
        "command": list(fields.texts("command")),
        "environment": fields.pairs("environment", check_variable),
        "tty": fields.flag("tty"),
    }
    fields.finish("the request to run a command is not valid")
    return request


def _say(connection: socket.socket, message: dict[str, Any]) -> None:
    try:
        connection.send(json.dumps(message).encode())
    except OSError as error:
        log.debug("a client of the attach socket went away: %s", error)


async def _readable(connection: socket.socket) -> None:
    connection.setblocking(False)
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(connection, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(connection)
