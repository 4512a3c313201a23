"""The containers of one or many hosts, as hosts of their own."""

DOCUMENTATION = r"""
name: containers
short_description: The containers of lxcfleet as hosts
version_added: 1.0.0
description:
  - Asks lxcfleet on one or many hosts for its containers. They are reached through their host by the connection plugin
    C(lxcfleet.fleet.lxcfleet).
  - Its file must be named C(lxcfleet.yml), or end with C(.lxcfleet.yml) (or C(.yaml)).
  - Each has the variables C(lxcfleet_host), C(lxcfleet_state), C(lxcfleet_init), C(lxcfleet_labels) and
    C(lxcfleet_addresses), and is in the group C(lxcfleet) and in C(lxcfleet_on_HOST).
author:
  - The lxcfleet developers (@lxcfleet)
extends_documentation_fragment:
  - constructed
options:
  plugin:
    description:
      - This plugin's name.
    type: str
    required: true
    choices: [lxcfleet.fleet.containers]
  hosts:
    description:
      - The hosts, as ssh knows them. C(localhost) is this machine.
      - Of one host, a container has its own name here; of several, it is called C(CONTAINER.HOST).
    type: list
    elements: str
    default: [localhost]
  user:
    description:
      - Whom ssh logs in as.
    type: str
  port:
    description:
      - The port of the hosts' ssh.
    type: int
  key_file:
    description:
      - The private key for the hosts.
    type: path
  sudo:
    description:
      - Whether C(sudo) is needed there. It must not ask for a password.
    type: bool
    default: false
  ssh_args:
    description:
      - Options of C(ssh).
    type: str
    default: -o ControlMaster=auto -o ControlPersist=60s -o ControlPath=~/.ansible/cp/lxcfleet-%C
  executable:
    description:
      - The program C(lxcfleet) on the hosts.
    type: str
    default: lxcfleet
  patterns:
    description:
      - Only containers of these names, or shell globs.
    type: list
    elements: str
    default: []
  labels:
    description:
      - Only containers that have all these labels.
    type: dict
    default: {}
  states:
    description:
      - Only containers in these states.
    type: list
    elements: str
    default: [running]
  unreachable:
    description:
      - Whether a host that does not answer is an error, or is left out with a warning.
    type: str
    choices: [error, warn]
    default: error
"""

EXAMPLES = r"""
# lxcfleet.yml: containers of two hosts (without hosts, user and sudo: of this machine), in groups such as label_role_web
plugin: lxcfleet.fleet.containers
hosts: [h1.example.net, h2.example.net]
user: admin
sudo: true
labels:
  tier: front
keyed_groups:
  - key: lxcfleet_labels
    prefix: label
"""

import json
import re
import subprocess

from ansible.errors import AnsibleError, AnsibleParserError
from ansible_collections.lxcfleet.fleet.plugins.module_utils.cli import pairs
from ansible_collections.lxcfleet.fleet.plugins.module_utils.way import make_socket_directory, to_host

from ansible.plugins.inventory import BaseInventoryPlugin, Constructable

LOCAL = "localhost"


class InventoryModule(BaseInventoryPlugin, Constructable):
    """Reads the containers when Ansible begins."""

    NAME = "lxcfleet.fleet.containers"

    def verify_file(self, path):
        """Only files with our name are ours."""
        return super().verify_file(path) and re.search(r"(^|[./])lxcfleet\.ya?ml$", path) is not None

    def parse(self, inventory, loader, path, cache=True):
        """Ask all hosts."""
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        hosts = self.get_option("hosts")
        self.inventory.add_group("lxcfleet")
        for host in hosts:
            try:
                containers = self._ask(host)
            except AnsibleError as error:
                if self.get_option("unreachable") == "error":
                    raise
                self.display.warning(str(error))
                continue
            for container in containers:
                if container["state"] in self.get_option("states"):
                    name = container["name"]
                    self._add(host, container, name if len(hosts) == 1 else f"{name}.{host}")

    def _way(self, host):
        """How to get to a host, as C(to_host) takes it."""
        if host == LOCAL:
            return dict(host=None, sudo=self.get_option("sudo"))
        return dict(
            host=host,
            user=self.get_option("user"),
            port=self.get_option("port"),
            key=self.get_option("key_file"),
            ssh_args=self.get_option("ssh_args"),
            sudo=self.get_option("sudo"),
        )

    def _ask(self, host):
        """The containers of a host."""
        if host != LOCAL:
            make_socket_directory()
        words = [self.get_option("executable"), "list", "-f", "json"]
        words += list(self.get_option("patterns")) + pairs("-l", self.get_option("labels"))
        command = to_host(words, **self._way(host))
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        except OSError as error:
            raise AnsibleParserError(f"{error.filename}: {error.strerror}") from error
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip() or f"exit status {done.returncode}"
            raise AnsibleParserError(f"the containers of {host} can't be listed: {said}")
        try:
            return json.loads(done.stdout)
        except ValueError as error:
            raise AnsibleParserError(f"lxcfleet on {host} gave an answer that is no JSON") from error

    def _add(self, host, container, name):
        """One container as a host."""
        self.inventory.add_host(name, group="lxcfleet")
        group = self.inventory.add_group(self._sanitize_group_name("lxcfleet_on_" + host))
        self.inventory.add_child(group, name)
        variables = {
            "ansible_connection": "lxcfleet.fleet.lxcfleet",
            "ansible_lxcfleet_container": container["name"],
            "ansible_lxcfleet_executable": self.get_option("executable"),
            "ansible_python_interpreter": "/usr/bin/python3",
            "lxcfleet_host": host,
        }
        way = self._way(host)
        for key in ("user", "port", "key"):
            if way.get(key):
                variables["ansible_lxcfleet_host_" + {"key": "key_file"}.get(key, key)] = way[key]
        if way["host"]:
            variables["ansible_lxcfleet_host"] = host
            variables["ansible_lxcfleet_ssh_args"] = way["ssh_args"]
        if way["sudo"]:
            variables["ansible_lxcfleet_host_sudo"] = True
        for key in ("state", "init", "labels", "addresses"):
            variables["lxcfleet_" + key] = container[key]
        for key, value in variables.items():
            self.inventory.set_variable(name, key, value)
        strict = self.get_option("strict")
        self._set_composite_vars(self.get_option("compose"), variables, name, strict=strict)
        self._add_host_to_composed_groups(self.get_option("groups"), variables, name, strict=strict)
        self._add_host_to_keyed_groups(self.get_option("keyed_groups"), variables, name, strict=strict)
