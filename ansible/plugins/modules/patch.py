#!/usr/bin/python
"""A patch of the host comes into the containers."""

DOCUMENTATION = r"""
module: patch
short_description: Restart containers that run old code, in waves
version_added: 1.0.0
description:
  - After packages of the host changed, restarts the containers that still run the old ones, and no others. It goes in
    waves, and each has to be healthy before the next one begins. One that is not halts it, and the module fails.
  - Changes nothing where nothing is stale. Without I(names) and I(labels) all containers are looked at.
author:
  - The lxcfleet developers (@lxcfleet)
extends_documentation_fragment:
  - lxcfleet.fleet.cli
  - lxcfleet.fleet.cli.rollout
attributes:
  check_mode:
    description: Nothing is restarted, and the waves are told.
    support: full
  diff_mode:
    description: The containers that are restarted.
    support: full
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
- name: Restart what runs old code
  lxcfleet.fleet.patch:
    max_unavailable: 10%
    min_healthy_time: 30
"""

RETURN = r"""
restarted:
  description: The containers that were restarted, or would be.
  returned: always
  type: list
  elements: str
rollout:
  description: The rollout, as C(lxcfleet rollout status -f json) has it. If it is halted, C(halted) says at which
    container and why, with the end of its log.
  returned: always
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.lxcfleet.fleet.plugins.module_utils.cli import (
    EXECUTABLE,
    ROLLOUT,
    Lxcfleet,
    pairs,
    rollout_options,
)


def main():
    """The module."""
    module = AnsibleModule(
        dict(
            EXECUTABLE,
            names=dict(type="list", elements="str", default=[]),
            labels=dict(type="dict", default={}),
            **ROLLOUT,
        ),
        supports_check_mode=True,
    )
    params = module.params
    chosen = params["names"] + pairs("-l", params["labels"])
    Lxcfleet(module).roll("patch apply", chosen + rollout_options(params))


if __name__ == "__main__":
    main()
