"""The mounts that make a container's root, as a value that can be printed and compared. Pure.

An overlay shows one file system of each layer. Each part (see host.kernel.mounts) is a file system of its own, so it gets
an overlay of its own, over the same layers' directories for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lxcfleet.base.stack import Layer, Services, Stack
from lxcfleet.paths import Paths
from lxcfleet.spec.reading.terms import RANGE_SIZE

OPTIONS = "index=off,metacopy=off,redirect_dir=off,xino=off"
"""With these the kernel allows lower layers to change while nothing has the overlay mounted
(Documentation/filesystems/overlayfs.rst, "Changes to underlying filesystems")."""


class Part(NamedTuple):
    """A part at this moment."""

    point: str
    identity: str
    """The identity of the file system that has to be there; see host.kernel.mounts."""
    layers: tuple[Layer, ...]
    """The lower layers that have its directory, the topmost first."""
    options: tuple[str, ...] = ()
    """Of the host's mount options for it, those that a container must keep: nosuid, noexec."""


class Clone(NamedTuple):
    """Shows the mount that is at ``source``, and none below it, read-only at ``target``."""

    source: str
    target: str
    shifted: bool
    """Whether file owners are shifted into the container's id range."""
    identity: str | None = None
    """The identity of the file system that has to be there; None: any."""


class Image(NamedTuple):
    """Shows the files of an image, which all containers that have it share one loop device for, read-only at ``target``."""

    source: str
    target: str
    shifted: bool
    """Whether file owners are shifted into the container's id range."""


class Fresh(NamedTuple):
    """A tmpfs at ``target`` with the host's services, made of what the base has at this moment; read-only."""

    target: str
    services: Services
    base: Layer


class Restricted(NamedTuple):
    """A directory of the root's overlay that gets a mount of its own, as it is on one of its own on the host."""

    point: str
    options: tuple[str, ...]
    """Of the host's mount options for it, those that a container must keep: nosuid, noexec."""


class Overlay(NamedTuple):
    """One overlay: of the root, or of a part."""

    point: str
    """Its place in the container's root; empty for the root itself."""
    lower: tuple[str, ...]
    """The topmost first."""
    upper: str
    work: str
    options: tuple[str, ...]

    def data(self, upper: str) -> str:
        """The options of overlayfs, with ``upper`` as the name of the upper directory."""
        return f"lowerdir={':'.join(self.lower)},upperdir={upper},workdir={self.work},{OPTIONS}"


@dataclass(frozen=True)
class MountPlan:
    """All that is mounted for one container, in a mount namespace of its own."""

    name: str
    root: str
    """The directory where the container's root is put together."""
    staging: str
    """The directory where overlays of parts are mounted until the root is there."""
    first_id: int | None
    """Owners are shifted to this id and the following ones; None: they are not, as the container is privileged."""
    users: str
    """The file that its user namespace is bound to; a privileged container has none."""
    clones: tuple[Clone, ...]
    """The clones, in the order in which they are mounted."""
    fresh: tuple[Fresh, ...]
    """Layers that are made anew."""
    overlays: tuple[Overlay, ...]
    """The root's overlay first, then those of the parts, from the root downwards. They are mounted in the opposite order."""
    restricted: tuple[Restricted, ...] = ()
    """Directories below the root's overlay that are more restricted than it is; those nearest to the root first."""
    images: tuple[Image, ...] = ()
    """Layers that are images."""

    def lines(self) -> list[str]:
        """The plan in words, one line for each mount, in the order in which they are made."""
        first, last = self.first_id, RANGE_SIZE - 1
        owners = "" if first is None else f", ids 0-{last} as {first}-{first + last}"
        lines = [f"{c.target}: {c.source}, read-only{owners if c.shifted else ''}" for c in self.clones]
        lines += [f"{i.target}: the image {i.source}, read-only{owners if i.shifted else ''}" for i in self.images]
        lines += [f"{fresh.target}: {fresh.services}, read-only" for fresh in self.fresh]
        if self.first_id is not None:
            lines.append(f"{self.users}: its user namespace")
        for overlay in reversed(self.overlays):
            lines.append(f"{self.root}{overlay.point}: overlay, {','.join((*overlay.options, overlay.data(overlay.upper)))}")
        lines += [f"{self.root}{each.point}: {','.join(each.options)}" for each in self.restricted]
        return lines


def plan(
    paths: Paths, stack: Stack, name: str, first_id: int | None, parts: Sequence[Part],
    restricted: Sequence[Restricted] = (),
) -> MountPlan:  # fmt: skip
    """The mounts of the container ``name``. ``parts`` and what is ``restricted``: those nearest to the root first.

    The lower layers are shifted into the container's id range. The topmost one is not: its files already have the range's
    owners, and a shifted upper directory fails with EOVERFLOW (kernel 6.1 to 6.18).
    """
    own = paths.container(name)
    lower = tuple(place for layer in stack.lower for place in _places(layer))
    root = Overlay("", lower, stack.top.source, str(own.work), ("nodev",))
    overlays = [
        Overlay(
            part.point,
            tuple(place + part.point for layer in part.layers for place in _places(layer)),
            stack.top.source + part.point,
            str(own.part_work(part.point)),
            ("nodev", *part.options),
        )
        for part in parts
    ]
    made = [layer for layer in stack.lower if layer.services is not None]
    images = [layer for layer in stack.lower if layer.image]
    standing = [layer for layer in stack.standing if not layer.image]
    shifted = first_id is not None
    return MountPlan(
        name=name,
        root=str(paths.root_mount),
        staging=str(paths.part_mount),
        first_id=first_id,
        users=str(paths.user_namespace),
        clones=clones(standing, {part.point: part.identity for part in parts}.items(), shifted=shifted),
        fresh=tuple(Fresh(_places(layer)[0], layer.services or Services(), stack.bottom) for layer in made),
        overlays=(root, *overlays),
        restricted=tuple(restricted),
        images=tuple(Image(each.image, _places(each)[0], shifted and each.idmapped) for each in images),
    )


def clones(lower: Sequence[Layer], parts: Iterable[tuple[str, str]], *, shifted: bool) -> tuple[Clone, ...]:
    """The clones that show these layers read-only where overlays expect them; the lowest layer first, with its ``parts``.

    ``parts``: mount points, those nearest to the root first, each with the identity that its file system must have. A
    generation has none: its sheets on all file systems lie over each other.
    """
    *others, bottom = lower
    owners = shifted and bottom.idmapped
    base = [Clone(*pair, owners) for pair in zip(bottom.sheets or (bottom.source,), _places(bottom), strict=True)]
    parts = () if bottom.sheets else parts
    below = [Clone(bottom.outside(point), base[0].target + point, owners, identity) for point, identity in parts]
    above = [Clone(layer.source, _places(layer)[0], shifted and layer.idmapped) for layer in reversed(others)]
    return (*reversed(base), *below, *above)


def _places(layer: Layer) -> tuple[str, ...]:
    """The places of a lower layer in the container's mount namespace, the topmost first."""
    place = layer.mount or layer.source
    if not layer.sheets:
        return (place,)
    return tuple(f"{place.rpartition('.')[0]}.{number}" for number in range(len(layer.sheets)))
