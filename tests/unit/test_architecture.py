"""The shape of the house: which room may import from which, read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import lxcfleet

ROOT = Path(lxcfleet.__file__).parent

VALUES = {"lxcfleet", "errors", "paths", "units"}
"""Modules at the top that every room may use: values alone."""

LAUNCHER = {"launcher.client", "launcher.operations"}
"""What the rooms of the daemon know of the launcher: what it can be asked, and how."""

BELOW: dict[str, set[str]] = {
    "values": set(),
    "spec": {"values"},
    "api": {"spec", "values"},
    "host": {"spec", "values"},
    "base": {"host", "spec", "values"},
    "launcher.operations": {"values"},
    "launcher.client": {"launcher.operations", "host", "values"},
    "runtime": {"api", "spec", "values"},
    "capacity": {"host", "spec", "values"},
    "containers": {*LAUNCHER, "runtime", "capacity", "base", "host", "api", "spec", "values"},
    "network": {"containers", "capacity", *LAUNCHER, "runtime", "host", "api", "spec", "values"},
    "health": {"containers", *LAUNCHER, "runtime", "host", "api", "spec", "values"},
    "patch": {"health", "containers", *LAUNCHER, "runtime", "base", "host", "api", "spec", "values"},
    "launcher": {"launcher.operations", "patch", "network", "containers", "base", "host", "spec", "values"},
    "daemon": {
        "patch", "network", "health", "containers", "capacity", *LAUNCHER, "runtime", "base", "host", "api", "spec",
        "values",
    },
    "cli": {"api", "spec", "values"},
    "hook": {"launcher"},
}  # fmt: skip
"""Each room, and the rooms that it may use besides itself."""

KERNEL = {"lxc", "_lxc", "pyroute2", "psutil", "ctypes", "subprocess"}
"""The door to the kernel and to programs is host's alone."""


def modules() -> Iterator[tuple[str, Path]]:
    for file in sorted(ROOT.rglob("*.py")):
        parts = file.relative_to(ROOT.parent).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), file


NAMES = {name for name, _ in modules()}


def room(module: str) -> str:
    parts = module.split(".")
    if ".".join(parts[1:3]) in BELOW:
        return ".".join(parts[1:3])
    name = parts[1] if len(parts) > 1 else parts[0]
    return "values" if name in VALUES else name


def imports(file: Path, *, lazy: bool = True) -> Iterator[str]:
    """All that a module imports, ``from package import module`` as the module."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if lazy else iter(tree.body)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, f"{file}: relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in NAMES else node.module


@pytest.mark.parametrize(("name", "file"), list(modules()))
def test_arrows_run_one_way(name: str, file: Path) -> None:
    allowed = {room(name), *BELOW[room(name)]}
    wrong = {target for target in imports(file) if target.startswith("lxcfleet") and room(target) not in allowed}
    assert not wrong, f"{name} must not import {sorted(wrong)}"


@pytest.mark.parametrize(("name", "file"), list(modules()))
def test_only_host_talks_to_the_kernel(name: str, file: Path) -> None:
    if room(name) != "host":
        assert not KERNEL & {target.split(".")[0] for target in imports(file)}


def test_the_command_line_knows_nothing_of_the_daemon_but_its_client() -> None:
    for name, file in modules():
        if room(name) == "cli":
            found = {target for target in imports(file) if target.startswith("lxcfleet.api")}
            modules_of_api = ("client", "calls", "records", "requests", "findings", "queries")
            assert found <= {f"lxcfleet.api.{module}" for module in modules_of_api}, name


def test_there_are_no_cycles() -> None:
    graph = {name: {t for t in imports(file, lazy=False) if t in NAMES} for name, file in modules()}
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize(("name", "file"), list(modules()))
def test_rooms_are_small(name: str, file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 500, name
