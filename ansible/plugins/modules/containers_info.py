#!/usr/bin/python
"""What containers a host has."""

DOCUMENTATION = r"""
module: containers_info
short_description: Tell about the containers of a host
version_added: 1.0.0
description:
  - Gives the containers with their states, labels and addresses.
author:
  - The lxcfleet developers (@lxcfleet)
extends_documentation_fragment:
  - lxcfleet.fleet.cli
attributes:
  check_mode:
    description: Nothing is ever changed.
    support: full
  diff_mode:
    description: There is none.
    support: none
options:
  names:
    description:
      - Only these names, or shell globs.
    type: list
    elements: str
    default: []
  labels:
    description:
      - Only containers that have all these labels.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Look at the web servers
  lxcfleet.fleet.containers_info:
    labels:
      role: web
  register: web

- name: Say where they are
  ansible.builtin.debug:
    msg: "{{ web.containers | map(attribute='addresses') | flatten }}"
"""

RETURN = r"""
containers:
  description: One record a container, as C(lxcfleet list -f json) has it.
  returned: always
  type: list
  elements: dict
  sample: [{"name": "web1", "state": "running", "labels": {"role": "web"}, "addresses": ["10.201.0.2"]}]
states:
  description: How many containers are in each state.
  returned: always
  type: dict
  sample: {"running": 99, "stopped": 1}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.lxcfleet.fleet.plugins.module_utils.cli import EXECUTABLE, Lxcfleet, pairs


def main():
    """The module."""
    module = AnsibleModule(
        dict(
            EXECUTABLE,
            names=dict(type="list", elements="str", default=[]),
            labels=dict(type="dict", default={}),
        ),
        supports_check_mode=True,
    )
    chosen = module.params["names"] + pairs("-l", module.params["labels"])
    containers = Lxcfleet(module).run("list", chosen)[1]
    states = {}
    for container in containers:
        states[container["state"]] = states.get(container["state"], 0) + 1
    module.exit_json(changed=False, containers=containers, states=states)


if __name__ == "__main__":
    main()
