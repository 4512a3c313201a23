"""app add, bake, list, info, verify, rm, use and undo."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import click

from lxcfleet.api.apps import (
    LONGEST_BAKE,
    MOST_KEPT,
    MOST_STRIPPED,
    USUAL_BAKE,
    AddAppRequest,
    AppRecord,
    AppSwitchRecord,
    BakeAppRequest,
    NamedAppsRequest,
    UseAppRequest,
)
from lxcfleet.api.client import Client
from lxcfleet.cli import complete, options
from lxcfleet.cli.fields import said
from lxcfleet.cli.session import connect
from lxcfleet.cli.statuses import FOUND
from lxcfleet.cli.ui import output, rolling
from lxcfleet.cli.ui.follow import run_operation
from lxcfleet.errors import InvalidInput, NotFound
from lxcfleet.spec.container.apps import AppForm, check_app, check_version, parse_app, parse_release
from lxcfleet.spec.reading.terms import NetworkMode
from lxcfleet.spec.selection import Selection
from lxcfleet.units import counted, parse_size, some

_SHOWN = 10
"""So many containers are named."""
_FIELDS = (
    "name", "version", "size_bytes", "files", "containers", "created", "source", "base", "packages", "older", "digest",
    "form", "covers", "no_erofs", "path", "problem",
)  # fmt: skip


@click.group(cls=options.Suggesting, short_help="Apps: an application, shipped once in releases.")
def app() -> None:
    """Apps: an application that is shipped once, in releases that nothing changes afterwards.

    A container gets one with `create --app NAME@VERSION` or `set NAME app=NAME@VERSION`: read-only at /opt/NAME, unless
    another path is named. Any number of containers have the same files, which take no space in any of them.

    \b
    Examples:
      lxcfleet app add shop ./build --version 1.4
      lxcfleet create web -n 3 --app shop@1.4 -- /opt/shop/bin/serve
    """


def _named(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if "@" in value:
            parse_release(value)
        else:
            check_app(value)
    return values


def _release(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        parse_release(value)
    return values


def _layered(verb: Callable[..., Any]) -> Callable[..., Any]:
    """The options that make a release a layer."""
    form = click.option(
        "--form", type=click.Choice([each.value for each in AppForm]), default=AppForm.MOUNT.value,
        help="How containers have it: as a mount at a place of its own, or as a layer, with files among the host's. Default:"
        " mount.",
    )  # fmt: skip
    covers = click.option(
        "--covers", multiple=True, metavar="/PATH",
        help="A file of the host that a layer may hide, or a directory with such files; may be repeated.",
    )  # fmt: skip
    return form(covers(verb))


@app.command()
@click.argument("name")
@click.argument("source", metavar="DIR|TAR", type=click.Path(exists=True))
@click.option("--version", required=True, metavar="VERSION", help="Its version, such as 1.4. One that exists is refused.")
@click.option(
    "--strip", type=click.IntRange(0, MOST_STRIPPED), default=0, metavar="N",
    help="Take N directories off each name in the archive.",
)  # fmt: skip
@click.option(
    "--keep", type=click.IntRange(0, MOST_KEPT), default=None, metavar="N",
    help="Keep N releases of this app: remove older ones that nobody has. 0: keep all. Default: as lxcfleet.yaml says.",
)  # fmt: skip
@_layered
@options.dry_run
@options.formatted
@options.quiet("Print only the release.")
@click.pass_context
def add(
    ctx: click.Context,
    /,
    *,
    name: str,
    source: str,
    version: str,
    strip: int,
    keep: int | None,
    form: str,
    covers: tuple[str, ...],
    dry_run: bool,
    style: str,
    quiet: bool,
) -> int:
    """Seal a release: of a directory, or of a tar archive (plain, gzip, bzip2 or xz).

    The files are copied; nothing changes them afterwards. They belong to root, nobody may write to them, and setuid bits and
    capabilities are dropped. An archive with names or links that lead out of it, or with devices, is refused.

    \b
    Examples:
      lxcfleet app add shop ./build --version 1.4
      lxcfleet app add shop shop-1.5.tar.xz --version 1.5 --strip 1 --keep 5
      lxcfleet app add tools ./root --version 2 --form layer --covers /usr/bin/vi
    """
    request = AddAppRequest(
        check_app(name), check_version(version), os.path.abspath(source), strip, keep, dry_run, form, covers
    )
    return run_operation(ctx, lambda client: client.add_app(request), style=style, quiet=quiet, dry_run=dry_run)


@app.command(cls=options.TakesCommand)
@click.argument("name")
@click.option("--version", required=True, metavar="VERSION", help="Its version, such as 1.4. One that exists is refused.")
@click.option("--path", default="", metavar="/PATH", help="The directory that becomes the release. Default: /opt/NAME;"
              " of a layer all of /opt, /srv and /usr.")
@click.option(
    "--timeout", type=options.Time(1, LONGEST_BAKE), default=USUAL_BAKE, metavar="TIME",
    help="The longest time that the command may take. Default: 3600.",
)  # fmt: skip
@click.option(
    "--keep", type=click.IntRange(0, MOST_KEPT), default=None, metavar="N",
    help="Keep N releases of this app, see `app add`.",
)  # fmt: skip
@click.option("--profile", metavar="PROFILE", help="The profile of the clone.")
@click.option("-v", "--volume", "volumes", multiple=True, metavar="SOURCE:/PATH", help="A mount of the clone; see `create`.")
@click.option("-e", "--env", "environment", multiple=True, metavar="NAME=VALUE", help="A variable of the command.")
@click.option(
    "--network", type=click.Choice([each.value for each in NetworkMode if each is not NetworkMode.UPLINK]), default=None,
    help="The network of the clone; see `create`.",
)  # fmt: skip
@click.option("--memory", callback=options.read_by(parse_size), metavar="SIZE", help="Memory that it may use at most.")
@click.option("--disk", callback=options.read_by(parse_size), metavar="SIZE", help="Disk space that it may take at most.")
@_layered
@options.dry_run
@options.formatted
@options.quiet("Print only the release.")
@click.pass_context
def bake(
    ctx: click.Context,
    /,
    *,
    name: str,
    version: str,
    path: str,
    timeout: float,
    keep: int | None,
    form: str,
    covers: tuple[str, ...],
    dry_run: bool,
    style: str,
    quiet: bool,
    **taken: Any,
) -> int:
    """Build a release: in a throwaway clone of this host, which runs the command after --.

    What the command leaves below /opt/NAME, or --path, becomes the release; the clone and all else that it wrote is
    destroyed. The host's packages whose libraries the release needs are noted: `app list` and `verify` say so once the host
    has others. If the command fails, or takes too long, nothing is left.

    \b
    Examples:
      lxcfleet app bake shop --version 1.5 -v /srv/src/shop:/src -- make -C /src install PREFIX=/opt/shop
    """
    command = options.command_after_dashes(ctx)
    if not command:
        raise InvalidInput("there is no command that builds it", hint="lxcfleet app bake NAME --version V -- make install")
    asked = {**said(taken), "command": command}
    request = BakeAppRequest(check_app(name), check_version(version), path, timeout, keep, dry_run, asked, form, covers)
    return run_operation(ctx, lambda client: client.bake_app(request), style=style, quiet=quiet, dry_run=dry_run)


@app.command("list")
@click.argument("name", required=False, shell_complete=complete.apps)
@options.formatted
@options.quiet("Print only releases, as NAME@VERSION.")
@click.pass_context
def list_(ctx: click.Context, *, name: str | None, style: str, quiet: bool) -> None:
    """Show all releases, or those of one app, and which containers have them.

    \b
    Examples:
      lxcfleet app list shop
      lxcfleet app list -f json | jq -r '.[] | select(.containers == []) | .release'
    """
    records = [each for each in connect(ctx).apps() if name in (None, each["name"])]
    if quiet:
        output.write("".join(f"{each['release']}\n" for each in records))
        return
    output.show_list(
        style, quiet, records, _FIELDS, table=lambda: _table(records), text=_text, nothing="no apps",
    )  # fmt: skip


def _table(records: Sequence[AppRecord]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("APP", "VERSION", "SIZE", "SEALED", "FORM", "CONTAINERS", "NOTE")]
    for record in records:
        last = f"rebuild: {', '.join(record['older'])} changed since" if record["older"] else ""
        if record["problem"]:
            last = f"! {record['problem'].splitlines()[0]}"
        rows.append((
            record["name"], record["version"], output.size(record["size_bytes"]), record["created"][:16].replace("T", " "),
            record["form"], _text(record, "containers"), last,
        ))  # fmt: skip
    return rows


def _text(record: AppRecord, key: str) -> str:
    value: Any = record[key]  # type: ignore[literal-required]
    if isinstance(value, dict):
        return ",".join(f"{name} {' -> '.join(map(str, it)) if isinstance(it, list) else it}" for name, it in value.items())
    return ",".join(value) if isinstance(value, list) else "" if value is None else str(value)


@app.command()
@click.argument("release", metavar="NAME@VERSION", shell_complete=complete.releases)
@options.formatted
@click.pass_context
def info(ctx: click.Context, release: str, *, style: str) -> None:
    """Show all about one release.

    \b
    Examples:
      lxcfleet app info shop@1.4
    """
    parse_release(release)
    found = [each for each in connect(ctx).apps() if each["release"] == release]
    if not found:
        raise NotFound(f"there is no app {release}", hint="`lxcfleet app list` shows the ones that exist")
    record = found[0]
    texts = {"size_bytes": ("size", output.size(record["size_bytes"]))}

    def lines() -> list[str]:
        named = [texts.get(key, (key.replace("_", " "), _text(record, key))) for key in _FIELDS]
        return output.columns([(f"{word}:", text) for word, text in named])

    output.show(style, record, lines=lines, rows=lambda: [_FIELDS, [_text(record, key) for key in _FIELDS]])


@app.command()
@click.argument("names", nargs=-1, metavar="[NAME[@VERSION]]...", callback=_named, shell_complete=complete.releases)
@options.formatted
@options.quiet("Print only the releases that were altered.")
@click.pass_context
def verify(ctx: click.Context, /, *, names: tuple[str, ...], style: str, quiet: bool) -> int:
    """Read all files of releases, and tell whether they are what was sealed. Without a name: of all.

    Exit status 4: some were altered. No container starts with such a release.

    \b
    Examples:
      lxcfleet app verify
      lxcfleet app verify shop@1.4
    """
    found = connect(ctx).verify_apps(NamedAppsRequest(names))
    altered = [each for each in found if not each["whole"]]
    if quiet:
        output.write("".join(f"{each['release']}\n" for each in altered))
    else:
        lines = [f"{each['release']}: {'as it was sealed' if each['whole'] else each['problem']}" for each in found]
        output.show(
            style, found, lines=lambda: [output.printable(line) for text in lines for line in text.splitlines()],
            rows=lambda: [
                ("release", "whole", "problem"),
                *((each["release"], str(each["whole"]).lower(), each["problem"] or "") for each in found),
            ],
        )  # fmt: skip
    return FOUND if altered else 0


@app.command()
@click.argument(
    "names", nargs=-1, required=True, metavar="NAME@VERSION...", callback=_release, shell_complete=complete.releases
)
@options.dry_run
@options.formatted
@options.quiet("Print only those that were removed.")
@click.pass_context
def rm(ctx: click.Context, /, *, names: tuple[str, ...], dry_run: bool, style: str, quiet: bool) -> int:
    """Remove releases. None is removed if a container's spec still names one of them.

    \b
    Examples:
      lxcfleet app rm shop@1.2 shop@1.3
    """
    request = NamedAppsRequest(names, dry_run)
    return run_operation(ctx, lambda client: client.remove_apps(request), style=style, quiet=quiet, dry_run=dry_run)


def _words(words: Sequence[str]) -> tuple[list[str], str]:
    """The selection, and the release among the words."""
    releases = [word for word in words if "@" in word]
    if len(releases) != 1:
        raise InvalidInput(
            "say one release" if not releases else f"{', '.join(releases)}: only one release can be used",
            hint="lxcfleet app use 'web*' shop@1.4",
        )  # fmt: skip
    parse_app(releases[0])
    return [word for word in words if word != releases[0]], releases[0]


_revert = click.option("--no-revert", is_flag=True, help="If a gate fails, halt there: do not go back to the former release.")


@app.command()
@click.argument(
    "words", nargs=-1, required=True, metavar="[NAME|GLOB]... APP@VERSION[:/PATH]", shell_complete=complete.names_and_releases
)
@options.labelled("Only those that have this label; may be repeated.")
@click.option("--all", "everything", is_flag=True, help="All containers.")
@_revert
@rolling.policy_options
@options.dry_run
@options.formatted
@options.quiet("Print only the names of those that get it.")
@click.pass_context
def use(
    ctx: click.Context,
    /,
    *,
    words: tuple[str, ...],
    labels: tuple[str, ...],
    everything: bool,
    no_revert: bool,
    dry_run: bool,
    style: str,
    quiet: bool,
    **more: Any,
) -> int:
    """Give containers another release of an app.

    All of them are checked before the first is touched. Those that run are restarted in waves, gated by their health; if a
    gate fails, all go back to the release that they had. Containers that have the release already are left alone.

    \b
    Examples:
      lxcfleet app use 'web*' shop@1.5
      lxcfleet app use -l role=web shop@1.5 --canaries 2 --dry-run
    """
    patterns, release = _words(words)
    chosen = options.selection(patterns, labels, everything)
    request = UseAppRequest(chosen, release, rolling.policy_of(more), not no_revert, dry_run)
    return _switch(ctx, request, wait=not more["no_wait"], style=style, quiet=quiet)


@app.command()
@options.selected
@_revert
@rolling.policy_options
@options.dry_run
@options.formatted
@options.quiet("Print only the names of those that get it.")
@click.pass_context
def undo(
    ctx: click.Context,
    /,
    *,
    patterns: tuple[str, ...],
    labels: tuple[str, ...],
    everything: bool,
    no_revert: bool,
    dry_run: bool,
    style: str,
    quiet: bool,
    **more: Any,
) -> int:
    """Give containers the release that they had before the last `app use`: those chosen, or all that it changed.

    \b
    Examples:
      lxcfleet app undo
      lxcfleet app undo web3
    """
    chosen = options.optional_selection(patterns, labels, everything)
    if not chosen.narrow:
        chosen = Selection(everything=True)
    request = UseAppRequest(chosen, None, rolling.policy_of(more), not no_revert, dry_run)
    return _switch(ctx, request, wait=not more["no_wait"], style=style, quiet=quiet)


def _switch(ctx: click.Context, request: UseAppRequest, *, wait: bool, style: str, quiet: bool) -> int:
    client = connect(ctx)
    record = client.use_app(request)
    begun = record["rollout"]
    if not quiet and style == "table":
        _tell(client, request.selection, record)
    if begun is not None and wait and begun["ended"] is None:
        try:
            record["rollout"] = rolling.follow(client, begun, quiet=quiet)
        except KeyboardInterrupt:
            output.say("lxcfleet: left; the rollout goes on: `lxcfleet rollout status`")
            return rolling.INTERRUPTED
    rollout = record["rollout"]
    undone = rollout is not None and begun is not None and rollout["undoes"] == begun["id"]
    names = [*record["apps"]]
    if quiet:
        output.write("".join(f"{name}\n" for name in names))
    elif style != "table":
        rows = [(name, *(each or "" for each in pair)) for name, pair in record["apps"].items()]
        output.show(style, record, lines=list, rows=lambda: [("name", "former", "app"), *rows])
    elif rollout is not None:
        what = "taken back" if undone else "restarted"
        output.say(f"lxcfleet: {what} in waves: rollout {rollout['id']} is {rollout['status']}")
    if rollout is None:
        return 0
    if undone:
        raise rolling.tell_taken_back(rollout)
    return rolling.tell_halt(rollout)


def _tell(client: Client, chosen: Selection, record: AppSwitchRecord) -> None:
    if not record["changed"]:
        rolling.say_nothing(client, chosen, "all of them have it already")
        return
    alike: dict[tuple[str | None, ...], list[str]] = {}
    for name, pair in record["apps"].items():
        alike.setdefault(tuple(pair), []).append(name)
    for (former, wanted), names in alike.items():
        would = "would be" if record["dry_run"] else "is to be" if len(names) == 1 else "are to be"
        many = counted(len(names), "container")
        output.say(f"lxcfleet: {many} {would} changed: {former or 'no app'} -> {wanted or 'no app'}: "
                   + some(names, _SHOWN, " "))


VERBS = {"app": app}
