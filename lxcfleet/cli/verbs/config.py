"""config check and config show."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lxcfleet.cli.options import Suggesting, refuse
from lxcfleet.cli.session import connect, session_of
from lxcfleet.cli.ui.output import printable, say, write
from lxcfleet.errors import InvalidInput, Unreachable
from lxcfleet.units import counted

if TYPE_CHECKING:
    from lxcfleet.spec.files.mask_rules import Rules
    from lxcfleet.spec.files.settings import Config, NetworkSettings


@click.group(cls=Suggesting, short_help="Check or show the daemon's settings.")
def config() -> None:
    """Check or show the daemon's settings, as they stand in the file.

    The daemon goes by a changed file from `systemctl reload lxcfleet` on.
    """


@config.command(short_help="Check a file of settings, and say all that is wrong.")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.pass_context
def check(ctx: click.Context, file: Path | None) -> None:
    """Check a file of settings; without FILE, the one that the daemon reads and the rules in mask.d beside it. Says all that
    is wrong with them.

    \b
    Examples:
      lxcfleet config check
      lxcfleet config check ./new.yaml && cp ./new.yaml /etc/lxcfleet/lxcfleet.yaml
    """
    from lxcfleet.spec.files import mask_rules
    from lxcfleet.spec.files.settings import load

    paths = session_of(ctx).paths
    if file and not file.is_file():
        raise InvalidInput(f"{file} is no regular file" if file.exists() else f"there is no file {file}")
    path, wrong = file or paths.config_file, []
    looks: list[Callable[[], object]] = [lambda: load(path)]
    if file is None:
        looks.append(lambda: mask_rules.load(paths.mask_rules))
    for look in looks:
        try:
            look()
        except InvalidInput as error:
            wrong.append(error)
    if len(wrong) > 1:
        raise InvalidInput("neither the settings nor the mask's rules are valid", why="\n".join(each.why for each in wrong))
    if wrong:
        if file and f"\n{file}: fleet: unknown key" in f"\n{wrong[0].why}":
            wrong[0].hint = f"a fleet file is checked by `lxcfleet diff -f {file}`"
        raise wrong[0]
    _check_network(ctx, load(path).network)
    write(f"{path}: {'ok' if path.exists() else 'missing, all settings have their defaults'}\n")
    if wanted := _services(load(path), None if file else mask_rules.load(paths.mask_rules)):
        _check_services(ctx, wanted)
    if file is None and (found := len(mask_rules.operator_files(paths.mask_rules))):
        write(f"{paths.mask_rules}: ok, {counted(found, 'file')}\n")


def _services(settings: Config, rules: Rules | None) -> dict[str, tuple[str, ...]]:
    """The host's services that are asked for, by who asks."""
    found = {f"profile {name}": each.said.get("units", ()) for name, each in settings.profiles.items()}
    if rules is not None:
        found["units in mask.d"] = rules.units
    return {who: units for who, units in found.items() if units}


def _check_services(ctx: click.Context, wanted: Mapping[str, tuple[str, ...]]) -> None:
    """Have the daemon look at the host's services that are asked for, as it may read all of the host."""
    from lxcfleet.api.queries import UnitsRequest

    wrong, hints = [], []
    try:
        client = connect(ctx)
        found = [(who, each) for who, units in wanted.items() for each in client.units(UnitsRequest(units))]
    except Unreachable as error:
        say(f"lxcfleet: whether the host has the services that are asked for was not looked at: {error.message}")
        return
    for who, each in found:
        if each["level"] == "fail":
            wrong.append(f"{who}: {each['message']}")
            hints += [each["hint"]] if each["hint"] else []
        else:
            say(printable(f"lxcfleet: note: {who}: {each['message']}"))
    if wrong:
        raise InvalidInput("not all services that are asked for can be had", why="\n".join(wrong), hint="\n".join(hints))


def _check_network(ctx: click.Context, wanted: NetworkSettings) -> None:
    """Have the daemon look whether this host can have the network: others may have the ranges or the bridge's name."""
    from lxcfleet.api.queries import NetworkRequest
    from lxcfleet.spec.files.settings import NetworkSettings

    asked, usual = (NetworkRequest(each.bridge, each.ipv4, each.ipv6) for each in (wanted, NetworkSettings()))
    if wanted.dhcp or asked == usual:
        return
    try:
        found = connect(ctx).network(asked)
    except Unreachable as error:
        say(f"lxcfleet: whether this host can have the network was not looked at: {error.message}")
        return
    if found:
        raise InvalidInput("this host can't have the network", why="\n".join(each["message"] for each in found),
                           hint=next((each["hint"] for each in found if each["hint"]), ""))  # fmt: skip


@config.command()
@click.option("--group", metavar="NAME", help="Show what a group of a fleet file says, with all of its profiles.")
@click.option("-f", "--file", "file", default="fleet.yaml", metavar="FILE", help="With --group: that file.")
@click.option("--member", metavar="NAME", help="With --group: for this container of it.")
@click.option("--origin", is_flag=True, help="With --group: name file and line of each value.")
@click.pass_context
def show(ctx: click.Context, *, group: str | None, file: str, member: str | None, origin: bool) -> None:
    """Show all settings as YAML, those with their defaults too. With --group: what a group of a fleet file comes to.

    \b
    Examples:
      lxcfleet config show
      lxcfleet config show -f fleet.yaml --group web --origin
      lxcfleet config show -f fleet.yaml --group web --member web1
    """
    from lxcfleet.spec.files.settings import describe, load

    settings = load(session_of(ctx).paths.config_file)
    if group is None:
        refuse(["--origin"] * origin + ["--member"] * (member is not None), "it is about a group", "add --group")
        write(describe(settings).rstrip("\n") + "\n")
        return
    from lxcfleet.cli.verbs.fleet import sources
    from lxcfleet.spec.files.fleet_file import parse
    from lxcfleet.spec.files.fleet_groups import said_of
    from lxcfleet.spec.files.settings import plain

    found = parse(sources(file), settings).groups.get(group)
    if found is None:
        raise InvalidInput(f"{file} has no group {group}")
    for key, value, place in said_of(found, member):
        text = f"{key}: {plain(value)}"
        write(f"{text:<49} # {place}\n" if origin else f"{text}\n")


VERBS = {"config": config}
