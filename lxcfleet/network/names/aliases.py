"""Further names of containers: an alias is never the name of another container. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from lxcfleet.errors import InvalidInput
from lxcfleet.network.names.hosts import group_names
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


def check_groups(new: Sequence[Spec], others: Iterable[Spec], domain: str) -> None:
    """Refuse an alias that is the name of a group of containers with some label: it would lead to them, too.

    ``new``: specs of which one may be the cause; ``others``: of all that stay as they are. Raises InvalidInput.
    """
    every = [*((spec, True) for spec in new), *((spec, False) for spec in others)]
    aliased = {
        f"{alias}.{domain}": (alias, spec.name, is_new) for spec, is_new in every for alias in spec.aliases if "." in alias
    }
    if not aliased:
        return
    for spec, is_new in every:
        for group in aliased.keys() & {*group_names(spec.labels, domain)}:
            alias, owner, by_alias = aliased[group]
            value, _, key = alias.partition(".")
            if by_alias:
                raise InvalidInput(
                    f"{alias} can't be an alias, as it is the name of the containers with {key}={value}",
                    hint=f"choose another alias, or give the container that label: -l {key}={value}",
                )
            if is_new:
                raise InvalidInput(
                    f"a container can't have the label {key}={value}",
                    why=f"its group would be found by {alias}, which is an alias of {owner}",
                    hint=f"choose another label, or take the alias away: lxcfleet set {owner} aliases=",
                )
