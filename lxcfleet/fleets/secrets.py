"""The changes that a fleet file would make to the sources of secrets. Pure: references alone, and no value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lxcfleet.spec.container.secrets import SecretSource


@dataclass(frozen=True)
class SecretChange:
    """One secret whose source is declared, becomes another one, or is declared no more."""

    name: str
    change: str
    """create, live or remove."""
    differs: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """In words, what it has and what it gets; arguments of commands are not told."""


def plan_secrets(file: Mapping[str, SecretSource], before: Mapping[str, SecretSource]) -> tuple[SecretChange, ...]:
    """The changes from the sources that were applied last to those of the file."""
    found = []
    for name in sorted({*file, *before}):
        has, wants = before.get(name), file.get(name)
        if has == wants:
            continue
        change = "create" if has is None else "remove" if wants is None else "live"
        differs = _differs(has, wants)
        found.append(SecretChange(name, change, differs if change == "live" else {"source": differs["source"]}))
    return tuple(found)


def _differs(has: SecretSource | None, wants: SecretSource | None) -> dict[str, tuple[str, str]]:
    one, other = _told(has), _told(wants)
    found = {key: (one[key], other[key]) for key in one if one[key] != other[key]}
    if has is not None and wants is not None and has.command != wants.command and "source" not in found:
        found["command"] = ("its arguments", "other arguments")
    return found


def _told(source: SecretSource | None) -> dict[str, str]:
    if source is None:
        return {"source": "none", "refresh": "none", "timeout": ""}
    refresh = f"{source.refresh:g} s" if source.refresh else "none"
    return {"source": str(source), "refresh": refresh, "timeout": f"{source.timeout:g} s"}
