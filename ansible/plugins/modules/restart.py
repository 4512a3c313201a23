#!/usr/bin/python
"""Containers are restarted, on a fresh mount of the host."""

DOCUMENTATION = r"""
module: restart
short_description: Restart containers on a fresh mount of the host
version_added: 1.0.0
description:
  - Stops and starts containers, so that they run what the host has now; all at once, or in waves. It always changes
    something where containers are chosen. To restart just those that run old code use M(lxcfleet.fleet.patch).
author:
  - The lxcfleet developers (@lxcfleet)
extends_documentation_fragment:
  - lxcfleet.fleet.cli
  - lxcfleet.fleet.cli.selection
  - lxcfleet.fleet.cli.rollout
attributes:
  check_mode:
    description: Nothing is changed, and what would be is told by C(lxcfleet --dry-run).
    support: full
  diff_mode:
    description: The containers that are restarted.
    support: full
options:
  timeout:
    description:
      - Seconds until a stop becomes a kill. The host's settings say what is the default.
    type: float
  rolling:
    description:
      - In waves, each of which has to be healthy before the next one begins. One that is not halts it, and the module
        fails.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Restart the web servers
  lxcfleet.fleet.restart:
    labels:
      role: web
    timeout: 30

- name: Restart them one after the other
  lxcfleet.fleet.restart:
    labels:
      role: web
    rolling: true
    max_unavailable: 1
"""

RETURN = r"""
containers:
  description: What became of each container.
  returned: unless it is rolling
  type: list
  elements: dict
  sample: [{"name": "web1", "status": "restarted", "changed": true, "error": null}]
plan:
  description: What would be done, one line a step.
  returned: in check mode, unless it is rolling
  type: list
  elements: str
restarted:
  description: The containers that were restarted, or would be.
  returned: if it is rolling
  type: list
  elements: str
rollout:
  description: The rollout, as C(lxcfleet rollout status -f json) has it.
  returned: if it is rolling
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.lxcfleet.fleet.plugins.module_utils.cli import (
    EXECUTABLE,
    ROLLOUT,
    SELECTION,
    Lxcfleet,
    rollout_options,
    selection,
)


def main():
    """The module."""
    module = AnsibleModule(
        dict(
            EXECUTABLE,
            timeout=dict(type="float"),
            rolling=dict(type="bool", default=False),
            **SELECTION,
            **ROLLOUT,
        ),
        supports_check_mode=True,
    )
    params = module.params
    lxcfleet = Lxcfleet(module)
    timeout = [] if params["timeout"] is None else ["--timeout", str(params["timeout"])]
    arguments = selection(params) + timeout + rollout_options(params)
    if params["rolling"]:
        lxcfleet.roll("restart", ["--rolling", *arguments])
    before = lxcfleet.states()
    change = lxcfleet.change("restart", arguments)
    changing = [result["name"] for result in change.results if result["changed"]]
    after = dict.fromkeys(changing, "restarted")
    change.leave(module, {name: before[name] for name in changing if name in before}, after)


if __name__ == "__main__":
    main()
