"""The architecture: which room may import from which, read from the source."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TypeAlias

import pytest

import lxcfleet

ROOT = Path(lxcfleet.__file__).parent

VALUES = {"lxcfleet", "errors", "paths", "units"}
"""Modules at the top that every room may use, as they only have values."""

LAUNCHER = {"launcher.client", "launcher.operations", "launcher.items"}
"""The part of the launcher that the daemon's rooms may know: its operations and its client."""

SPEC = {"spec", "spec.reading", "spec.container", "spec.policies", "spec.files"}
"""The rooms within ``spec`` have arrows of their own. Other rooms may use each of them."""

NETWORK = {"network", "network.addresses", "network.rules", "network.names"}
"""The rooms within ``network`` are pure, but for the outer one, which uses them."""

CONTAINERS = {
    "containers", "containers.secrets", "containers.ends", "containers.measuring", "containers.reconciling",
    "containers.order", "containers.copies", "containers.requests", "containers.supervision",
}  # fmt: skip
"""The rooms within ``containers`` have arrows of their own. Rooms above may use each of them."""

BELOW_CONTAINERS = {*LAUNCHER, "runtime", "capacity", "data", "base", "host", "api", *SPEC, "values"}

BELOW_DAEMON = {
    "fleets", "patch", *NETWORK, "health", "logs", *CONTAINERS, "capacity", *LAUNCHER, "runtime", "data", "base", "host",
    "api", *SPEC, "values",
}  # fmt: skip

BELOW: dict[str, set[str]] = {
    "values": set(),
    "spec": {"spec.reading", "values"},
    "spec.reading": {"values"},
    "spec.container": {"spec.reading", "values"},
    "spec.policies": {"spec.reading", "values"},
    "spec.files": {"spec.container", "spec.policies", "spec.reading", "values"},
    "api": {*SPEC, "values"},
    "host": {*SPEC, "values"},
    "base": {"host", *SPEC, "values"},
    "data": {"base", "host", *SPEC, "values"},
    "launcher.operations": {"launcher.items", "values"},
    "launcher.items": {"values"},
    "launcher.client": {"launcher.operations", "host", "values"},
    "runtime": {"api", *SPEC, "values"},
    "capacity": {"host", *SPEC, "values"},
    "containers": BELOW_CONTAINERS,
    "containers.secrets": {"containers", *BELOW_CONTAINERS},
    "containers.ends": {"containers", *BELOW_CONTAINERS},
    "containers.measuring": {"containers", *BELOW_CONTAINERS},
    "containers.reconciling": {"containers.secrets", "containers", *BELOW_CONTAINERS},
    "containers.order": {"containers.reconciling", "containers.ends", "containers", *BELOW_CONTAINERS},
    "containers.copies": {"containers.reconciling", "containers", *BELOW_CONTAINERS},
    "containers.requests": {
        "containers.order", "containers.copies", "containers.reconciling", "containers.ends", "containers.secrets",
        "containers", *BELOW_CONTAINERS,
    },
    "containers.supervision": {
        "containers.requests", "containers.order", "containers.reconciling", "containers.ends", "containers",
        *BELOW_CONTAINERS,
    },
    "network.addresses": {*SPEC, "values"},
    "network.names": {*SPEC, "values"},
    "network.rules": {"network.addresses", "capacity", "containers", "launcher.items", *SPEC, "values"},
    "network": {*NETWORK, *CONTAINERS, "capacity", *LAUNCHER, "runtime", "host", "api", *SPEC, "values"},
    "health": {*CONTAINERS, *LAUNCHER, "runtime", "host", "api", *SPEC, "values"},
    "logs": {*CONTAINERS, "runtime", "host", "api", *SPEC, "values"},
    "patch": {"health", *CONTAINERS, *LAUNCHER, "runtime", "base", "host", "api", *SPEC, "values"},
    "launcher": {
        "launcher.operations", "launcher.items", "patch", *NETWORK, *CONTAINERS, "data", "base", "host", *SPEC,
        "values",
    },
    "fleets": {"patch", *CONTAINERS, "runtime", "host", "api", *SPEC, "values"},
    "daemon.uses": BELOW_DAEMON,
    "daemon.http": {"daemon.uses", *BELOW_DAEMON},
    "daemon": {"daemon.uses", "daemon.http", *BELOW_DAEMON},
    "cli": {"api", *SPEC, "values"},
    "hook": {"launcher"},
}  # fmt: skip
"""Each room, and the rooms that it may use besides itself."""

KERNEL = {"lxc", "_lxc", "pyroute2", "psutil", "ctypes", "subprocess"}
"""Only ``host`` may import these."""


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
    """All modules that a module imports; ``from package import module`` counts as the module."""
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
            modules_of_api = (
                "client", "calls", "apps", "records", "requests", "findings", "fleets", "generations", "queries", "disk",
                "archives", "rehearsals", "snapshots", "drain", "moves", "way_back",
            )  # fmt: skip
            assert found <= {f"lxcfleet.api.{module}" for module in modules_of_api}, name


def test_a_command_imports_the_types_of_no_other_calls() -> None:
    """Each class takes a moment to make, and there are hundreds: `list` would wait for those of `generation` and `app`."""
    files, found = dict(modules()), {"lxcfleet.cli.main", "lxcfleet.cli.verbs.show"}
    waiting = [*found]
    while waiting:
        new = {target for target in imports(files[waiting.pop()], lazy=False) if target in NAMES} - found
        found |= new
        waiting += new
    api = {name.removeprefix("lxcfleet.api.") for name in found if name.startswith("lxcfleet.api.")}
    assert api == {"calls", "client", "shape"}


def test_there_are_no_cycles() -> None:
    graph = {name: {t for t in imports(file, lazy=False) if t in NAMES} for name, file in modules()}
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize(("name", "file"), list(modules()))
def test_rooms_are_small(name: str, file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 500, name


# -- how large things are ------------------------------------------------------------------------------------------

MOST_LINES = 60
"""The most lines of a function."""
MOST_METHODS = 20
"""The most methods of a class. Properties and methods of one statement do not count: they only pass on, or name a value."""

MOST_PARAMETERS = 8
"""The most parameters of a function or constructor, besides self. More of them are a thing that has no name yet. The
functions of the command line's verbs do not count, whose parameters are options, nor do records."""

TOO_LONG: dict[str, str] = {}
"""Functions that are too long, each with its remedy. The list may only become shorter."""

TOO_LARGE: dict[str, str] = {}
"""Classes with too many methods, each with its remedy. The list may only become shorter."""

TOO_MANY: dict[str, str] = {
    "containers.requests.actions.act": "the wishes of an action, one by one; all but the time are given by name",
}
"""Functions with too many parameters, each with the reason. The list may only become shorter."""

Function: TypeAlias = "ast.FunctionDef | ast.AsyncFunctionDef"


def parsed() -> Iterator[tuple[str, ast.Module]]:
    for name, file in modules():
        yield name.removeprefix("lxcfleet."), ast.parse(file.read_text(encoding="utf-8"))


def is_small(method: Function) -> bool:
    """Whether the method is a property, or has only one statement after its docstring."""
    if any(ast.unparse(decorator) in ("property", "functools.cached_property") for decorator in method.decorator_list):
        return True
    told = ast.get_docstring(method, clean=False) is not None
    return len(method.body) - told <= 1


def long_functions(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(end_lineno=int(end)) | ast.AsyncFunctionDef(end_lineno=int(end)):
                if end - node.lineno + 1 > MOST_LINES:
                    yield node.name


def large_classes(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            methods = [each for each in node.body if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef))]
            if sum(not is_small(each) for each in methods) > MOST_METHODS:
                yield node.name


def is_verb(function: Function) -> bool:
    """Whether it is a verb of the command line."""
    return any(re.match(r"[\w.]+\.command\(", ast.unparse(each)) for each in function.decorator_list)


def with_many_parameters(tree: ast.AST) -> Iterator[str]:
    """The functions and constructors that take too much. Those of classes come with the class's name if they make one."""
    owners = {each: node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for each in node.body}
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not is_verb(node):
            given = [each.arg for each in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            if len(given) - (given[:1] in (["self"], ["cls"])) > MOST_PARAMETERS:
                yield f"{owners.get(node)}" if node.name == "__init__" else node.name


def test_functions_take_few_parameters() -> None:
    found = {f"{module}.{name}" for module, tree in parsed() for name in with_many_parameters(tree)}
    assert found <= set(TOO_MANY), f"more than {MOST_PARAMETERS} parameters: {sorted(found - set(TOO_MANY))}"
    assert set(TOO_MANY) <= found, f"fewer by now, so no exception any more: {sorted(set(TOO_MANY) - found)}"


def test_functions_are_short() -> None:
    found = {f"{module}.{name}" for module, tree in parsed() for name in long_functions(tree)}
    assert found <= set(TOO_LONG), f"longer than {MOST_LINES} lines: {sorted(found - set(TOO_LONG))}"
    assert set(TOO_LONG) <= found, f"short by now, so no exception any more: {sorted(set(TOO_LONG) - found)}"


def test_classes_are_small() -> None:
    found = {f"{module}.{name}" for module, tree in parsed() for name in large_classes(tree)}
    assert found <= set(TOO_LARGE), f"more than {MOST_METHODS} methods: {sorted(found - set(TOO_LARGE))}"
    assert set(TOO_LARGE) <= found, f"small by now, so no exception any more: {sorted(set(TOO_LARGE) - found)}"


def test_the_measures_count_lines_and_methods_as_they_say() -> None:
    lines = "\n".join("    x = 1" for _ in range(MOST_LINES))
    assert list(long_functions(ast.parse(f"def short():\n{lines[10:]}"))) == []
    assert list(long_functions(ast.parse(f"async def long():\n{lines}"))) == ["long"]
    method = "    def m{}(self):\n        '''Says.'''\n        x = 1\n        return x\n"
    value = "    @property\n    def p(self):\n        x = 1\n        return x\n"
    passing = value + "    def d(self):\n        '''Says.'''\n        return 1\n"
    body = "".join(method.format(number) for number in range(MOST_METHODS))
    assert list(large_classes(ast.parse(f"class Small:\n{body}{passing}"))) == []
    assert list(large_classes(ast.parse(f"class Large:\n{body}{method.format('more')}"))) == ["Large"]


# -- one name, one meaning -----------------------------------------------------------------------------------------

SHARED_NAMES = {
    "Answer": "what a pure decision of a patch says; notice and reboots are such decisions",
    "Moment": "the facts that a pure decision is made from",
    "Flow": "a flow of the kernel, and the same as the rules see it",
    "Fleet": "the fleet, and what two rooms below it ask of it, as interfaces",
    "Unpacking": "an archive that becomes directories: here by the client, there by the daemon",
    "Outcome": "what became of one container, on the command line",
    "Running": "a program that runs: in a container, or at the other end of ssh",
    "Copy": "a file of a layer; in the command line, what copies between two terminals",
    "Halt": "a step of the reconciler, whose words are its steps' names; a rollout's halt",
    "Hold": "a step of the reconciler; a container's hold on a generation",
    "Mount": "a step of the reconciler; a line of the mount table",
}
"""Names that two modules share, each with the reason. The list may only become shorter."""


def classes(tree: ast.AST) -> Iterator[str]:
    """The classes that other modules may use."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield node.name


def test_a_class_has_a_name_of_its_own() -> None:
    """Whoever finds `Plan` in a traceback or with grep is at the right one at once."""
    counted = Counter(name for _, tree in parsed() for name in classes(tree))
    shared = {name for name, count in counted.items() if count > 1}
    assert shared <= set(SHARED_NAMES), f"in two modules: {sorted(shared - set(SHARED_NAMES))}"
    assert set(SHARED_NAMES) <= shared, f"unique by now, so no exception any more: {sorted(set(SHARED_NAMES) - shared)}"


def test_the_measure_counts_parameters_as_it_says() -> None:
    names = ", ".join(f"p{number}" for number in range(MOST_PARAMETERS))
    few = f"def few({names}): ...\n@click.command()\ndef verb(ctx, {names}): ...\n"
    few += f"@app.command(cls=A)\ndef add(ctx, {names}): ...\n"
    method = f"class Few:\n    def __init__(self, {names}): ...\n"
    assert list(with_many_parameters(ast.parse(few + method))) == []
    many = f"async def many({names}, *, more): ...\nclass Many:\n    def __init__(self, {names}, more): ...\n"
    assert list(with_many_parameters(ast.parse(many))) == ["many", "Many"]


def test_packages_say_what_belongs_there() -> None:
    packages = {name: ast.parse(file.read_text()) for name, file in modules() if file.name == "__init__.py"}
    assert [name for name, tree in packages.items() if not ast.get_docstring(tree)] == []


# -- what is told of other modules ---------------------------------------------------------------------------------

ROOMS = {name.split(".")[1] for name in NAMES if "." in name} - VALUES
SECTIONS = {"network", "logs", "health", "patch"}
"""Rooms whose names settings have, too: network.dns is none of their modules."""
TOLD = re.compile(rf"(?<![\w./`-])({'|'.join(sorted(ROOMS))})((?:\.[a-z_]+)+)(?![\w(/])")


def docstrings(tree: ast.AST) -> Iterator[str]:
    """The docstrings of modules, classes, functions and attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value.value


def told(tree: ast.AST) -> Iterator[str]:
    """The modules, and names in modules, that docstrings mention."""
    for text in docstrings(tree):
        yield from (match[0] for match in TOLD.finditer(text))


def is_there(mentioned: str) -> bool:
    whole, _, last = mentioned.rpartition(".")
    if f"lxcfleet.{mentioned}" in NAMES or whole in SECTIONS:
        return True
    file = ROOT / f"{whole.replace('.', '/')}.py"
    return file.is_file() and re.search(rf"\b{last}\b", file.read_text(encoding="utf-8")) is not None


def test_the_modules_that_docstrings_mention_are_there() -> None:
    gone = {name: [each for each in told(tree) if not is_there(each)] for name, tree in parsed()}
    assert {name: each for name, each in gone.items() if each} == {}


def test_a_module_that_is_gone_is_noticed() -> None:
    found = [*told(ast.parse('"""See host.lxc.attach, containers.plan and host.lxc.attach.run; network.dns."""'))]
    assert found == ["host.lxc.attach", "containers.plan", "host.lxc.attach.run", "network.dns"]
    assert [each for each in found if not is_there(each)] == ["containers.plan"]


HEADLESS = re.compile(r"\s*(Who|Whom|Whose|What)\b")


def test_docstrings_name_their_subject() -> None:
    """"What was added" leaves the reader to find out what kind of thing that is; "The lines that were added" does not."""
    headless = {name: [text for text in docstrings(tree) if HEADLESS.match(text)] for name, tree in parsed()}
    assert {name: each for name, each in headless.items() if each} == {}


# -- names instead of numbers --------------------------------------------------------------------------------------

TAKES_NUMBERS = ("ioctl", "prctl", "fcntl.fcntl", "quotactl")


def literals(nodes: Sequence[ast.AST]) -> bool:
    found = [node.value for each in nodes for node in ast.walk(each) if isinstance(node, ast.Constant)]
    return any(isinstance(value, int) and not isinstance(value, bool) and value for value in found)


def bare_numbers(tree: ast.AST) -> Iterator[str]:
    """Errnos in comparisons, and operations of ioctl and the like, that are written as numbers."""
    for node in ast.walk(tree):
        match node:
            case ast.Compare(left=ast.Attribute(attr="errno"), comparators=with_):
                if literals(with_):
                    yield ast.unparse(node)
            case ast.Call(func=function, args=[*given]):
                plain = [each for each in given[:2] if isinstance(each, ast.Constant)]
                if ast.unparse(function).endswith(TAKES_NUMBERS) and literals(plain):
                    yield ast.unparse(node)


def test_error_numbers_and_operations_have_names() -> None:
    assert {name: list(bare_numbers(tree)) for name, tree in parsed() if any(bare_numbers(tree))} == {}


@pytest.mark.parametrize(
    "text", ["error.errno in (18, 16)", "e.errno != 40", "fcntl.ioctl(fd, 0x5413, b'')", "libc.prctl(38, 1)"]
)
def test_a_bare_number_is_found(text: str) -> None:
    assert list(bare_numbers(ast.parse(text)))


@pytest.mark.parametrize(
    "text", ["error.errno in (errno.EXDEV, errno.EBUSY)", "fcntl.ioctl(fd, termios.TIOCSCTTY, 0)", "x == 18"]
)
def test_a_name_is_fine(text: str) -> None:
    assert not list(bare_numbers(ast.parse(text)))
