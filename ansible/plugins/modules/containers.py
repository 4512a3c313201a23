#!/usr/bin/python
"""Containers are there, run, are stopped, or are gone."""

DOCUMENTATION = r"""
module: containers
short_description: Clone containers from the host's root
version_added: 1.0.0
description:
  - Makes sure that containers are there and run, are there and are stopped, or are gone.
  - A container that is there stays as it is, and a warning says in what it is not as asked for. With I(update) it is
    changed.
author:
  - The lxcfleet developers (@lxcfleet)
extends_documentation_fragment:
  - lxcfleet.fleet.cli
attributes:
  check_mode:
    description: Nothing is changed, and what would be is told by C(lxcfleet --dry-run).
    support: full
  diff_mode:
    description: The states of containers that change, and with I(update) the fields that do, before and after.
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
  update:
    description:
      - Whether containers that are there become as asked for, too. Limits, labels, ports and the like change at once; what
        takes a restart is restarted in waves, and the module waits for that.
      - A key that is not named here gets its value from the profile, else its default, but keys that have a setting of
        their own (C(memory), C(network) and so on) stay as they are.
      - Keys that can't change, such as I(privileged), fail the module if they differ. Not for I(state=absent).
    type: bool
    default: false
  # documentation of fields: written by `make docs`
  init:
    description:
      - >-
        What runs as process 1: system, the host's systemd, or app, its one command under a small init. The
        default is app with a command, else system.
    type: str
    choices: [system, app]
  command:
    description:
      - >-
        The command and its arguments, as a list (app containers only).
    type: list
    elements: str
  environment:
    description:
      - >-
        Variables of its command, by name.
    type: dict
  labels:
    description:
      - >-
        Labels, by key.
    type: dict
  profile:
    description:
      - >-
        The profile of the settings that it starts from.
    type: str
  privileged:
    description:
      - >-
        Whether root inside is root on the host. Only for programs that you trust.
    type: bool
  network:
    description:
      - >-
        bridge: an address on the fleet's bridge; none: a loopback interface only; uplink: a place on the
        network of one of the host's interfaces, which C(uplink) names; host: the host's own interfaces, with
        no wall between (app containers only).
    type: str
    choices: [bridge, none, uplink, host]
  uplink:
    description:
      - >-
        With C(network: uplink): the interface of the host's and, if asked for, a VLAN on it, an address and a
        gateway: parent, vlan, address, gateway. Without an address, a DHCP server gives it one.
    type: str
  static_addresses:
    description:
      - >-
        Addresses of your choice in the fleet's ranges, one IPv4 and one IPv6 address at the most. Unless you
        choose both, the IPv6 address has the same number in its range as the IPv4 address.
    type: list
    elements: str
  ports:
    description:
      - >-
        The ports that its program listens on, for SRV records: _http._tcp.NAME.fleet.
    type: list
    elements: str
  aliases:
    description:
      - >-
        Further names of it below the fleet's domain. One that several containers have leads to the healthy
        ones of them.
    type: list
    elements: str
  publish:
    description:
      - >-
        Ports of the host, or ranges of them, that lead to its own. Those that containers with the same label
        share lead to the healthy ones of them.
    type: list
    elements: str
  affinity:
    description:
      - >-
        Which of those that share a published port a new connection goes to. none: any one, by chance; client:
        the same one for all connections from one address, while it is led to.
    type: str
    choices: [none, client]
  receive_mbit:
    description:
      - >-
        Megabits per second that it may receive from the bridge at most, such as 100; 0: no limit.
    type: float
  send_mbit:
    description:
      - >-
        Megabits per second that it may send to the bridge at most; 0: no limit.
    type: float
  isolated:
    description:
      - >-
        Whether it is kept from other isolated containers, and from the host but for its names.
    type: bool
  drain:
    description:
      - >-
        Seconds that it stays up after it left names and ports, before it is stopped.
    type: str
  health:
    description:
      - >-
        How to tell that it does its work: one of C(exec) (a list), C(tcp) and C(http), with C(interval),
        C(timeout), C(retries) and C(start_period); or C(ignore_units), a list of units that may fail.
    type: dict
  memory:
    description:
      - >-
        Memory that it may use at most, such as 512M; 0: no limit.
    type: str
  swap:
    description:
      - >-
        Swap space that it may use at most beside its memory, such as 1G; 0: none; max: no limit. The default
        is max.
    type: str
  oom:
    description:
      - >-
        Which of its processes are killed when its memory limit is reached. container: all of them, so it
        ends, and its restart policy decides; process: the one that uses most. The default is container for an
        app container, process for a system container.
    type: str
    choices: [container, process]
  cpus:
    description:
      - >-
        Processors that it may use at most, such as 1.5; 0: no limit.
    type: float
  cpu_weight:
    description:
      - >-
        Its share of the processors where they don't suffice for all: one with 200 gets twice as much as one
        with 100. The default is 100.
    type: int
  io_weight:
    description:
      - >-
        Its share of the disks' time where that does not suffice for all, as with cpu_weight. Takes a disk
        whose scheduler goes by weights: bfq, or the kernel's io.cost. The default is 100.
    type: int
  io:
    description:
      - >-
        The most that it may read from disks and write to them, by disk: read and write in bytes a second,
        read_ops and write_ops in operations a second. A disk is named as sda; delta, or none, is the one with
        its delta.
    type: dict
  disk:
    description:
      - >-
        Disk space that it may take at most, such as 10G; 0: no limit. Takes project quotas; not for a
        privileged one.
    type: str
  pids:
    description:
      - >-
        Processes and threads that it may have at most; 0: no limit.
    type: int
  volumes:
    description:
      - >-
        What it has beside its layers: volumes, which outlive it, directories of the host (read-only, unless
        :rw is said), and file systems in memory.
    type: list
    elements: str
  app:
    description:
      - >-
        The release of an app that it has, read-only: at /opt/NAME, unless another path is named.
    type: str
  generation:
    description:
      - >-
        The generation that it stands on, a frozen base, by its number; 0: the host's root, as it is at each
        start. C(lxcfleet generation list) has the numbers, which are this host's own.
    type: int
  secrets:
    description:
      - >-
        Secrets that it has as files in /run/secrets: by name, with what differs of the file's name, owner,
        mode, and what follows in it when the value changes.
    type: list
    elements: str
  no_new_privs:
    description:
      - >-
        Whether setuid and file capabilities give no rights in it (app containers only).
    type: bool
  user:
    description:
      - >-
        The user that its command runs as, as its own /etc/passwd has it at each start: NAME, UID, NAME:GROUP
        or UID:GID (app containers only). The default is root.
    type: str
  stop_signal:
    description:
      - >-
        The signal that asks its command to end, such as INT for PostgreSQL (app containers only). The default
        is TERM.
    type: str
  stop_timeout:
    description:
      - >-
        Seconds until its stop becomes a kill.
    type: str
  units:
    description:
      - >-
        The host's services that it runs, by the names of their units, such as apache2.service (system
        containers only).
    type: list
    elements: str
  nesting:
    description:
      - >-
        Whether programs in it may make containers of their own, such as bubblewrap's: they get a /proc and a
        /sys that nothing covers. Not for a privileged one.
    type: bool
  lxc:
    description:
      - >-
        Keys of LXC's own configuration, with their values: lxc.prlimit.*, lxc.sysctl.*, lxc.cgroup.* (v1),
        lxc.cgroup2.* and lxc.environment.runtime, but for those that could take a wall away.
    type: dict
  devices:
    description:
      - >-
        The host's devices that it is given: tun, fuse, kvm, dri (the render nodes of graphics processors).
    type: list
    elements: str
  maintenance:
    description:
      - >-
        Whether it cleans up in itself by the host's timers: systemd-tmpfiles-clean, logrotate,
        phpsessionclean (system containers only). The default is yes.
    type: bool
  autostart:
    description:
      - >-
        Whether it starts when the host boots, if it ran when the host went down. The default is yes.
    type: bool
  boot_order:
    description:
      - >-
        Those with lower numbers start before it when the host boots, and end after it at shutdown. The
        default is 0.
    type: int
  depends_on:
    description:
      - >-
        The containers that it waits for before it starts: names of containers or groups, each with started,
        healthy or completed (its last run ended with 0).
    type: dict
  restart:
    description:
      - >-
        When it is started again after it ended by itself: no, on-failure, always or unless-stopped, and what
        differs of delay, factor, max_delay, reset_after, attempts, within and on_unhealthy. The default is
        no.
    type: str
  hooks:
    description:
      - >-
        Commands that run in it before and after it is frozen for a copy: pre_freeze, post_freeze, and the
        timeout of each.
    type: str
  snapshots:
    description:
      - >-
        How often a snapshot of it is made by itself, and how many of these are kept: every, keep.
    type: str
  logs:
    description:
      - >-
        Whether its lines go to the host's log, and how many: journal, rate, burst.
    type: str
  # end of the documentation of fields
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

- name: Give all of them more memory, also those that are there
  lxcfleet.fleet.containers:
    name: web
    count: 100
    labels:
      role: web
    command: [python3, -m, http.server, "80"]
    memory: 512M
    update: true

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
rollout:
  description:
    - The restart, in waves, of the containers whose change takes one, as C(lxcfleet rollout status) shows it.
  returned: with I(update), if there is one
  type: dict
plan:
  description: What would be done, one line a step.
  returned: in check mode
  type: list
  elements: str
"""

import shlex

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.lxcfleet.fleet.plugins.module_utils.cli import EXECUTABLE, Change, Lxcfleet, pairs

# arguments of fields: written by `make docs`
FIELDS = dict(
    init=dict(type="str", choices=["system", "app"]),
    command=dict(type="list", elements="str"),
    environment=dict(type="dict"),
    labels=dict(type="dict"),
    profile=dict(type="str"),
    privileged=dict(type="bool"),
    network=dict(type="str", choices=["bridge", "none", "uplink", "host"]),
    uplink=dict(type="str"),
    static_addresses=dict(type="list", elements="str"),
    ports=dict(type="list", elements="str"),
    aliases=dict(type="list", elements="str"),
    publish=dict(type="list", elements="str"),
    affinity=dict(type="str", choices=["none", "client"]),
    receive_mbit=dict(type="float"),
    send_mbit=dict(type="float"),
    isolated=dict(type="bool"),
    drain=dict(type="str"),
    health=dict(type="dict"),
    memory=dict(type="str"),
    swap=dict(type="str"),
    oom=dict(type="str", choices=["container", "process"]),
    cpus=dict(type="float"),
    cpu_weight=dict(type="int"),
    io_weight=dict(type="int"),
    io=dict(type="dict"),
    disk=dict(type="str"),
    pids=dict(type="int"),
    volumes=dict(type="list", elements="str"),
    app=dict(type="str"),
    generation=dict(type="int"),
    secrets=dict(type="list", elements="str", no_log=False),
    no_new_privs=dict(type="bool"),
    user=dict(type="str"),
    stop_signal=dict(type="str"),
    stop_timeout=dict(type="str"),
    units=dict(type="list", elements="str"),
    nesting=dict(type="bool"),
    lxc=dict(type="dict"),
    devices=dict(type="list", elements="str"),
    maintenance=dict(type="bool"),
    autostart=dict(type="bool"),
    boot_order=dict(type="int"),
    depends_on=dict(type="dict"),
    restart=dict(type="str"),
    hooks=dict(type="str"),
    snapshots=dict(type="str"),
    logs=dict(type="str"),
)
OPTIONS = dict(
    init=("--init", ""),
    environment=("--env", ""),
    labels=("--label", ""),
    profile=("--profile", ""),
    privileged=("--privileged", ""),
    network=("--network", ""),
    uplink=("--uplink", ""),
    static_addresses=("--address", ""),
    ports=("--port", ""),
    aliases=("--alias", ""),
    publish=("--publish", ""),
    affinity=("--affinity", ""),
    receive_mbit=("--receive-mbit", ""),
    send_mbit=("--send-mbit", ""),
    isolated=("--isolated", ""),
    drain=("--drain", ""),
    memory=("--memory", ""),
    swap=("--swap", ""),
    oom=("--oom", ""),
    cpus=("--cpus", ""),
    cpu_weight=("--cpu-weight", ""),
    io_weight=("--io-weight", ""),
    io=("--io", ""),
    disk=("--disk", ""),
    pids=("--pids", ""),
    volumes=("--volume", ""),
    app=("--app", ""),
    generation=("--generation", ""),
    secrets=("--secret", ""),
    no_new_privs=("--no-new-privs", ""),
    user=("--user", ""),
    stop_signal=("--stop-signal", ""),
    stop_timeout=("--stop-timeout", ""),
    units=("--unit", ""),
    nesting=("--nesting", ""),
    lxc=("--lxc", ""),
    devices=("--device", ""),
    maintenance=("--maintenance", "--no-maintenance"),
    autostart=("--autostart", "--no-autostart"),
    boot_order=("--boot-order", ""),
    depends_on=("--depends-on", ""),
    restart=("--restart", ""),
    hooks=("--hooks", ""),
    snapshots=("--snapshots", ""),
    logs=("--logs", ""),
)
# end of the arguments of fields


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
    if params["update"]:
        arguments += ["--update"]
    for key in sorted(OPTIONS):
        arguments += said(OPTIONS[key], params[key])
    arguments += check(params["health"] or {}) + params["options"]
    return lxcfleet.change("create", arguments, params["command"] or [])


def said(option, value):
    """A field as C(create) takes it. C(option): its name, and for false the one that says so, if there is one."""
    yes, no = option
    if value is None or value == "":
        return []
    if isinstance(value, bool):
        return [yes] if value else [no] if no else []
    if isinstance(value, dict):
        return pairs(yes, value)
    if isinstance(value, list):
        return [word for each in value for word in (yes, each)]
    return [yes, str(value)]


def check(health):
    """How the containers' health is told, as C(create) takes it."""
    words = []
    for key in sorted(health):
        value = health[key]
        text = " ".join(shlex.quote(word) for word in value) if isinstance(value, list) else str(value)
        words += ["--health-" + key.replace("_", "-"), text]
    return words


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
            FIELDS,
            **EXECUTABLE,
            name=dict(type="str", required=True),
            count=dict(type="int"),
            state=dict(type="str", choices=["present", "stopped", "absent"], default="present"),
            update=dict(type="bool", default=False),
            options=dict(type="list", elements="str", default=[]),
            timeout=dict(type="float"),
        ),
        supports_check_mode=True,
    )
    params = module.params
    if params["update"] and params["state"] == "absent":
        module.fail_json(msg="update does not go with state=absent: what is destroyed is not changed before")
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
    change.leave(module, before, after(module, lxcfleet, before, change), updated=params["update"])


def after(module, lxcfleet, before, change):
    """The states afterwards; in check mode those that would be."""
    if not module.check_mode:
        return lxcfleet.states(before)
    goal = {"present": "running"}.get(module.params["state"], module.params["state"])
    changing = {result["name"] for result in change.results if result["changed"]}
    return {name: goal if name in changing else state for name, state in before.items()}


if __name__ == "__main__":
    main()
