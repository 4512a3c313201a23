#!/usr/bin/python
"""Containers are there, run, are stopped, or are gone."""

DOCUMENTATION = r"""
module: containers
short_description: Clone containers from the host's root
version_added: 1.0.0
description:
  - Makes sure that containers are there and run, are there and are stopped, or are gone.
  - A container that is there keeps what it was created with, and a warning says in what it is not as asked for. To
    change its command or labels, remove it first.
author:
  - The lxcfleet developers (@lxcfleet)
extends_documentation_fragment:
  - lxcfleet.fleet.cli
attributes:
  check_mode:
    description: Nothing is changed, and what would be is told by C(lxcfleet --dry-run).
    support: full
  diff_mode:
    description: The states of containers that change, before and after.
    support: full
options:
  name:
    description:
      - The name of one container, or, with I(count), what precedes the numbers.
      - One lower-case DNS label.
    type: str
    required: true
  count:
    description:
      - That many containers, I(name)1 to I(name)N. Those with higher numbers are left alone.
    type: int
  state:
    description:
      - C(present) creates what is missing and starts what does not run.
      - C(stopped) creates what is missing and stops what runs.
      - C(absent) destroys the containers with all that they have written, also those that run.
    type: str
    choices: [present, stopped, absent]
    default: present
  command:
    description:
      - The command of app containers with its arguments. Without one they are system containers, which boot the
        host's systemd.
    type: list
    elements: str
    default: []
  environment:
    description:
      - Variables of the command.
    type: dict
    default: {}
  labels:
    description:
      - Labels of new containers.
    type: dict
    default: {}
  profile:
    description:
      - A profile of the host's C(lxcfleet.yaml) for new containers.
    type: str
  network:
    description:
      - How new containers are connected. The host's settings say what is the default.
    type: str
  options:
    description:
      - Further options of C(lxcfleet create), as they stand on a command line.
    type: list
    elements: str
    default: []
  timeout:
    description:
      - Seconds until a stop becomes a kill. The host's settings say what is the default.
    type: float
"""

EXAMPLES = r"""
- name: Have a hundred containers
  lxcfleet.fleet.containers:
    name: web
    count: 100
    labels:
      role: web
    command: [python3, -m, http.server, "80"]

- name: Have one that boots systemd
  lxcfleet.fleet.containers:
    name: db

- name: Remove it
  lxcfleet.fleet.containers:
    name: db
    state: absent
"""

RETURN = r"""
containers:
  description:
    - What became of each container. Of one that was there and is not as asked for, C(differs) has by key what it has
      and what was asked; of variables only the names.
  returned: always
  type: list
  elements: dict
  sample: [{"name": "web1", "status": "created", "changed": true, "error": null}]
plan:
  description: What would be done, one line a step.
  returned: in check mode
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.lxcfleet.fleet.plugins.module_utils.cli import EXECUTABLE, Change, Lxcfleet, pairs


def chosen(params):
    """The names of the containers that are meant."""
    if params["count"] is None:
        return [params["name"]]
    return [f"{params['name']}{number}" for number in range(1, params["count"] + 1)]


def create(lxcfleet, params):
    """Create what is missing, and start what should run."""
    arguments = [params["name"], "--ensure"]
    if params["count"] is not None:
        arguments += ["-n", str(params["count"])]
    if params["state"] == "stopped":
        arguments += ["--no-start"]
    for option in ("profile", "network"):
        if params[option]:
            arguments += ["--" + option, params[option]]
    arguments += pairs("-l", params["labels"]) + pairs("-e", params["environment"]) + params["options"]
    return lxcfleet.change("create", arguments, params["command"])


def act(lxcfleet, verb, names, params):
    """Stop or destroy those; a verb without a container would be refused."""
    if not names:
        return Change()
    timeout = [] if params["timeout"] is None or verb != "stop" else ["--timeout", str(params["timeout"])]
    return lxcfleet.change(verb, names + timeout + (["--force"] if verb == "destroy" else []))


def main():
    """The module."""
    module = AnsibleModule(
        dict(
            EXECUTABLE,
            name=dict(type="str", required=True),
            count=dict(type="int"),
            state=dict(type="str", choices=["present", "stopped", "absent"], default="present"),
            command=dict(type="list", elements="str", default=[]),
            environment=dict(type="dict", default={}),
            labels=dict(type="dict", default={}),
            profile=dict(type="str"),
            network=dict(type="str"),
            options=dict(type="list", elements="str", default=[]),
            timeout=dict(type="float"),
        ),
        supports_check_mode=True,
    )
    params = module.params
    lxcfleet = Lxcfleet(module)
    names = chosen(params)
    before = lxcfleet.states(names)
    there = [name for name in names if before[name] != "absent"]
    if params["state"] == "absent":
        change = act(lxcfleet, "destroy", there, params)
    else:
        change = create(lxcfleet, params)
        if params["state"] == "stopped" and not change.failed:
            change.add(act(lxcfleet, "stop", there, params))
    change.leave(module, before, after(module, lxcfleet, before, change))


def after(module, lxcfleet, before, change):
    """The states afterwards; in check mode those that would be."""
    if not module.check_mode:
        return lxcfleet.states(before)
    goal = {"present": "running"}.get(module.params["state"], module.params["state"])
    changing = {result["name"] for result in change.results if result["changed"]}
    return {name: goal if name in changing else state for name, state in before.items()}


if __name__ == "__main__":
    main()
