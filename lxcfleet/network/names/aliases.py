"""Further names of containers: an alias is never the name of another container. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from lxcfleet.errors import InvalidInput
from lxcfleet.spec.container.spec import Spec


def check(
    own: Collection[str], wanted: Iterable[str], names: Collection[str], others: Iterable[Spec], domain: str
) -> None:
    """Refuse names that would lead to two things, or end with the ``domain`` twice.

    ``own``: the names of the containers that are to have the aliases ``wanted``; ``names``: of all containers that there
    are; ``others``: the specs of those that stay as they are. Raises InvalidInput.
    """
    for alias in wanted:
        if alias.endswith(f".{domain}"):
            raise InvalidInput(
                f"{alias} can't be an alias", why=f"an alias stands before the domain: that would be {alias}.{domain}",
                hint=f"write it as {alias.removesuffix(f'.{domain}')}",
            )  # fmt: skip
        if alias in own or alias in names:
            raise InvalidInput(
                f"{alias} can't be an alias, as it is the name of a container",
                hint="choose another alias, or a label: all containers with role=db are found as db.role and the domain",
            )
    taken = {alias: spec.name for spec in others for alias in spec.aliases}
    for name in sorted({*own} - {*names}):
        if name in taken:
            raise InvalidInput(
                f"{name} can't be a container's name, as it is an alias of {taken[name]}",
                hint=f"choose another name, or take the alias away: lxcfleet set {taken[name]} aliases=",
            )
