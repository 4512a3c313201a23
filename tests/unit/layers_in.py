"""Layers that are plain directories, for tests that look at files and mount nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from lxcfleet.base.stack import Layer, Stack
from lxcfleet.host.kernel.mounts import OPAQUE

ORDER = ("delta", "app", "mask", "base")


def directories(top: Path, *more: str) -> dict[str, Path]:
    """The directories of the three usual layers, and of ``more``, below ``top``."""
    made = {name: top / name for name in ("delta", "mask", "base", *more)}
    for path in made.values():
        path.mkdir()
    return made


def layer_in(top: Path, name: str) -> Layer:
    """The layer of that name below ``top``. An app layer has programs that no package of the host owns."""
    return Layer(
        name,
        str(top / name),
        None if name == "delta" else str(top / "mounted" / name),
        idmapped=name != "delta",
        hosts=name == "base",
        neutral=name == "mask",
        opaque=None if name == "base" else OPAQUE,
    )


def stack_in(layers: Mapping[str, Path]) -> Stack:
    """The stack of these directories, all in one directory."""
    top = layers["delta"].parent
    return Stack(tuple(layer_in(top, name) for name in ORDER if name in layers))


def put(layer: Path, path: str, text: str = "", modified: int = 1000) -> Path:
    """Write a file of a layer; ``modified`` in seconds since the epoch."""
    target = layer / path.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    os.utime(target, (modified, modified))
    return target
