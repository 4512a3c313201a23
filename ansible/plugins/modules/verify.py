#!/usr/bin/python
"""The proof that a patch is in every container."""

DOCUMENTATION = r"""
module: verify
short_description: Prove that a patch is in every container
version_added: 1.0.0
description:
  - Fails unless it is proven that no process of the containers runs old code, and that nothing of theirs keeps the
    host's files out. A container that can't be looked at is not proven.
  - With C(serial) and C(max_fail_percentage) this is the gate between hosts. Without I(names) and I(labels) all
    containers are looked at.
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
  packages:
    description:
      - Only what these packages of the host own counts.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Go on only if the fix is everywhere
  lxcfleet.fleet.verify:
    packages: [libssl3]
  register: evidence

- name: File the evidence
  ansible.builtin.copy:
    content: "{{ evidence.evidence | to_nice_json }}"
    dest: "/var/log/evidence-{{ inventory_hostname }}.json"
    mode: "0640"
  delegate_to: localhost
"""

RETURN = r"""
proven:
  description: Whether all is proven.
  returned: always
  type: bool
evidence:
  description: The record, as C(lxcfleet verify -f json) has it.
  returned: always
  type: dict
not_proven:
  description: The containers that are not proven, and why.
  returned: always
  type: dict
  sample: {"web7": ["3 processes run old files"]}
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
            packages=dict(type="list", elements="str", default=[]),
        ),
        supports_check_mode=True,
    )
    params = module.params
    chosen = params["names"] + pairs("-l", params["labels"])
    packages = [f"--package={package}" for package in params["packages"]]
    status, proof = Lxcfleet(module).run("verify", chosen + packages)
    left = {each["name"]: each["reasons"] for each in proof["containers"] if not each["proven"]}
    said = dict(changed=False, proven=bool(proof["proven"]), evidence=proof, not_proven=left)
    if status == 0 and proof["proven"]:
        module.exit_json(**said)
    first = "; ".join(f"{name}: {', '.join(reasons)}" for name, reasons in list(left.items())[:3])
    module.fail_json(msg=f"not proven: {len(left)} of {len(proof['containers'])}: {first}", **said)


if __name__ == "__main__":
    main()
