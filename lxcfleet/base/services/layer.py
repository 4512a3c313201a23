"""The layer of the host's services: what is in it, and how it is made anew at each start of a container.

It is a small tmpfs in the container's mount namespace, whose files already have the container's owners: kernels before 6.3
can't shift the owners of a tmpfs. It goes with the namespace, so nothing of it has to be kept up to date or cleaned up.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lxcfleet.base.mask import units as allowed
from lxcfleet.base.mask.compiler import with_parents
from lxcfleet.base.services import planner
from lxcfleet.base.services.planner import ServicePlan
from lxcfleet.base.services.units import ADMIN
from lxcfleet.base.stack import Layer, Services
from lxcfleet.base.tree import Tree, stamp
from lxcfleet.errors import HostError, InvalidInput
from lxcfleet.host.kernel import syscalls
from lxcfleet.host.kernel.entries import Entry, Symlink, stage

_OFF = Symlink("/dev/null", "not for this container")
"""In place of a unit it keeps systemd from starting it; systemctl(1), "mask"."""
_MOST = 16 << 20
"""The most bytes that such a layer may take; it takes some 100 KiB."""


def plan(tree: Tree, services: Services) -> ServicePlan:
    """The plan for these services on the host below ``tree``."""
    return planner.plan(tree, services.units, allowed.allowed())


def entries(tree: Tree, services: Services, *, whole: bool = True) -> dict[str, Entry]:
    """The content of the layer. Raises InvalidInput for a unit that the host does not have; unless it is to be ``whole``, it
    is without that unit."""
    found = plan(tree, services)
    if whole:
        found.check()
    masked = {f"{ADMIN}/{name}": _OFF for name in services.masked if name not in found.units}
    return with_parents(found.entries | masked, tree)


@dataclass(frozen=True)
class _Known:
    entries: dict[str, Entry]
    consulted: dict[str, list[int] | None]


_known: dict[tuple[Services, Layer], _Known] = {}


def present(services: Services, name: str, base: Layer) -> dict[str, Entry]:
    """The content for the container ``name``, from the base as it is now. If nothing changed since this process looked last,
    that takes less than a millisecond. Raises HostError for a unit that the host does not have any more."""
    known, tree = _known.get((services, base)), base.tree()
    if known is None or any(stamp(tree.outside(path)) != before for path, before in known.consulted.items()):
        try:
            known = _known[services, base] = _Known(entries(tree, services), tree.consulted)
        except InvalidInput as error:
            raise HostError(
                f"{name} can't start: {error.message}", why=error.why,
                hint=f"install it on the host, or do without: lxcfleet set {name} units=",
            ) from error  # fmt: skip
    return known.entries


def make(target: Path, content: dict[str, Entry], first_id: int | None, base: Layer) -> None:
    """Mount a tmpfs with this content at ``target``, for a container whose ids begin at ``first_id``. Raises OSError."""
    flags = syscalls.MS_NOSUID | syscalls.MS_NODEV
    syscalls.mount("lxcfleet-services", target, "tmpfs", flags, f"mode=0755,size={_MOST}")
    stage(content, base.outside, target, first_id or 0)
    syscalls.mount("", target, "tmpfs", flags | syscalls.MS_REMOUNT | syscalls.MS_RDONLY, "")
