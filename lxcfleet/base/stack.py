"""The layers of a container, as a value: what lies over what, and where each layer's files are found.

Everything that asks which layer provides a path goes through a ``Stack`` from top to bottom. Which layers there are is
decided in one place, ``stack_of``; nothing else counts on there being three, or on what they are called.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lxcfleet.base.generations.roots import LIVE, sheets_at, sheets_of, tree_of
from lxcfleet.base.mask.maintenance import TIMERS
from lxcfleet.base.tree import Tree
from lxcfleet.host.kernel import mounts
from lxcfleet.paths import Paths
from lxcfleet.spec.container.apps import AppForm, AppUse
from lxcfleet.spec.container.spec import Spec


class Services(NamedTuple):
    """The units that a container is to have, and not to have, in its layer of the host's services."""

    units: tuple[str, ...] = ()
    """The names of the host's units that it runs."""
    masked: tuple[str, ...] = ()
    """The names of units that all containers run, and this one does not."""

    def __str__(self) -> str:
        parts = ((self.units, "of the host"), (self.masked, "not to be started"))
        return "; ".join(f"{', '.join(names)} {words}" for names, words in parts if names)

    @classmethod
    def of(cls, spec: Spec) -> Services:
        """The services that a spec asks for."""
        return cls(spec.units, () if spec.maintenance else TIMERS)


_NOTHING = Services()


class Layer(NamedTuple):
    """One layer: a directory tree, and what is known of its files."""

    name: str
    """The name of the layer in findings and messages; no two layers of a stack have the same one."""
    source: str
    """The directory that has its files, in the launcher's mount namespace. That of a layer between the top and the bottom
    is a mount point: the kernel refuses a directory of the base's own file system there (ELOOP). A layer of services is
    nowhere but in its container's mount namespace, and that of an app is mounted from an image there."""
    mount: str | None
    """Where a container's mount namespace has it, read-only; None: the container writes to ``source`` itself."""
    idmapped: bool
    """Whether its files have the owners that a privileged container sees, so that they must be shifted into the
    container's id range. The files of other layers belong to that range already."""
    hosts: bool
    """Whether its files are the host's own: the host's packages own them, and a patch of the host changes them."""
    neutral: bool
    """Whether it is there to hide what lies below it, and has neutral files only: no program runs from it."""
    opaque: str | None
    """The extended attribute that marks a directory which hides what lower layers have below it. In such a layer a
    character device 0:0 hides what they have at its path (Documentation/filesystems/overlayfs.rst). None: the layer
    hides nothing, as it is the lowest."""
    services: Services | None = None
    """The services that it is made of at each start of its container. None: the layer is there before, for whoever looks."""
    sheets: tuple[str, ...] = ()
    """The directories that make it, if it is a generation: the topmost first, each with a mount of its own."""
    app: str = ""
    """The release of an app that it is, as NAME@VERSION. Containers mount its image, in their mount namespaces alone; the
    same files are in ``source``, for whoever looks."""

    @property
    def image(self) -> str:
        """The image that containers mount; empty: there is none."""
        return f"{self.source.rpartition('/')[0]}/image" if self.app else ""

    @property
    def read_only(self) -> bool:
        """Whether containers can't change it."""
        return self.mount is not None

    def outside(self, path: str) -> str:
        """The path by which this host knows the layer's ``path``. Only for layers in which no container has made links."""
        return sheets_at(self.sheets).outside(path) if self.sheets else self.source.rstrip("/") + path

    def tree(self) -> Tree:
        """The layer as a tree to look into."""
        return tree_of(sheets_at(self.sheets) if self.sheets else Path(self.source))


@dataclass(frozen=True)
class Stack:
    """The layers of one container, the topmost first. The container writes to the topmost one, and to no other."""

    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        top, *lower = self.layers
        if top.read_only or not lower or not all(layer.read_only for layer in lower):
            raise ValueError("a stack has one layer at the top that can be written, and others below it")
        if any((layer.opaque is None) != (layer is self.bottom) for layer in self.layers):
            raise ValueError("every layer can hide what is below it, but for the lowest")
        if len({layer.name for layer in self.layers}) != len(self.layers):
            raise ValueError("two layers have the same name")

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    @property
    def top(self) -> Layer:
        """The container's own layer: its only state."""
        return self.layers[0]

    @property
    def lower(self) -> tuple[Layer, ...]:
        """The layers that the container can't change, the topmost first. Many containers share them."""
        return self.layers[1:]

    @property
    def standing(self) -> tuple[Layer, ...]:
        """Those of the lower layers that are there before a container starts."""
        return tuple(layer for layer in self.lower if layer.services is None)

    @property
    def bottom(self) -> Layer:
        """The layer that all others lie over."""
        return self.layers[-1]

    def to_json(self) -> list[Any]:
        """For the way to the launcher and its children."""
        return list(self.layers)

    @classmethod
    def from_json(cls, data: Sequence[Sequence[Any]]) -> Stack:
        """The stack from the list that ``to_json`` made."""
        return cls(tuple(_from_json(each) for each in data))


def _from_json(data: Sequence[Any]) -> Layer:
    *plain, made, sheets, app = data
    asked = None if made is None else Services(*(tuple(each) for each in made))
    return Layer(*plain)._replace(services=asked, sheets=tuple(sheets), app=app)


def stack_for(paths: Paths, name: str, spec: Spec | None, *, live: bool = False) -> Stack:
    """The layers of the container ``name`` with this spec; None: its spec can't be read.

    ``live``: those that it had on the host's root as it is now, whatever base it stands on. Raises NotFound, Broken for a
    base that is not there.
    """
    if spec is None:
        return stack_of(paths, name)
    app = spec.app if spec.app is not None and spec.app.form is AppForm.LAYER else None
    return stack_of(paths, name, Services.of(spec), 0 if live else spec.generation, app)


def stack_of(
    paths: Paths, name: str, asked: Services = _NOTHING, generation: int = 0, use: AppUse | None = None
) -> Stack:
    """The layers of the container ``name``: its delta over the host's services that are ``asked`` for, if there are any, over
    its app, if that is a layer (``use``), over the mask over the base.

    Other layers between mask and delta are to be added here.
    """
    own = () if asked == _NOTHING else (services(paths, asked),)
    apps = () if use is None else (app(paths, use),)
    return Stack((delta(paths, name), *own, *apps, mask(paths.on(generation)), base(paths, generation)))


def delta(paths: Paths, name: str) -> Layer:
    """The changes of the container ``name``."""
    source = os.fspath(paths.container(name).delta)
    return Layer("delta", source, None, idmapped=False, hosts=False, neutral=False, opaque=mounts.OPAQUE)


def services(paths: Paths, asked: Services) -> Layer:
    """The host's services that the container runs: copies of the host's files, and links that enable them."""
    place = os.fspath(paths.services_mount)
    return Layer(
        "services", place, place, idmapped=False, hosts=False, neutral=True, opaque=mounts.OPAQUE, services=asked
    )


def app(paths: Paths, use: AppUse) -> Layer:
    """A release of an app whose files are among the host's."""
    source = os.fspath(paths.release(use.name, use.version).tree)
    return Layer(
        f"app {use.release}", source, os.fspath(paths.app_mount), idmapped=True, hosts=False, neutral=False,
        opaque=mounts.OPAQUE, app=use.release,
    )  # fmt: skip


def mask(paths: Paths) -> Layer:
    """The layer that hides the host's secrets, state and services. Its mount takes the place of the launcher's, with other
    owners."""
    place = os.fspath(paths.mask_mount)
    return Layer("mask", place, place, idmapped=True, hosts=False, neutral=True, opaque=mounts.OPAQUE)


def base(paths: Paths, generation: int = 0) -> Layer:
    """The host's root as it is now, or as it was when a generation was frozen."""
    sheets = sheets_of(paths, generation) if generation else ()
    source, place = (sheets[0], paths.sheet_mount(0)) if sheets else (os.fspath(LIVE), paths.base_mount)
    return Layer("base", source, os.fspath(place), idmapped=True, hosts=True, neutral=False, opaque=None, sheets=sheets)
