"""Combinations of fields that are refused: one list, for requests, profiles, changes of specs and specs on disk. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from lxcfleet.errors import InvalidInput
from lxcfleet.spec.container import raw_lxc
from lxcfleet.spec.container.addresses import is_hardware
from lxcfleet.spec.container.depends import MAX_DEPENDS
from lxcfleet.spec.container.fields import NO_COMMAND, table
from lxcfleet.spec.container.health import CheckKind
from lxcfleet.spec.container.secrets import Then
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.container.uplinks import NO_UPLINK
from lxcfleet.spec.reading.terms import Affinity, Init, NetworkMode

Values = Mapping[str, Any]
"""Values by key: all values of a spec, or the values that a profile has."""


@dataclass(frozen=True)
class RefusedTogether:
    """A combination of fields that is refused, as it makes no sense."""

    keys: tuple[str, ...]
    """The fields of the combination; a complaint names the first."""
    wrong: Callable[[Values], InvalidInput | None]
    profile: bool = True
    """Whether a profile is held to the rule by itself. Not if a request could still add the value that is missing."""


def check(spec: Spec) -> None:
    """Raise InvalidInput if parts of a new or a changed spec don't go together."""
    values = {key: getattr(spec, key) for key in table()}
    for rule in RULES:
        error = rule.wrong(values)
        if error is not None:
            raise error


def problems(spec: Spec) -> Iterator[tuple[str, str]]:
    """All parts of a new spec that don't go together: the key to blame, and why."""
    values = {key: getattr(spec, key) for key in table()}
    for rule in RULES:
        error = rule.wrong(values)
        if error is not None:
            yield rule.keys[0], ": ".join(part for part in (error.message, error.why) if part)


def of_profile(said: Values) -> Iterator[tuple[str, str]]:
    """The fields of a profile that don't go together: the key to blame, and why."""
    for rule in RULES:
        if rule.profile and all(key in said for key in rule.keys):
            error = rule.wrong(said)
            if error is not None:
                yield rule.keys[0], f"{error.message}{': ' if error.why else ''}{error.why}"


def on_disk(spec: Spec) -> Iterator[tuple[str, str]]:
    """The reasons why lxcfleet can't have written this spec: the key to blame, and why. A combination that an older version
    allowed is no such reason, as that container runs."""
    if not spec.created:
        yield "created", "is missing; the file may have been cut off"
    if (spec.connected or spec.on_uplink) != (spec.address is not None or spec.hardware is not None):
        yield "address", "a container on the bridge has one, or a MAC address (hardware); others have none"
    if spec.on_uplink and spec.address is not None:
        yield "address", "a container on an uplink has a MAC address (hardware) instead"
    if spec.hardware is not None and (spec.address is not None or not is_hardware(spec.hardware)):
        yield "hardware", "is to be a MAC address, and instead of an address"
    if (spec.init is Init.APP) != bool(spec.command):
        yield "command", "an app container has one, a system container has none"
    if spec.disk and spec.privileged:
        yield "disk", "a privileged container could raise its limit, so it has none"


def as_it_is(spec: Spec) -> Spec:
    """A spec from disk without a field that has no effect: an older version allowed isolation on the host's network, and an
    affinity without published ports."""
    if spec.isolated and spec.network is NetworkMode.HOST:
        spec = replace(spec, isolated=False)
    return replace(spec, affinity=Affinity.NONE) if _affinity_of_nothing(vars(spec)) is not None else spec


# -- the rules ----------------------------------------------------------------------------------------------


def _command_of_system(values: Values) -> InvalidInput | None:
    if values["init"] is Init.SYSTEM and values["command"]:
        hint = NO_COMMAND
        return InvalidInput("a system container runs systemd and takes no command", hint=hint)
    return None


def _app_without_command(values: Values) -> InvalidInput | None:
    if values["init"] is Init.APP and not values["command"]:
        hint = "give it after --, for example: -- sleep infinity"
        return InvalidInput("an app container needs a command", hint=hint)
    return None


def _of_other_init(values: Values) -> InvalidInput | None:
    """Refuse a field that only the other kind of container has."""
    for key, row in table().items():
        if row.init is not None and values["init"] is not row.init and values[key] != row.default:
            why, _, hint = row.init_why.partition("\n")
            return InvalidInput(f"{key.replace('_', '-')} is for {row.init} containers", why=why, hint=hint)
    return None


def _command(values: Values) -> InvalidInput | None:
    command = values["command"]
    if command and "=" in command[0]:
        return InvalidInput(f"{command[0]!r} can't be a command", why="env would take it for a variable")
    return None


_APART = "the host does not reach a container on its uplink, nor that the host: macvlan keeps the two apart"


def _check_without_network(values: Values) -> InvalidInput | None:
    health, network = values["health"], values["network"]
    if health is None or not health.needs_address or network is NetworkMode.BRIDGE:
        return None
    none = f"the container would have none with --network {network}"
    return InvalidInput(
        f"the check {health} needs a network of its own", why=_APART if network is NetworkMode.UPLINK else none,
        hint="leave out --network, or check it from inside with --health-exec",
    )  # fmt: skip


def _units_of_app(values: Values) -> InvalidInput | None:
    health = values["health"]
    if values["init"] is Init.SYSTEM or health is None or health.kind is not CheckKind.UNITS:
        return None
    return InvalidInput(
        "ignore_units is for system containers", why="an app container has no systemd", hint="give it another check, or none"
    )


def _encodings(values: Values) -> InvalidInput | None:
    health = values["health"]
    texts = (*values["command"], *values["environment"], *values["environment"].values())
    for text in (*texts, *(health.command if health else ())):
        try:
            text.encode()
        except UnicodeEncodeError:
            return InvalidInput(f"{text!r} is not UTF-8")
    return None


MAX_WORDS = 120_000
"""Bytes of a command and its variables, where it has any: they come to env(1) in one argument (lxc_config.init_command),
which may have 131,071 (MAX_ARG_STRLEN), and some of these are lxcfleet's own."""
_ESCAPED = " \n\t\r\f\v\\\"$"
"""Characters that take two bytes there."""


def _too_many_words(values: Values) -> InvalidInput | None:
    variables, command = values["environment"], values.get("command", ())
    texts = [*(f"{key}={value}" for key, value in variables.items()), *command]
    length = sum(len(text.encode("utf-8", "replace")) + sum(map(text.count, _ESCAPED)) + len('""\\_') for text in texts)
    if not variables or length <= MAX_WORDS:
        return None
    return InvalidInput(
        "the command and its variables are too long", why=f"they take {length} bytes on their way, at most {MAX_WORDS} go",
        hint="give it large values as files: by a secret, by a volume, or by `lxcfleet push`",
    )  # fmt: skip


def _system_on_host_network(values: Values) -> InvalidInput | None:
    if values["network"] is not NetworkMode.HOST or values["init"] is not Init.SYSTEM:
        return None
    return InvalidInput(
        "a system container can't use the host's network", why="its systemd would take it for its own",
        hint="give a command after --, or leave out --network host",
    )  # fmt: skip


def _without_bridge(key: str, thing: str) -> Callable[[Values], InvalidInput | None]:
    def wrong(values: Values) -> InvalidInput | None:
        if values["network"] is NetworkMode.BRIDGE or not values[key]:
            return None
        if values["network"] is NetworkMode.UPLINK:
            return InvalidInput(
                f"a container with --network uplink can't have {key.replace('_', '-')}", why=_REASONS.get(key, _APART),
                hint=f"leave out {key.replace('_', '-')}, or use --network bridge",
            )  # fmt: skip
        return InvalidInput(
            f"a container with --network {values['network']} has no {thing} of its own",
            hint=f"leave out the {thing}, or --network",
        )

    return wrong


_REASONS = {
    "ports": "the fleet's name server is on the bridge only", "aliases": "the fleet's name server is on the bridge only",
    "receive_mbit": "the fleet's bridge limits bandwidth", "send_mbit": "the fleet's bridge limits bandwidth",
    "static_addresses": "these are of the fleet's own range; say it like --uplink 'parent=eth0 address=192.0.2.5/24'",
}  # fmt: skip


def _uplink(values: Values) -> InvalidInput | None:
    uplink, on_it = values["uplink"], values["network"] is NetworkMode.UPLINK
    if not on_it and uplink != NO_UPLINK:
        return InvalidInput(
            f"an uplink goes with --network uplink, not with --network {values['network']}",
            hint="use --network uplink, or leave out the uplink",
        )  # fmt: skip
    problem = next(uplink.problems(), None) if on_it else None
    if problem is None:
        return None
    hint = "for example: --network uplink --uplink 'parent=eth0 vlan=30'"
    return InvalidInput("the uplink can't be used", why=problem, hint=hint)


def _affinity_of_nothing(values: Values) -> InvalidInput | None:
    if values["affinity"] is Affinity.NONE or values["publish"]:
        return None
    return InvalidInput(
        f"affinity {values['affinity']} has nothing to work on", why="the container publishes no port of the host",
        hint="publish one, as with --publish 80:8080, or leave the affinity out (affinity=none)",
    )  # fmt: skip


def _isolated_on_host_network(values: Values) -> InvalidInput | None:
    if values["network"] is not NetworkMode.HOST or not values["isolated"]:
        return None
    return InvalidInput(
        "a container on the host's network can't be isolated", why="it has the host's own interfaces",
        hint="leave out --isolated or --network host",
    )  # fmt: skip


def _disk_of_privileged(values: Values) -> InvalidInput | None:
    if not values["privileged"] or not values["disk"]:
        return None
    return InvalidInput(
        "a privileged container's disk space can't be limited", why="its root is the host's, and could raise the limit",
        hint="leave out --privileged or the limit",
    )  # fmt: skip


def _too_many_depends(values: Values) -> InvalidInput | None:
    if len(values["depends_on"]) <= MAX_DEPENDS:
        return None
    return InvalidInput(f"depends_on has more than {MAX_DEPENDS} names", hint="name groups instead of containers")


def _nesting_of_privileged(values: Values) -> InvalidInput | None:
    if not values["privileged"] or not values["nesting"]:
        return None
    return InvalidInput(
        "a privileged container can't have nesting", why="a /proc that nothing covers would be the host's, to root",
        hint="leave out --privileged or --nesting",
    )  # fmt: skip


def _sysctl_of_host(values: Values) -> InvalidInput | None:
    found = [key for key in values["lxc"] if key.startswith(f"{raw_lxc.SYSCTL}net.")]
    if values["network"] is not NetworkMode.HOST or not found:
        return None
    return InvalidInput(
        f"{found[0]} can't be set on the host's network", why="it would be set for the host",
        hint=f"leave it out, or write it to a file in /etc/sysctl.d: {found[0].removeprefix(raw_lxc.SYSCTL)}",
    )  # fmt: skip


def _key_of_field(values: Values) -> InvalidInput | None:
    """Refuse a limit by a field and by a key of LXC's: a start would take the key's, and a change the field's."""
    for field, files in raw_lxc.FILES_OF.items():
        found = [key for key in values["lxc"] if key.removeprefix(raw_lxc.CGROUP1).removeprefix(raw_lxc.CGROUP2) in files]
        if found and values[field] not in (None, {}):
            return InvalidInput(f"{found[0]} and {field} can't both be set", hint=f"leave out the key: {found[0]}=")
    return None


def _signal_to_systemd(values: Values) -> InvalidInput | None:
    signals = [each for each in values["secrets"] if each.on_change.then is Then.SIGNAL]
    if values["init"] is Init.APP or not signals:
        return None
    return InvalidInput(
        f"the secret {signals[0].secret}: a signal would go to systemd", why="that is process 1 of a system container",
        hint="have a command run inside: on_change='exec:systemctl reload UNIT'",
    )  # fmt: skip


def _app_over_volume(values: Values) -> InvalidInput | None:
    app = values["app"]
    if app is None or app.target not in [each.target for each in values["volumes"]]:
        return None
    return InvalidInput(
        f"{app.target} is given twice", why=f"the app {app.release} and a volume can't both be mounted there",
        hint=f"name another place for one of them: app={app.release}:/PATH",
    )  # fmt: skip


RULES = (
    RefusedTogether(("command", "init"), _command_of_system),
    RefusedTogether(("init",), _app_without_command, profile=False),
    RefusedTogether(("init",), _of_other_init, profile=False),
    RefusedTogether(("command",), _command),
    RefusedTogether(("health", "network"), _check_without_network),
    RefusedTogether(("health", "init"), _units_of_app),
    RefusedTogether(("command", "environment", "health"), _encodings),
    RefusedTogether(("environment",), _too_many_words),
    RefusedTogether(("network", "init"), _system_on_host_network),
    RefusedTogether(("ports", "network"), _without_bridge("ports", "ports")),
    RefusedTogether(("publish", "network"), _without_bridge("publish", "ports")),
    RefusedTogether(("aliases", "network"), _without_bridge("aliases", "names")),
    RefusedTogether(("receive_mbit", "network"), _without_bridge("receive_mbit", "bandwidth")),
    RefusedTogether(("send_mbit", "network"), _without_bridge("send_mbit", "bandwidth")),
    RefusedTogether(("static_addresses", "network"), _without_bridge("static_addresses", "addresses")),
    RefusedTogether(("affinity", "publish"), _affinity_of_nothing, profile=False),
    RefusedTogether(("uplink", "network"), _uplink),
    RefusedTogether(("isolated", "network"), _isolated_on_host_network),
    RefusedTogether(("lxc", "network"), _sysctl_of_host),
    RefusedTogether(("lxc", *raw_lxc.FILES_OF), _key_of_field, profile=False),
    RefusedTogether(("disk", "privileged"), _disk_of_privileged),
    RefusedTogether(("depends_on",), _too_many_depends),
    RefusedTogether(("nesting", "privileged"), _nesting_of_privileged),
    RefusedTogether(("secrets", "init"), _signal_to_systemd, profile=False),
    RefusedTogether(("app", "volumes"), _app_over_volume),
)
