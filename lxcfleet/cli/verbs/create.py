"""create."""

from __future__ import annotations

from typing import Any

import click

from lxcfleet.api.requests import CreateRequest
from lxcfleet.cli import checks, options
from lxcfleet.cli.ui.follow import run_operation
from lxcfleet.errors import InvalidInput
from lxcfleet.spec.names import check_count, check_name, parse_label
from lxcfleet.spec.ports import Port, Publication, parse_port, parse_publication
from lxcfleet.spec.terms import MAX_CPUS, MAX_ORDER, MAX_PIDS, Init, Network
from lxcfleet.units import parse_size


@click.command(cls=options.TakesCommand)
@click.argument("name", required=False)
@click.option(
    "-n",
    "--count",
    type=int,
    metavar="N",
    help="How many; they are named NAME1, NAME2, …; without NAME c1, c2, …",
)
@click.option(
    "--init",
    type=click.Choice(options.INITS),
    help="What runs in it; default: app with a command, else system.",
)
@options.labelled("Give them this label; may be repeated.")
@click.option("--profile", metavar="PROFILE", help="Start from this profile of the configuration.")
@options.environment_option
@click.option(
    "--privileged", is_flag=True, help="Let root inside be root on the host. Only for what you trust."
)
@click.option(
    "--network",
    type=click.Choice([network.value for network in Network]),
    help="bridge: an address on the fleet's bridge, the default; none: a loopback interface only; host: the host's own"
    " interfaces, with no wall between (app containers only).",
)
@click.option(
    "--port",
    "ports",
    multiple=True,
    callback=options.read_by(parse_port),
    metavar="SERVICE=PORT[/udp]",
    help="What its program listens on, for SRV records: _http._tcp.NAME.fleet; may be repeated.",
)
@click.option(
    "-p",
    "--publish",
    multiple=True,
    callback=options.read_by(parse_publication),
    metavar="[ADDRESS:]HOST:CONTAINER[/udp]",
    help="Let a port of the host lead to one of theirs: to those of them that are healthy, if they share a label;"
    " may be repeated.",
)
@click.option(
    "--isolated", is_flag=True, help="Keep them from other isolated containers, and from the host but for its names."
)
@options.drain("Seconds that they stay up after they left names and ports, before they are stopped.")
@checks.health_options
@click.option(
    "--memory", metavar="SIZE", callback=options.read_by(parse_size),
    help="Memory that each may use at most, such as 512M; 0: no limit.",
)
@click.option(
    "--cpus", metavar="N", type=click.FloatRange(0, MAX_CPUS),
    help="Processors that each may use at most, such as 1.5; 0: no limit.",
)
@click.option(
    "--disk", metavar="SIZE", callback=options.read_by(parse_size),
    help="Disk space that each may take at most, such as 10G; 0: no limit.",
)
@click.option(
    "--pids", metavar="N", type=click.IntRange(0, MAX_PIDS),
    help="Processes and threads that each may have at most; 0: no limit.",
)
@click.option(
    "--no-new-privs", is_flag=True, help="Setuid programs give no rights in them (app containers only)."
)
@click.option(
    "--autostart/--no-autostart",
    default=None,
    help="Whether they start when the host boots, if they ran when it went down; default: they do.",
)
@click.option(
    "--boot-order",
    type=click.IntRange(-MAX_ORDER, MAX_ORDER),
    metavar="N",
    help="Those with a lower number are up before them at boot, and end after them; default: 0.",
)
@click.option("--no-start", is_flag=True, help="Create them stopped.")
@click.option("--ensure", is_flag=True, help="Make sure that they exist and run; leave those that do, and say what differs.")
@options.dry_run
@options.formatted
@options.quiet("Print only the names that changed.")
@click.pass_context
def create(
    ctx: click.Context,
    /,
    *,
    name: str | None,
    count: int | None,
    init: str | None,
    labels: tuple[str, ...],
    profile: str | None,
    variables: tuple[str, ...],
    privileged: bool,
    network: str | None,
    ports: tuple[Port, ...],
    publish: tuple[Publication, ...],
    isolated: bool,
    drain: float | None,
    memory: int | None,
    cpus: float | None,
    disk: int | None,
    pids: int | None,
    no_new_privs: bool,
    autostart: bool | None,
    boot_order: int | None,
    no_start: bool,
    ensure: bool,
    dry_run: bool,
    style: str,
    quiet: bool,
    **health: Any,
) -> int:
    """Clone the host into new containers and start them.

    With a command after -- they are app containers, which run just that; without one they are system
    containers, which boot the host's systemd. NAME alone makes one container of that name; -n N adds N new
    ones with the next free numbers, and with --ensure it makes sure that 1 to N exist and run.
    If any of it can't be had (names, memory, disk, uid ranges, …) nothing is created.

    \b
    Examples:
      lxcfleet create web                          one system container
      lxcfleet create -n 100                       c1 to c100
      lxcfleet create web -n 3 -l tier=front -- /usr/sbin/nginx -g 'daemon off;'
      lxcfleet create api -n 3 --health-http 8080/ready -- /usr/bin/api
      lxcfleet create api -n 3 -l role=api -p 8080:80 -- /usr/sbin/nginx -g 'daemon off;'
      lxcfleet create job -e MODE=night -- sh -c 'sleep 60; echo $MODE'
      lxcfleet create calc -n 4 --memory 2G --cpus 1.5 --disk 10G -- /opt/calc/run
      lxcfleet create db -n 2 --ensure -f json     for scripts: changes nothing the second time
    """
    command = options.command_after_dashes(ctx)
    if name is not None:
        check_name(name)
    if command and init == Init.SYSTEM:
        raise InvalidInput(
            "a system container runs the host's systemd, not a command",
            hint="leave out the command or --init system",
        )
    request = CreateRequest(
        name=name,
        count=check_count(count) if count is not None else None if name is not None else 1,
        ensure=ensure,
        init=Init(init) if init else None,
        command=command,
        environment=options.environment(variables),
        labels=_labels(labels),
        profile=profile,
        privileged=privileged,
        network=Network(network) if network else None,
        ports=ports,
        publish=publish,
        isolated=isolated,
        drain=drain,
        health=checks.health(**health),
        memory=memory,
        cpus=cpus,
        disk=disk,
        pids=pids,
        no_new_privs=no_new_privs,
        autostart=autostart,
        boot_order=boot_order,
        start=not no_start,
        dry_run=dry_run,
    )
    return run_operation(ctx, lambda client: client.create(request), style=style, quiet=quiet, dry_run=dry_run)


def _labels(texts: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in map(parse_label, texts):
        if found.setdefault(key, value) != value:
            raise InvalidInput(f"label {key} is given twice: as {found[key]!r} and as {value!r}", hint="choose one")
    return found


VERBS = {"create": create}
