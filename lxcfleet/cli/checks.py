"""The options of ``create`` for a container's health check."""

from __future__ import annotations

from typing import Any

import click

from lxcfleet.cli.options import F, read_by
from lxcfleet.errors import InvalidInput
from lxcfleet.spec.health import MAX_TIMEOUT, CheckKind, HealthCheck, parse_url

_USUAL = HealthCheck(CheckKind.TCP)


def health_options(function: F) -> F:
    """``--health-…``."""
    options = (
        click.option("--health-exec", metavar="CMD", help="Healthy is when this shell command inside exits with 0."),
        click.option("--health-tcp", type=click.IntRange(1, 65535), metavar="PORT", help="… when this port accepts."),
        click.option(
            "--health-http", metavar="[PORT][/PATH]|URL", callback=read_by(parse_url),
            help="… when this is answered with a status from 200 to 399."
        ),
        click.option(
            "--health-interval", type=click.FloatRange(0.1, 3600), metavar="SECONDS",
            help=f"From one check to the next; default: {_USUAL.interval:g}. At first they come faster.",
        ),
        click.option(
            "--health-timeout", type=click.FloatRange(0.1, MAX_TIMEOUT), metavar="SECONDS",
            help=f"How long a check may take; default: {_USUAL.timeout:g}.",
        ),
        click.option(
            "--health-retries", type=click.IntRange(1, 1000), metavar="N",
            help=f"So many failures in a row mean unhealthy; default: {_USUAL.retries}.",
        ),
        click.option(
            "--health-start-period", type=click.FloatRange(0, 86400), metavar="SECONDS",
            help=f"For so long after a start failures do not count; default: {_USUAL.start_period:g}.",
        ),
    )  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


def health(
    *,
    health_exec: str | None,
    health_tcp: int | None,
    health_http: tuple[str | None, int, str] | None,
    health_interval: float | None,
    health_timeout: float | None,
    health_retries: int | None,
    health_start_period: float | None,
) -> HealthCheck | None:
    """The health check that these options ask for; raises InvalidInput."""
    times = {
        "interval": health_interval,
        "timeout": health_timeout,
        "retries": health_retries,
        "start_period": health_start_period,
    }
    said: dict[str, Any] = {key: value for key, value in times.items() if value is not None}
    kinds = [kind for kind in (health_exec, health_tcp, health_http) if kind is not None]
    if len(kinds) != 1:
        if not kinds and not said:
            return None
        what = "only one of them" if kinds else "one of them"
        raise InvalidInput(f"give {what}: --health-exec, --health-tcp, --health-http")
    if health_exec is not None:
        return HealthCheck(CheckKind.EXEC, command=("/bin/sh", "-c", health_exec), **said)
    if health_tcp is not None:
        return HealthCheck(CheckKind.TCP, port=health_tcp, **said)
    assert health_http is not None
    host, port, path = health_http
    return HealthCheck(CheckKind.HTTP, host=host, port=port, path=path, **said)
