"""push and pull."""

from __future__ import annotations

import os
import re
import shlex
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

import click

from lxcfleet.api.client import Client
from lxcfleet.api.records import ResultRecord
from lxcfleet.api.requests import AttachRequest
from lxcfleet.cli import options
from lxcfleet.cli.session import connect
from lxcfleet.cli.ui import output, spool
from lxcfleet.cli.ui.fanout import Fanout
from lxcfleet.cli.ui.follow import show_results, status_of
from lxcfleet.cli.ui.unpack import Unpacking
from lxcfleet.cli.verbs.execute import only_name
from lxcfleet.errors import FleetError, HostError, InvalidInput
from lxcfleet.spec.selection import Selection
from lxcfleet.units import as_size, parse_size

_LIMIT = 4 << 30
_SAID = 1000
"""Characters of what tar says that are shown."""
_NAMED = 10
"""So many entries that were left out are named; the others are counted."""
_INTO = 'mkdir -p -- "$1" && exec tar -x -p --numeric-owner -C "$1" -f -'
_OWNER = re.compile("([0-9]{1,5}):([0-9]{1,5})")


class _Takes(options.TakesCommand):
    """A verb that takes paths after ``--``."""

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Show the paths in the usage line."""
        return [*click.Command.collect_usage_pieces(self, ctx), "-- FROM... TO"]


def _paths(ctx: click.Context) -> tuple[tuple[str, ...], str]:
    *sources, target = options.command_after_dashes(ctx) or ("",)
    if not sources:
        raise _misused(ctx)
    return tuple(sources), target


def _misused(ctx: click.Context) -> FleetError:
    """The complaint that paths are missing after ``--``; written as for scp and `docker cp`, paths are among the names."""
    usual = "web1 -- index.html /srv/www" if ctx.info_name == "push" else "web1 -- /var/log/nginx ."
    return InvalidInput(
        "what is copied is not said", why="containers' names come first, then --, the paths to copy, and where to",
        hint=f"for example: lxcfleet {ctx.info_name} {usual}",
    )  # fmt: skip


def _inside(path: str) -> str:
    if not path.startswith("/") or "\0" in path:
        raise InvalidInput(f"{path!r} is no absolute path in a container", hint="write it as /srv/www")
    return path


def _read_owner(text: str) -> tuple[int, int]:
    found = _OWNER.fullmatch(text)
    if not found:
        raise InvalidInput(f"{text!r} is no owner", hint="write it as UID:GID, such as 33:33")
    return int(found[1]), int(found[2])


@click.command(cls=_Takes)
@options.selected
@click.option("--owner", metavar="UID:GID", default=None, callback=options.read_by(_read_owner),
              help="The owner of all that is copied; default: the ids that the files have here.")
@options.dry_run
@options.formatted
@options.quiet("Print only the names of containers that were changed.")
@click.pass_context
def push(
    ctx: click.Context,
    *,
    patterns: tuple[str, ...],
    labels: tuple[str, ...],
    everything: bool,
    owner: tuple[int, int] | None,
    dry_run: bool,
    style: str,
    quiet: bool,
) -> int:
    """Copy files and directories from here into containers.

    Each is put into the directory TO, by its own name; TO is made if it is missing. Modes, times and links are
    kept, and the numbers of owners. Files that exist are replaced. All is read once, before the first container
    gets it.

    \b
    Examples:
      lxcfleet push web1 -- index.html /srv/www
      lxcfleet push 'web*' --owner 33:33 -- site logo.png /srv/www
    """
    sources, target = _paths(ctx)
    _inside(target)
    with spool.empty() as archive:
        entries = _pack(archive, sources, owner)
        client = connect(ctx)
        names = _running(client, options.selection(patterns, labels, everything))
        if dry_run:
            return _foresee(names, f"put {entries} files and directories into {target}", style, quiet)
        sink = _Sink(_LIMIT)
        fanout = Fanout(client, _request(["sh", "-c", _INTO, "push", target]), sink, archive.fileno())
        fanout.run(names)
    results = [_result(name, "pushed", sink.problem(name, fanout.statuses[name])) for name in fanout.statuses]
    return _end(results, fanout, len(names), style, quiet)


@click.command(cls=_Takes)
@options.selected
@click.option("--limit", metavar="SIZE", default=None, callback=options.read_by(parse_size),
              help=f"The most that is taken from one container; default: {as_size(_LIMIT)}.")
@options.dry_run
@options.formatted
@options.quiet("Print only the names of containers from which all was copied.")
@click.pass_context
def pull(
    ctx: click.Context,
    *,
    patterns: tuple[str, ...],
    labels: tuple[str, ...],
    everything: bool,
    limit: int | None,
    dry_run: bool,
    style: str,
    quiet: bool,
) -> int:
    """Copy files and directories from containers to here.

    Each is put into the directory TO, by its own name; from several containers into TO/NAME, NAME being the
    container's. Modes and times are kept, and for root the numbers of owners; set-id bits never are. Devices, and
    links that lead out of TO, are left out, which is told, and counts as failure.

    \b
    Examples:
      lxcfleet pull web1 -- /var/log/nginx .
      lxcfleet pull 'web*' -- /etc/nginx /srv/www ./all
    """
    sources, target = _paths(ctx)
    for source in sources:
        _inside(source)
    client = connect(ctx)
    chosen = options.selection(patterns, labels, everything)
    names = _running(client, chosen)
    single = only_name(chosen) is not None
    places = {name: Path(target) if single else Path(target, name) for name in names}
    if dry_run:
        return _foresee(names, f"copy {shlex.join(sources)} into {target}", style, quiet)
    sink = _Unpacks(limit or _LIMIT, places)
    fanout = Fanout(client, _request(_asking(sources)), sink)
    try:
        fanout.run(names)
        results = [_result(name, "pulled", sink.unpack(name, fanout.statuses[name])) for name in fanout.statuses]
    finally:
        sink.close()
    return _end(results, fanout, len(names), style, quiet)


def _asking(sources: Sequence[str]) -> list[str]:
    """The command that makes an archive of these, each by its own name."""
    words = ["tar", "-c", "--numeric-owner", "-f", "-"]
    for source in sources:
        directory, name = os.path.split(source.rstrip("/") or "/")
        words += ["-C", directory, f"./{name}"]
    return words


def _request(command: Sequence[str]) -> Callable[[str], AttachRequest]:
    return lambda name: {"name": name, "command": list(command), "environment": {}, "tty": False}


def _running(client: Client, chosen: Selection) -> list[str]:
    names = [container["name"] for container in client.containers(chosen)]
    if not names:
        output.say(output.NOTHING_CHOSEN)
    return names


# -- from here ----------------------------------------------------------------------------------------------------


def _pack(file: IO[bytes], sources: Sequence[str], owner: tuple[int, int] | None) -> int:
    """Make the archive; gives how many entries it has. Raises InvalidInput, HostError."""
    count = 0

    def entry(found: tarfile.TarInfo) -> tarfile.TarInfo:
        nonlocal count
        if not (found.isreg() or found.isdir() or found.issym() or found.islnk()):
            raise InvalidInput(f"{found.name} can't be copied", why="it is a device, a pipe or the like")
        count += 1
        found.uname = found.gname = ""
        if owner is not None:
            found.uid, found.gid = owner
        return found

    try:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for source in sources:
                name = os.path.basename(os.path.abspath(source))
                if not name:
                    raise InvalidInput(f"{source} can't be copied", why="it is the whole root file system")
                try:
                    os.lstat(source)
                except OSError as error:
                    raise InvalidInput(f"{source} can't be copied", why=error.strerror or "") from error
                archive.add(source, name, filter=entry)
        file.flush()
    except OSError as error:
        if error.filename is not None:
            raise InvalidInput(f"{error.filename} can't be copied", why=error.strerror or "") from error
        raise spool.full(error) from error
    return count


class _Sink:
    """Keeps what tar says, and throws away what it writes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._said: dict[str, bytearray] = {}
        self._errors: dict[str, FleetError] = {}

    def take(self, name: str, stream: int, data: bytes) -> bool:
        """See fanout.Sink."""
        if stream == 2:
            said = self._said.setdefault(name, bytearray())
            said += data[: _SAID - len(said)]
        return True

    def end(self, name: str, error: FleetError | None) -> None:
        """See fanout.Sink."""
        if error is not None:
            self._errors[name] = error

    def problem(self, name: str, status: int) -> FleetError | None:
        """The failure in a container whose tar ended with ``status``."""
        if name in self._errors:
            return self._errors[name]
        if status == 0:
            return None
        said = bytes(self._said.get(name, b"")).decode(errors="replace").strip()
        lines = "\n".join(output.printable(line) for line in said.splitlines()[:5])
        return FleetError(f"{name}: not all was copied", why=lines or f"tar in the container ended with status {status}")


# -- to here ------------------------------------------------------------------------------------------------------


class _Unpacks(_Sink):
    """Keeps each container's archive in a file, and unpacks it."""

    def __init__(self, limit: int, places: Mapping[str, Path]) -> None:
        super().__init__(limit)
        self._places = places
        self._archives: dict[str, IO[bytes]] = {}
        self._sizes: dict[str, int] = {}

    def take(self, name: str, stream: int, data: bytes) -> bool:
        """See fanout.Sink. What gives too much finds its output closed."""
        if stream == 2:
            return super().take(name, stream, data)
        self._sizes[name] = self._sizes.get(name, 0) + len(data)
        if self._sizes[name] > self._limit:
            self._errors[name] = FleetError(
                f"{name}: it gives more than {as_size(self._limit)}", why="nothing of it was kept", hint="raise --limit"
            )
            return False
        if name not in self._archives:
            self._archives[name] = spool.empty()
        try:
            self._archives[name].write(data)
        except OSError as error:
            self._errors[name] = spool.full(error)
            return False
        return True

    def unpack(self, name: str, status: int) -> FleetError | None:
        """Unpack what a container gave; gives what went wrong."""
        problem = self.problem(name, status)
        archive = self._archives.pop(name, None)
        if archive is None or name in self._errors:
            return problem
        unpacking = Unpacking(self._places[name])
        with archive:
            archive.seek(0)
            try:
                unpacking.run(archive)
            except tarfile.TarError as error:
                why = output.printable(str(error))
                return problem or FleetError(f"{name}: the output of its tar is no whole archive", why=why)
            except OSError as error:
                return HostError.from_os_error(f"{name}: it can't be unpacked", error, path=self._places[name])
        if not unpacking.left_out:
            return problem
        lines = [output.printable(line) for line in unpacking.left_out[:_NAMED]]
        more = len(unpacking.left_out) - len(lines)
        return FleetError(
            f"{name}: {len(unpacking.left_out)} of its files and directories were left out",
            why="\n".join([*lines, *([f"and {more} more"] if more > 0 else [])]),
        )

    def close(self) -> None:
        """Throw away what was not unpacked."""
        for archive in self._archives.values():
            archive.close()


# -- results ------------------------------------------------------------------------------------------------------


def _foresee(names: Sequence[str], what: str, style: str, quiet: bool) -> int:
    results: list[ResultRecord] = [{"name": name, "status": "planned", "changed": True, "error": None} for name in names]
    if style == "table" and not quiet:
        output.say(f"lxcfleet: would {what}")
    show_results(results, style, quiet)
    return 0


def _result(name: str, word: str, error: FleetError | None) -> ResultRecord:
    if error is not None:
        output.say_error(error)
    return {
        "name": name, "status": word if error is None else "failed", "changed": error is None,
        "error": None if error is None else error.body(),
    }  # fmt: skip


def _end(results: Sequence[ResultRecord], fanout: Fanout, total: int, style: str, quiet: bool) -> int:
    show_results(results, style, quiet)
    if fanout.signal:
        output.say(f"lxcfleet: interrupted: {total - len(fanout.statuses)} of {total} not begun")
        return 128 + fanout.signal
    return status_of(results)


VERBS = {"push": push, "pull": pull}
