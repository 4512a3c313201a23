"""Ports of the host that lead to containers: which containers may share one, and which are behind it now. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address

from lxcfleet.containers.container import Container
from lxcfleet.errors import InvalidInput
from lxcfleet.launcher.items.network import ForeignPort
from lxcfleet.network.rules.rules import Published, bridge_in
from lxcfleet.spec.container.ports import Publication, meet
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.reading.terms import Affinity


def published(specs: Iterable[Spec], members: Iterable[Container]) -> list[Published]:
    """The ports that ``specs`` publish, each with those of the ``members`` that publish it."""
    affinity = {publication: spec.affinity for spec in specs for publication in spec.publish}
    behind: dict[Publication, list[IPv4Address | IPv6Address]] = {publication: [] for publication in affinity}
    for container in members:
        for publication in container.spec.publish if container.spec is not None else ():
            behind.setdefault(publication, []).extend(container.answering)
    return [
        Published(
            publication,
            tuple(address for address in there if isinstance(address, IPv4Address)),
            tuple(address for address in there if isinstance(address, IPv6Address)),
            affinity.get(publication, Affinity.NONE),
        )
        for publication, there in sorted(behind.items(), key=lambda item: str(item[0]))
    ]


def check_shared(like: Spec, count: int, others: Iterable[Spec]) -> None:
    """Refuse ports of the host that ``count`` new containers like ``like`` can't have beside ``others``.

    Several containers share a port if they say the same of it and have a label in common. Raises InvalidInput.
    """
    present = list(others)
    for publication in like.publish:
        users = [
            (spec, other) for spec in present for other in spec.publish
            if other.key == publication.key and meet(other.address, publication.address)
        ]  # fmt: skip
        group = set(like.labels.items())
        for spec, other in users:
            group &= set(spec.labels.items())
            if other != publication:
                raise _taken(publication, f"{spec.name} publishes it as {other}", "choose another port")
            if spec.affinity is not like.affinity:
                hint = f"use --affinity {spec.affinity}, or change all together: lxcfleet set NAMES affinity={like.affinity}"
                raise _taken(publication, f"{spec.name} shares it with affinity {spec.affinity}, not {like.affinity}", hint)
        if len(users) + count > 1 and not group:
            names = ", ".join(spec.name for spec, _ in users[:3])
            if users:
                raise _taken(
                    publication, f"{names} and these have no label in common",
                    "to share it give them the same label, -l KEY=VALUE; or choose another port",
                )  # fmt: skip
            raise InvalidInput(
                f"{count} containers can't each have the host's port {publication.host}/{publication.protocol}",
                hint="to share it they need a label in common: -l KEY=VALUE",
            )


def check_foreign(publications: Iterable[Publication], others: Sequence[ForeignPort]) -> None:
    """Refuse ports of the host that another fleet publishes: one of them would get nothing. Raises InvalidInput."""
    for publication in publications:
        for other in others:
            same = (other["protocol"], other["port"]) == publication.key
            if same and meet(other["address"], publication.address):
                whose = f"the fleet of the bridge {bridge_in(other['table'])} publishes it"
                raise _taken(publication, whose, "choose another port, or destroy what publishes it there")


def clashes(publications: Iterable[Publication], others: Sequence[ForeignPort]) -> list[str]:
    """Those that another fleet publishes, too, each with the fleet."""
    theirs: dict[tuple[str, int], list[ForeignPort]] = {}
    for other in others:
        theirs.setdefault((other["protocol"], other["port"]), []).append(other)
    return [
        f"{publication.host}/{publication.protocol} (the bridge {bridge_in(other['table'])})"
        for publication in publications
        for other in [each for each in theirs.get(publication.key, ()) if meet(each["address"], publication.address)][:1]
    ]


def _taken(publication: Publication, why: str, hint: str) -> InvalidInput:
    where = f"{publication.host}/{publication.protocol}"
    return InvalidInput(f"the host's port {where} is published already", why=why, hint=hint)
