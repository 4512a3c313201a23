#!/usr/bin/python
"""Containers are restarted, on a fresh mount of the host."""

DOCUMENTATION = r"""
module: restart
short_description: Restart containers on a fresh mount of the host
version_added: 1.0.0
description:
  - Stops and starts containers at once, so that they run what the host has now. It always changes something where
    containers are chosen. To restart just those that run old code, in waves, use M(lxcfleet.fleet.patch).
author:
  - The lxcfleet developers (@lxcfleet)
extends_documentation_fragment:
  - lxcfleet.fleet.cli
  - lxcfleet.fleet.cli.selection
attributes:
  check_mode:
    description: Nothing is changed, and what would be is told by C(lxcfleet --dry-run).
    support: full
  diff_mode:
    description: The states of containers that change, before and after.
    support: full
options:
  timeout:
    description:
      - Seconds until a stop becomes a kill. The host's settings say what is the default.
    type: float
"""

EXAMPLES = r"""
- name: Restart the web servers
  lxcfleet.fleet.restart:
    labels:
      role: web
    timeout: 30
"""

RETURN = r"""
containers:
  description: What became of each container.
  returned: always
  type: list
  elements: dict
  sample: [{"name": "web1", "status": "restarted", "changed": true, "error": null}]
plan:
  description: What would be done, one line a step.
  returned: in check mode
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.lxcfleet.fleet.plugins.module_utils.cli import EXECUTABLE, SELECTION, Lxcfleet, selection


def main():
    """The module."""
    module = AnsibleModule(dict(EXECUTABLE, timeout=dict(type="float"), **SELECTION), supports_check_mode=True)
    lxcfleet = Lxcfleet(module)
    timeout = module.params["timeout"]
    before = lxcfleet.states()
    arguments = selection(module.params) + ([] if timeout is None else ["--timeout", str(timeout)])
    change = lxcfleet.change("restart", arguments)
    changing = [result["name"] for result in change.results if result["changed"]]
    after = {name: "running" for name in changing} if module.check_mode else lxcfleet.states(changing)
    change.leave(module, {name: before[name] for name in changing if name in before}, after)


if __name__ == "__main__":
    main()
