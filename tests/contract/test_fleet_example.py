"""The example of docs/fleet-file.md, as it stands."""

from __future__ import annotations

import json
import re
from pathlib import Path

from jsonschema import Draft202012Validator

from lxcfleet.spec.files import schema
from lxcfleet.spec.reading import strict_yaml

from .conftest import Cli
from .real_daemon import Daemon

PAGE = Path(__file__).parents[2] / "docs/fleet-file.md"


def example(directory: Path) -> Path:
    """The files of the page."""
    text = PAGE.read_text(encoding="utf-8")
    (yaml,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (variables,) = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    (directory / "fleet.yaml").write_text(yaml)
    (directory / "common.env").write_text(variables)
    return directory / "fleet.yaml"


def test_the_example_is_applied_as_it_stands(cli: Cli, daemon: Daemon, tmp_path: Path) -> None:
    file = example(tmp_path)
    Draft202012Validator(schema.fleet()).validate(strict_yaml.load(file.read_bytes()))
    ran = cli("diff", "-f", str(file))
    page = PAGE.read_text(encoding="utf-8")
    assert (ran.status, ran.out.splitlines()[0] in page) == (4, True), ran.err
    ran = cli("apply", "-f", str(file), "-q")
    assert (ran.status, ran.out.split()) == (0, ["db", "web1", "web2", "web3", "worker1", "worker2"]), ran.err
    specs = {name: daemon.fleet[name].spec for name in ("db", "web1", "worker2")}
    assert dict(specs["worker2"].environment) == {"TZ": "UTC"}
    assert dict(specs["web1"].environment) == {"TZ": "UTC", "MODE": "prod"}
    assert (specs["db"].memory, specs["web1"].memory, specs["web1"].labels["canary"]) == (1 << 30, 256 << 20, "yes")
    assert [str(each) for each in specs["web1"].secrets] == ["db-pw,uid=33,gid=33,mode=0440,on_change=restart"]
    assert json.loads(cli("secret", "list", "-f", "json").out)[0]["containers"] == ["db", "web1", "web2", "web3"]
    assert cli("diff", "-f", str(file)).status == 0
    record = json.loads(cli("fleet", "list", "-f", "json").out)
    assert [group["name"] for group in record[0]["groups"]] == ["db", "web", "worker"]


def test_commands_may_listen_on_one_port(cli: Cli, tmp_path: Path) -> None:
    """As those of the example do. Containers of the fake launcher had the network of this machine: the first listened, and
    how far the others came before `apply` answered depended on the speed of the machine."""
    script = f"""
import os, pathlib, socket, time
server = socket.create_server(("", 8080))
directory = pathlib.Path({str(tmp_path)!r}, "ready")
directory.mkdir(exist_ok=True)
(directory / str(os.getpid())).touch()
while len(list(directory.iterdir())) < 3:
    time.sleep(0.01)
"""
    assert cli("create", "web", "-n", "3", "--", "/usr/bin/python3", "-SEc", script).status == 0
    assert cli("wait", "web*", "--for", "stopped", "--status").status == 0
