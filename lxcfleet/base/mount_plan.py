"""What is to be mounted where for a container's root, as a value: it can be printed and compared. Pure.

An overlay shows one file system of each layer. Each part (see host.kernel.mounts) is a file system of its own, and so has
an overlay of its own, over the same layers' directories for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lxcfleet.base.stack import Layer, Stack
from lxcfleet.paths import Paths
from lxcfleet.spec.terms import RANGE_SIZE

OPTIONS = "index=off,metacopy=off,redirect_dir=off,xino=off"
"""With these the kernel allows lower layers to change while nothing has the overlay mounted
(Documentation/filesystems/overlayfs.rst, "Changes to underlying filesystems")."""


class Part(NamedTuple):
    """A part, as it is at the moment."""

    point: str
    identity: str
    """Which file system it has to be; see host.kernel.mounts."""
    layers: tuple[Layer, ...]
    """The lower layers that have its directory, the topmost first."""
    options: tuple[str, ...] = ()
    """With which options it is mounted on the host, of those that a container must keep: nosuid, noexec."""


class Clone(NamedTuple):
    """Shows the mount that is at ``source``, and none below it, read-only at ``target``."""

    source: str
    target: str
    shifted: bool
    """Whether file owners are shifted into the container's id range."""
    identity: str | None = None
    """Which file system has to be there; None: whichever."""


class Overlay(NamedTuple):
    """One overlay: of the root, or of a part."""

    point: str
    """Where in the container's root it is; empty for the root itself."""
    lower: tuple[str, ...]
    """The topmost first."""
    upper: str
    work: str
    options: tuple[str, ...]

    def data(self, upper: str) -> str:
        """The options of overlayfs, with another name for the upper directory."""
        return f"lowerdir={':'.join(self.lower)},upperdir={upper},workdir={self.work},{OPTIONS}"


@dataclass(frozen=True)
class MountPlan:
    """All that is mounted for one container, in a mount namespace of its own."""

    name: str
    root: str
    """Where its root is put together."""
    staging: str
    """Where overlays of parts are mounted until the root is there."""
    first_id: int | None
    """Owners are shifted to this id and those after it; None: they stay, as the container is privileged."""
    users: str
    """Where its user namespace is bound to; a privileged one has none."""
    clones: tuple[Clone, ...]
    """In the order in which they are mounted."""
    overlays: tuple[Overlay, ...]
    """The root's first, then those of the parts, those further up first. They are mounted in the opposite order."""

    def lines(self) -> list[str]:
        """The plan in words, one line for each mount, in the order in which they are made."""
        first, last = self.first_id, RANGE_SIZE - 1
        owners = "" if first is None else f", ids 0-{last} as {first}-{first + last}"
        lines = [f"{c.target}: {c.source}, read-only{owners if c.shifted else ''}" for c in self.clones]
        if self.first_id is not None:
            lines.append(f"{self.users}: its user namespace")
        for overlay in reversed(self.overlays):
            lines.append(f"{self.root}{overlay.point}: overlay, {','.join((*overlay.options, overlay.data(overlay.upper)))}")
        return lines


def plan(paths: Paths, stack: Stack, name: str, first_id: int | None, parts: Sequence[Part]) -> MountPlan:
    """What is to be mounted for the container ``name``. ``parts``: those further up first.

    The lower layers are shifted into the container's id range. The topmost one is not: its files already have the range's
    owners, and a shifted upper directory fails with EOVERFLOW (kernel 6.1 to 6.18).
    """
    own = paths.container(name)
    root = Overlay("", tuple(_place(layer) for layer in stack.lower), stack.top.source, str(own.work), ("nodev",))
    overlays = [
        Overlay(
            part.point,
            tuple(_place(layer) + part.point for layer in part.layers),
            stack.top.source + part.point,
            str(own.part_work(part.point)),
            ("nodev", *part.options),
        )
        for part in parts
    ]
    return MountPlan(
        name=name,
        root=str(paths.root_mount),
        staging=str(paths.part_mount),
        first_id=first_id,
        users=str(paths.user_namespace),
        clones=clones(stack.lower, {part.point: part.identity for part in parts}.items(), shifted=first_id is not None),
        overlays=(root, *overlays),
    )


def clones(lower: Sequence[Layer], parts: Iterable[tuple[str, str]], *, shifted: bool) -> tuple[Clone, ...]:
    """What shows these layers read-only where overlays have them; the lowest first, with its ``parts`` in it.

    ``parts``: mount points, those further up first, each with the identity of what has to be there.
    """
    *others, bottom = lower
    base = Clone(bottom.source, _place(bottom), shifted and bottom.idmapped)
    below = [Clone(bottom.outside(point), base.target + point, base.shifted, identity) for point, identity in parts]
    above = [Clone(layer.source, _place(layer), shifted and layer.idmapped) for layer in reversed(others)]
    return (base, *below, *above)


def _place(layer: Layer) -> str:
    """Where the container's mount namespace has a lower layer."""
    return layer.mount or layer.source
