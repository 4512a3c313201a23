"""export, import and restore-check: containers to archives and back."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from lxcfleet.api.archives import (
    LEVEL,
    MOST_LEVEL,
    MOST_SECONDS,
    SECONDS,
    SUFFIX,
    ArchiveMessage,
    ExportContainer,
    ImportContainer,
    Moved,
)
from lxcfleet.api.client import Client
from lxcfleet.api.fleets import ExportRequest
from lxcfleet.cli import options
from lxcfleet.cli.session import connect
from lxcfleet.cli.statuses import FAILED, SOME_FAILED
from lxcfleet.cli.ui import beside, output, spool
from lxcfleet.cli.ui.attach import fill_gaps, received
from lxcfleet.cli.ui.meter import Meter
from lxcfleet.errors import ErrorBody, FleetError, HostError, InvalidInput, Unreachable, from_body
from lxcfleet.spec.container.volumes import check_volume
from lxcfleet.spec.reading.names import check_name
from lxcfleet.spec.selection import natural_order
from lxcfleet.units import counted, parse_size

_AT_ONCE = 4
"""So many containers are exported at the same time, or as many as there are processors."""
_PIECE = 1 << 20


@dataclass
class Outcome:
    """The outcome for one container or archive."""

    name: str
    status: str
    error: FleetError | None = None
    more: dict[str, Any] = field(default_factory=dict)
    made: bool = False
    """Whether it was made all the same."""

    def to_json(self) -> dict[str, Any]:
        """As ``-f json`` has it."""
        error: ErrorBody | None = None if self.error is None else self.error.body()
        changed = self.error is None or self.made
        return {"name": self.name, "status": self.status, "changed": changed, "error": error, **self.more}


# -- export -------------------------------------------------------------------------------------------------------


@click.command(short_help="Write containers to archives, or a fleet file.")
@options.selected
@click.option("-o", "--output", "file", metavar="FILE", default=None, help="The archive of one container; - is stdout.")
@click.option("--to", "directory", metavar="DIR", default=None, callback=lambda _, __, text: _directory(text),
              help="A directory for the archives: NAME.lxcfleet.tar.zst.")
@click.option("--keep", type=click.IntRange(1, 10_000), default=None, metavar="N",
              help="With --to: the time goes into each name, and the last N archives of each container stay.")
@click.option("--stopped", is_flag=True, help="Only containers that are stopped; one that runs is refused, and not frozen.")
@click.option("--volumes", is_flag=True, help="The files of its volumes, too.")
@click.option("--level", type=click.IntRange(1, MOST_LEVEL), default=None, metavar="N",
              help=f"How hard zstd works, 1 to {MOST_LEVEL}; default: {LEVEL}.")
@click.option("--max-freeze", "seconds", type=options.Time(1, MOST_SECONDS), default=None, metavar="TIME",
              help=f"Give up on a container that would be frozen for longer; default: {SECONDS:g}.")
@click.option("--fleet", metavar="NAME", help="Write a fleet file for containers that exist, and no archives.")
@options.formatted
@options.quiet("Print only the names of those that were exported.")
@click.pass_context
def export(
    ctx: click.Context, /, *, patterns: tuple[str, ...], labels: tuple[str, ...], everything: bool, fleet: str | None,
    file: str | None, directory: Path | None, style: str, quiet: bool, **how: Any,
) -> int:  # fmt: skip
    """Write containers to archives, one each, or a fleet to a fleet file.

    An archive has the container's own files, its spec without the values of secrets, and what the base was like: `lxcfleet
    import` makes the same container of it, here or on another host. Plain `tar --zstd` reads it. A container that runs is
    frozen meanwhile, and how long is told. An archive gets its name once it is whole; only its owner can read it.

    With --fleet: print a fleet file for the containers that the fleet owns, or for the chosen ones. Applied, the file
    changes nothing; `apply --adopt` takes over containers that belong to no fleet. Variables of the environment are in it.

    \b
    Examples:
      lxcfleet export web1 -o web1.lxcfleet.tar.zst
      lxcfleet export --all --to /srv/backup --keep 7
      lxcfleet export db1 -o - | ssh other lxcfleet import -
      lxcfleet export --fleet shop > fleet.yaml
    """
    if fleet is not None:
        said = {"-o": file, "--to": directory, **{f"--{key.replace('_', '-')}": value for key, value in how.items()}}
        given = [option.replace("--seconds", "--max-freeze") for option, value in said.items() if value]
        options.refuse(given, "--fleet writes a fleet file, and no archives", "leave out one of them")
        chosen = options.optional_selection(patterns, labels, everything)
        output.write(connect(ctx).fleet_export(ExportRequest(check_name(fleet), chosen))["text"])
        return 0
    selection = options.selection(patterns, labels, everything)
    if (file is None) == (directory is None):
        raise InvalidInput("say where the archive goes", hint="-o FILE for one container, --to DIR for any number")
    if how["keep"] is not None and directory is None:
        options.refuse(["--keep"], "it counts the archives in a directory", "give --to DIR")
    client = connect(ctx)
    names = [container["name"] for container in client.containers(selection)]
    if not names:
        output.say(output.NOTHING_CHOSEN)
    if file is not None and len(names) > 1:
        raise InvalidInput(f"-o is for one container, and {len(names)} are chosen", hint="--to DIR writes one for each")
    exporting = _Exporting(client, how)
    if file == "-" and names:
        return _to_stdout(exporting, names[0])
    targets = {name: _target(name, file, directory, how["keep"]) for name in names}
    for where in {target.parent for target in targets.values()}:
        if not where.is_dir():
            raise InvalidInput(f"there is no directory {where}", hint=f"make it: mkdir -p {where}")
    for target in targets.values():
        beside.refuse_no_file(target)
    return _show(exporting.run(targets), style, quiet, _exported)


def _directory(text: str | None) -> Path | None:
    """The directory that --to names. Raises InvalidInput if that is empty, as where a script's variable is not set."""
    if text == "":
        raise InvalidInput("--to names no directory: it is empty", hint="--to . is the one that you are in")
    return None if text is None else Path(text)


def _target(name: str, file: str | None, directory: Path | None, keep: int | None) -> Path:
    if file is not None:
        return Path(file)
    assert directory is not None
    stamp = f".{datetime.now(UTC).strftime(beside.STAMP)}" if keep is not None else ""
    return directory / f"{name}{stamp}{SUFFIX}"


def _exported(outcome: Outcome) -> str:
    more = outcome.more
    frozen = "" if more.get("frozen_ms") is None else f", frozen for {more['frozen_ms'] / 1000:.2f} s"
    return f"{output.size(more.get('archive_bytes'))} of {output.size(more.get('bytes'))}{frozen}"


class _Exporting:
    """The exports of some containers."""

    def __init__(self, client: Client, how: Mapping[str, Any]) -> None:
        self._client = client
        self._how = how
        self._connections: set[socket.socket] = set()
        self._left = threading.Event()
        self._slots = threading.Semaphore(_slots())
        self._meter = Meter()

    def request(self, name: str) -> ExportContainer:
        """The request for one."""
        how = self._how
        return {
            "export": name, "level": how["level"] or LEVEL, "stopped": how["stopped"], "volumes": how["volumes"],
            "seconds": how["seconds"] or SECONDS,
        }  # fmt: skip

    def run(self, targets: Mapping[str, Path]) -> list[Outcome]:
        """Export some, a few at a time."""
        found: dict[str, Outcome] = {}
        with ThreadPoolExecutor(2 * _slots()) as pool:  # while some are exported, others are forced to the disk
            asked = [pool.submit(self._one, name, target) for name, target in targets.items()]
            try:
                for each in as_completed(asked):
                    outcome = each.result()
                    found[outcome.name] = outcome
                    self._meter.clear()
                    if outcome.error is not None:
                        output.say_error(outcome.error, outcome.name)
                    _tell(outcome)
            except BaseException:
                self._leave()
                pool.shutdown(cancel_futures=True)
                raise
        return [found[name] for name in natural_order(found)]

    def _leave(self) -> None:
        self._left.set()
        for connection in [*self._connections]:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _one(self, name: str, target: Path) -> Outcome:
        try:
            with beside.opened(target) as (new, file):
                with self._slots:
                    message = self.into(name, file.fileno())
                size = os.fstat(file.fileno()).st_size
                os.fsync(file.fileno())
                os.rename(new, target)
            beside.sync(target.parent)
            if self._how["keep"] is not None:
                beside.forget_old(name, target.parent, self._how["keep"])
        except FleetError as error:
            return Outcome(name, "failed", error)
        except OSError as error:
            return Outcome(name, "failed", HostError.from_os_error(f"{name} is not exported", error, path=target))
        more = {"file": str(target), "archive_bytes": size, "bytes": message["bytes"], "frozen_ms": message["frozen_ms"]}
        return Outcome(name, "exported", None, {**more, "notes": message["notes"]})

    def into(self, name: str, descriptor: int) -> ArchiveMessage:
        """Export one to a file that is open. Raises FleetError."""
        if self._left.is_set():
            raise Unreachable(f"{name} is not exported", why="the command was broken off")
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            connection = self._client.attach(self.request(name), (null, descriptor, null))
        finally:
            os.close(null)
        with connection:
            self._connections.add(connection)
            try:
                return _answers(connection, name, lambda size: self._meter.show(name, size))
            finally:
                self._connections.discard(connection)


def _slots() -> int:
    return min(_AT_ONCE, os.cpu_count() or 1)


def _to_stdout(exporting: _Exporting, name: str) -> int:
    """Export to stdout. It is kept in a file until it is whole, so that a slow reader keeps no container frozen."""
    if sys.stdout is None or sys.stdout.isatty():
        raise InvalidInput("an archive is not for a terminal", hint="-o FILE, or give stdout a reader")
    with spool.empty() as file:
        message = exporting.into(name, file.fileno())
        file.seek(0)
        while piece := file.read(_PIECE):
            output.write_bytes(piece)
        frozen = message["frozen_ms"]
        told = "" if frozen is None else f"; it was frozen for {frozen / 1000:.2f} s"
        output.say(f"lxcfleet: {name}: {output.size(file.tell())} of {output.size(message['bytes'])}{told}")
        for note in message["notes"]:
            output.say(output.printable(f"lxcfleet: {name}: {note}"))
    return 0


# -- import and restore-check -------------------------------------------------------------------------------------


def _limited(function: options.F) -> options.F:
    text = "The most that its files may have; default: as the file system has room for."
    return click.option("--limit", metavar="SIZE", default=None, callback=options.read_by(parse_size), help=text)(function)


def _renamed(texts: Iterable[str]) -> Iterator[tuple[str, str]]:
    for text in texts:
        old, equals, new = text.partition("=")
        if not equals:
            raise InvalidInput(f"{text!r} does not say which name the volume gets", hint="write it as OLD=NEW")
        yield check_volume(old), check_volume(new)


@click.command("import", short_help="Make containers of archives.")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--name", default=None, help="Another name; default: that in the archive.")
@click.option("--no-start", is_flag=True, help="Leave it stopped.")
@click.option("--trusted", is_flag=True, help="You trust whoever made it: it gets all that its spec asks for of this host.")
@click.option("--with-volumes", is_flag=True, help="Make the volumes whose files are in the archive.")
@click.option(
    "--volume", "renamed", multiple=True, metavar="OLD=NEW", callback=options.read_all_by(_renamed),
    help="With --with-volumes: another name for a volume of the archive. May be given several times.",
)
@click.option(
    "--keep-volumes", is_flag=True, help="With --with-volumes: volumes that are here already are left as they are."
)
@click.option("--moved", hidden=True, default=None, metavar="JSON", help="It comes by `lxcfleet move`.")
@_limited
@options.dry_run
@options.formatted
@options.quiet("Print only the names of new containers.")
@click.pass_context
def import_(
    ctx: click.Context, /, *, files: tuple[str, ...], name: str | None, no_start: bool, trusted: bool, with_volumes: bool,
    renamed: tuple[tuple[str, str], ...], keep_volumes: bool, moved: str | None, limit: int | None, dry_run: bool,
    style: str, quiet: bool,
) -> int:  # fmt: skip
    """Make containers of archives, and start them. - is stdin.

    A container gets a new range of ids and a new address, and has the same files, owners and spec as before. It stands on
    this host's root: at its first start the records of packages and accounts are merged, as after any patch. Secrets that
    are not here keep it blocked; its volumes have to be here, unless --with-volumes makes them, with the files that
    `export --volumes` wrote. Nothing is ever put on a volume that is here.

    An archive may come from anybody. One that is damaged, or has what `export` would not have written, is refused, and
    nothing of it is left. One whose spec asks for directories, volumes, secrets, apps, devices or ports of this host, for
    keys of LXC or for root's own rights takes --trusted.

    \b
    Examples:
      lxcfleet import web1.lxcfleet.tar.zst
      lxcfleet import db1.lxcfleet.tar.zst --name db1-old --no-start
      lxcfleet import --trusted --with-volumes --keep-volumes /srv/backup/*.lxcfleet.tar.zst
      lxcfleet import db1.lxcfleet.tar.zst --name db1-old --with-volumes --volume data=data-old
    """
    if name is not None and len(files) > 1:
        raise InvalidInput("--name is for one archive", why=f"{len(files)} are named")
    request: ImportContainer = {
        "unpack": check_name(name) if name else "", "trusted": trusted, "limit": limit or 0, "start": not no_start,
        "check": False, "dry_run": dry_run,
    }  # fmt: skip
    if with_volumes:
        request["volumes"] = {"names": dict(renamed), "keep": keep_volumes}
    elif renamed or keep_volumes:
        raise InvalidInput("--volume and --keep-volumes take --with-volumes", why="without it no volume is made")
    if moved is not None:
        request["moved"] = _move(moved)
    return _show(_take_all(connect(ctx), files, request, "planned" if dry_run else "imported"), style, quiet, _imported)


def _move(text: str) -> Moved:
    try:
        data = json.loads(text)
        return {"id": str(data["id"]), "origin": str(data["origin"]), "ran": bool(data["ran"])}
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput("--moved makes no sense", why="it is for `lxcfleet move` alone") from error


def _imported(outcome: Outcome) -> str:
    if outcome.status == "planned":
        return "would be made of it"
    started = "runs" if outcome.more.get("started") else "is stopped"
    made = f"; volumes: {', '.join(outcome.more['volumes'])}" if outcome.more.get("volumes") else ""
    return f"{counted(outcome.more.get('entries', 0), 'entry')}, " + (
        f"{output.size(outcome.more.get('bytes'))}; it {started}{made}"
    )


@click.command("restore-check", short_help="Prove that archives can be imported.")
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path())
@click.option("--with-volumes", is_flag=True, help="Check the files of volumes that are in them, too.")
@_limited
@options.formatted
@options.quiet("Print only the names of files that are as they should be.")
@click.pass_context
def restore_check(
    ctx: click.Context, /, *, files: tuple[str, ...], with_volumes: bool, limit: int | None, style: str, quiet: bool
) -> int:
    """Prove that archives can be imported: unpack each beside, compare all of it with the archive, and remove it again.

    Its spec is read as for an import. Nothing is started, and no container appears. The exit status is 1 if an archive is
    refused, or what was unpacked is not what it has.

    \b
    Examples:
      lxcfleet restore-check /srv/backup/web1.lxcfleet.tar.zst
      lxcfleet restore-check -f json /srv/backup/*.lxcfleet.tar.zst
    """
    if "-" in files:
        raise InvalidInput("an archive to check is read twice, so it has to be a file", hint="keep it in a file first")
    request: ImportContainer = {
        "unpack": "", "trusted": False, "limit": limit or 0, "start": False, "check": True, "dry_run": False
    }  # fmt: skip
    if with_volumes:
        request["volumes"] = {"names": {}, "keep": False}
    outcomes = _take_all(connect(ctx), files, request, "checked")
    for outcome in outcomes:
        if outcome.more.get("differing"):
            lines = [*outcome.more["differences"]]
            rest = outcome.more["differing"] - len(lines)
            outcome.status = "differs"
            outcome.error = FleetError(
                f"{outcome.name}: the unpacked files differ from those of the archive, in {outcome.more['differing']} places",
                why="\n".join([*lines, *([f"and {rest} more"] if rest else [])]),
                hint="its file system may not keep all that a container's files have: see docs/backup.md",
            )
            output.say_error(outcome.error)
    return min(_show(outcomes, style, quiet, _checked), FAILED)


def _checked(outcome: Outcome) -> str:
    entries = counted(outcome.more.get("entries", 0), "entry")
    return f"{output.size(outcome.more.get('bytes'))} in {entries}, all as in the archive"


def _take_all(client: Client, files: Sequence[str], request: ImportContainer, word: str) -> list[Outcome]:
    meter, outcomes = Meter(), []
    for file in files:
        try:
            with _opened(file) as descriptor:
                outcome = _take(client, file, descriptor, request, word, meter)
        except FleetError as error:
            outcome = Outcome(file, "failed", error)
            meter.clear()
            output.say_error(error, file)
        meter.clear()
        _tell(outcome)
        outcomes.append(outcome)
    return outcomes


def _take(
    client: Client, file: str, descriptor: int, request: ImportContainer, word: str, meter: Meter
) -> Outcome:
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        connection = client.attach(request, (descriptor, null, null))
    finally:
        os.close(null)
    with connection:
        message = _answers(connection, file, lambda size: meter.show(file, size))
    keys = ("bytes", "entries", "notes", "started", "volumes", "differences", "differing")
    told: dict[str, Any] = {**message}
    error = from_body(message["unstarted"]) if "unstarted" in message and "moved" not in request else None
    more = {"file": file, **{key: told[key] for key in keys if key in told}}
    return Outcome(message["name"], word if error is None else "not started", error, more, made=error is not None)


@contextlib.contextmanager
def _opened(file: str) -> Iterator[int]:
    if file == "-":
        fill_gaps()
        if os.isatty(0):
            raise InvalidInput("no archive comes from a terminal", hint="lxcfleet import FILE")
        yield 0
        return
    if os.path.isdir(file):
        raise InvalidInput(f"{file} is a directory", hint=f"name the archives in it: {os.path.join(file, f'*{SUFFIX}')}")
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise HostError.from_os_error("the archive can't be read", error, path=file) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


# -- what both do -------------------------------------------------------------------------------------------------


def _answers(connection: socket.socket, name: str, told: Callable[[int], None]) -> ArchiveMessage:
    """Follow to the end, and give the outcome. Raises FleetError."""
    while data := received(connection):
        message: ArchiveMessage = json.loads(data)
        if "error" in message:
            raise from_body(message["error"])
        if message.get("done"):
            return message
        told(message.get("bytes", 0))
    raise Unreachable(
        f"{name}: the daemon went away before it was done", why="it closed the connection", hint="try the same command again"
    )


def _tell(outcome: Outcome) -> None:
    for note in outcome.more.get("notes", []):
        output.say(output.printable(f"lxcfleet: {outcome.name}: {note}"))


def _show(outcomes: Sequence[Outcome], style: str, quiet: bool, say: Callable[[Outcome], str]) -> int:
    """Show the outcomes; gives the exit status."""
    done = [each for each in outcomes if each.error is None]
    if quiet:
        output.write("".join(f"{each.name}\n" for each in outcomes if each.error is None or each.made))
        return _status(outcomes, done)
    rows = [
        ["name", "status", "what"],
        *([each.name, each.status, say(each) if each.error is None or each.made else ""] for each in outcomes),
    ]
    results = [each.to_json() for each in outcomes]
    data = {"changed": any(each["changed"] for each in results), "results": results}
    output.show(style, data, lines=lambda: output.columns(rows[1:]) if outcomes else [], rows=lambda: rows)
    return _status(outcomes, done)


def _status(outcomes: Sequence[Outcome], done: Sequence[Outcome]) -> int:
    if len(done) == len(outcomes):
        return 0
    errors = [each.error.exit_status for each in outcomes if each.error is not None]
    return SOME_FAILED if len(outcomes) > 1 and done else errors[0]


VERBS = {"export": export, "import": import_, "restore-check": restore_check}
