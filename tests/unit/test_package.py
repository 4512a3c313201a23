"""The Debian package agrees with the code."""

from __future__ import annotations

import re
from configparser import ConfigParser
from pathlib import Path

import lxcfleet

ROOT = Path(lxcfleet.__file__).resolve().parent.parent

OTHERWISE = {
    "python3": "python3", "python3-aiohttp": "aiohttp", "python3-click": "click", "python3-dnspython": "dnspython",
    "python3-psutil": "psutil", "python3-prometheus-client": "prometheus-client", "python3-pyroute2": "pyroute2",
    "python3-rich": "rich", "python3-yaml": "pyyaml",
}  # fmt: skip
"""Debian packages that dh_python3 adds because of their names in setup.cfg."""


def makefile(variable: str) -> set[str]:
    """The words of a variable that is assigned line by line, without those that depend on the host."""
    lines = re.findall(rf"^{variable} [:+]= (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return {word for line in lines if not line.startswith("$(") for word in line.split()}


def test_the_version_is_the_code_s() -> None:
    first = (ROOT / "debian/changelog").read_text().splitlines()[0]
    assert first.startswith(f"lxcfleet ({lxcfleet.__version__}) ")


def test_the_package_depends_on_what_make_install_installs() -> None:
    text = (ROOT / "debian/control").read_text()
    field = re.search(r"^Depends: (.*(?:\n .*)*)", text, re.MULTILINE)
    assert field is not None
    stated = {re.sub(r" *\(.*\)", "", each.strip()) for each in field[1].replace("\n", " ").split(",")}
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    python = set(setup["options"]["install_requires"].split())
    found = {package for package, name in OTHERWISE.items() if name in python | {"python3"}}
    assert makefile("RUN_PACKAGES") | {"apparmor"} == {each for each in stated if not each.startswith("$")} | found


def test_files_that_are_no_modules_are_packaged_too() -> None:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert setup["options.package_data"]["*"] == "*"
