#!/usr/bin/python
"""A fleet is as its file has it."""

DOCUMENTATION = r"""
module: fleet
short_description: Have the containers of a host as a fleet file has them
version_added: 1.0.0
description:
  - Applies a fleet file, as C(lxcfleet apply) does. Missing containers are created, limits and labels change at once, and
    what takes a restart is restarted in waves, each of which has to be healthy before the next one begins. A rollout that
    halts fails the task; the next run of the task does the rest.
  - What C(lxcfleet set) and C(lxcfleet scale) changed stays, as long as the file's own value is the same as at the last
    apply. C(docs/fleet-file.md) explains the file.
author:
  - The lxcfleet developers (@lxcfleet)
extends_documentation_fragment:
  - lxcfleet.fleet.cli
  - lxcfleet.fleet.cli.rollout
attributes:
  check_mode:
    description: Nothing is changed, and what would be is told by C(lxcfleet diff).
    support: full
  diff_mode:
    description: The values that change, for each container.
    support: full
options:
  src:
    description:
      - The fleet file, on the host. Files that it names lie beside it there.
    type: path
  content:
    description:
      - The text of the fleet file, instead of C(src). A file that it names needs an absolute path on the host.
    type: str
  prune:
    description:
      - Whether containers that the fleet owns, and the file does not have, are destroyed. C(some) does not destroy more than
        half of them, nor a whole group.
    type: str
    choices: [never, some, all]
    default: never
  adopt:
    description:
      - Whether containers of these names that belong to no fleet are taken over.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: The shop is as its file has it
  lxcfleet.fleet.fleet:
    content: "{{ lookup('ansible.builtin.file', 'fleet.yaml') }}"

- name: Apply a file of the host, one container after the other
  lxcfleet.fleet.fleet:
    src: /etc/lxcfleet/fleets/shop.yaml
    max_unavailable: 1
    prune: some
"""

RETURN = r"""
plan:
  description: What changes, as C(lxcfleet diff --format json) has it.
  returned: always
  type: dict
  contains:
    id:
      description: Tells this plan from any other one.
      returned: always
      type: str
    changes:
      description: The changes, each with C(name), C(group), C(change) (its class) and C(differs).
      returned: always
      type: list
      elements: dict
    kept:
      description: What is not as the file has it, and stays so.
      returned: always
      type: list
      elements: dict
    left:
      description: Containers that the fleet owns, and the file does not have; they are left alone.
      returned: always
      type: list
      elements: str
containers:
  description: What became of each container that was changed.
  returned: unless in check mode
  type: list
  elements: dict
  sample: [{"name": "web1", "status": "created", "changed": true, "error": null}]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.lxcfleet.fleet.plugins.module_utils.cli import EXECUTABLE, ROLLOUT, Lxcfleet, rollout_options

PRUNE = dict(never=[], some=["--prune"], all=["--prune=all"])
GONE = "absent"


def side(plan, which):
    """The values of each container before (C(which) is 0) or after (1) the plan."""
    ends = dict(create=(GONE, "running"), start=("stopped", "running"), stop=("running", "stopped"), destroy=("there", GONE))
    found = {}
    for change in plan["changes"]:
        values = {key: both[which] for key, both in change["differs"].items()}
        state = ends.get(change["change"])
        found[change["name"]] = dict(values, state=state[which]) if state else values
    for change in plan["volumes"]:
        values = {key: both[which] for key, both in change["differs"].items()}
        made = dict(state=(GONE, "there")[which]) if change["change"] == "create" else {}
        found["volume " + change["name"]] = dict(values, **made)
    for change in plan["secrets"]:
        found["secret " + change["name"]] = {key: both[which] for key, both in change["differs"].items()}
    return found


def main():
    """The module."""
    module = AnsibleModule(
        dict(
            EXECUTABLE,
            src=dict(type="path"),
            content=dict(type="str"),
            prune=dict(type="str", choices=sorted(PRUNE, key=list(PRUNE).index), default="never"),
            adopt=dict(type="bool", default=False),
            **ROLLOUT,
        ),
        required_one_of=[("src", "content")],
        mutually_exclusive=[("src", "content")],
        supports_check_mode=True,
    )
    params = module.params
    lxcfleet = Lxcfleet(module)
    which = ["-f", params["src"] or "-", *PRUNE[params["prune"]]] + (["--adopt"] if params["adopt"] else [])
    plan = lxcfleet.run("diff", which, style="--format", data=params["content"])[1]
    said = dict(changed=bool(plan["changed"]), plan=plan, diff=dict(before=side(plan, 0), after=side(plan, 1)))
    for name in plan["left"]:
        module.warn(f"{name} is not in the file any more, and is left: prune destroys it")
    if module.check_mode or not plan["changed"]:
        module.exit_json(**said)
    arguments = [*which, "--plan", plan["id"], *rollout_options(params)]
    status, answer = lxcfleet.run("apply", arguments, style="--format", data=params["content"])
    said["containers"] = answer["results"]
    errors = [result["error"] for result in answer["results"] if result["error"]]
    if status:
        first = "\n".join(errors[0][part] for part in ("message", "why", "hint") if errors[0][part]) if errors else ""
        module.fail_json(msg=first or "lxcfleet failed", **said)
    module.exit_json(**said)


if __name__ == "__main__":
    main()
