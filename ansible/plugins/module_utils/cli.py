"""The command line of lxcfleet as modules call it: JSON in, JSON out, errors as it says them."""

import json

DONE = 0
FAILED = 1
SOME_FAILED = 3
FOUND = 4

EXECUTABLE = dict(executable=dict(type="path", default="lxcfleet"))

SELECTION = dict(
    names=dict(type="list", elements="str", default=[]),
    labels=dict(type="dict", default={}),
    all=dict(type="bool", default=False),
)

ROLLOUT = dict(
    max_unavailable=dict(type="str"),
    canaries=dict(type="str"),
    min_healthy_time=dict(type="float"),
    healthy_deadline=dict(type="float"),
    bake=dict(type="str"),
)


def pairs(option, values):
    """A dictionary as repeated options C(-l KEY=VALUE)."""
    return [word for key in sorted(values) for word in (option, f"{key}={text_of(values[key])}")]


def text_of(value):
    """A value as C(lxcfleet) reads it: numbers and booleans as YAML's reader would write them, a dictionary as C(K=V,K=V)."""
    if isinstance(value, dict):
        return ",".join(f"{key}={text_of(value[key])}" for key in sorted(value))
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def selection(params):
    """The chosen containers as arguments."""
    chosen = list(params["names"]) + pairs("-l", params["labels"])
    return chosen + (["--all"] if params["all"] else [])


def rollout_options(params):
    """How a rollout goes, as arguments."""
    said = [(option, params[option]) for option in sorted(ROLLOUT) if params[option] is not None]
    return [f"--{option.replace('_', '-')}={value}" for option, value in said]


class Lxcfleet:
    """Calls C(lxcfleet) on behalf of a module, which fails where there is no answer."""

    def __init__(self, module):
        self._module = module
        self._executable = module.get_bin_path(module.params["executable"], required=True)

    def run(self, verb, arguments=(), command=(), style="-f", data=None):
        """Exit status and answer of C(lxcfleet VERB -f json ARGUMENTS -- COMMAND). C(style): the option for the form of the
        answer; C(data): what the command reads."""
        words = [self._executable, *verb.split(), style, "json", *list(arguments)]
        if command:
            words += ["--", *list(command)]
        status, out, err = self._module.run_command(words, data=data, expand_user_and_vars=False)
        try:
            return status, json.loads(out)
        except ValueError:
            message = err.strip() or out.strip() or "no answer"
            self._module.fail_json(msg=message.removeprefix("lxcfleet: "), rc=status, cmd=words)

    def change(self, verb, arguments=(), command=()):
        """The answer of a verb that changes containers; in check mode it only plans."""
        more = ["--dry-run"] if self._module.check_mode else []
        status, answer = self.run(verb, list(arguments) + more, command)
        return Change(status, answer)

    def roll(self, verb, arguments):
        """Carry a rollout out and end the module; in check mode it only plans."""
        module = self._module
        status, record = self.run(verb, list(arguments) + (["--dry-run"] if module.check_mode else []))
        restarted = [name for wave in record["waves"] for name in wave] if module.check_mode else [
            container["name"] for container in record["containers"] if container["wave"] is not None
        ]
        said = dict(
            changed=bool(record["changed"]),
            rollout=record,
            restarted=restarted,
            diff=dict(
                before={name: "to be restarted" for name in restarted},
                after={name: "restarted" for name in restarted},
            ),
        )
        if status == DONE:
            module.exit_json(**said)
        halted = record["halted"]
        if halted:
            module.fail_json(msg=f"the rollout is halted at {halted['container'] or 'a gate'}: {halted['why']}", **said)
        bad = [c["name"] for c in record["containers"] if c["phase"] == "failed" or c["stale"]]
        module.fail_json(msg=f"the rollout is {record['status']}; failed or stale still: {', '.join(bad) or 'none'}", **said)

    def states(self, names=None):
        """Name to state of the containers that there are; of C(names) only, if given."""
        found = {container["name"]: container["state"] for container in self.run("list")[1]}
        return found if names is None else {name: found.get(name, "absent") for name in names}


class Change:
    """What one or several calls did, or would do."""

    def __init__(self, status=DONE, answer=None):
        answer = answer or {}
        self.failed = status not in (DONE, FOUND)
        self.changed = bool(answer.get("changed"))
        self.results = list(answer.get("results") or [])
        self.plan = list(answer.get("plan") or [])
        self.rollout = answer.get("rollout")
        self.differs = {result["name"]: result["differs"] for result in self.results if result.get("differs")}

    def add(self, other):
        """Take another call's outcome in; of a container's results the last one counts, unless it changed nothing."""
        self.failed = self.failed or other.failed
        self.changed = self.changed or other.changed
        by_name = {result["name"]: result for result in self.results}
        by_name.update({result["name"]: result for result in other.results if result["changed"] or result["error"]})
        self.results = list(by_name.values())
        self.plan += other.plan
        self.rollout = other.rollout or self.rollout
        self.differs.update(other.differs)

    def leave(self, module, before, after, updated=False):
        """End the module. C(before) and C(after): name to state, for a diff. C(updated): whether containers that differed
        were changed."""
        if updated:
            before, after = self._with_fields(before, 0), self._with_fields(after, 1)
        same = [name for name in before if before[name] == after.get(name)]
        said = dict(changed=self.changed, containers=self.results)
        if self.rollout:
            said["rollout"] = self.rollout
        if module.check_mode:
            said["plan"] = self.plan
        said["diff"] = dict(
            before=dict((name, before[name]) for name in before if name not in same),
            after=dict((name, after[name]) for name in after if name not in same),
        )
        for warning in [] if updated else self._differences():
            module.warn(warning)
        errors = [result["error"] for result in self.results if result["error"]]
        if errors or self.failed:
            module.fail_json(msg=self._message(errors), **said)
        module.exit_json(**said)

    def _with_fields(self, states, which):
        """The states, with the fields that changed as they were (C(which) is 0) or became (1)."""
        changed = {name: {key: both[which] for key, both in differs.items()} for name, differs in self.differs.items()}
        return {name: dict(changed[name], state=state) if name in changed else state for name, state in states.items()}

    def _differences(self):
        """What to warn of: in what containers that were there are not as asked for; those that are alike together."""
        alike = {}
        for name, differs in self.differs.items():
            text = "; ".join(f"{key}: {has} (asked: {asked})" for key, (has, asked) in differs.items())
            alike.setdefault(text, []).append(name)
        return [f"{', '.join(names)}: not as asked, and left so: {text}" for text, names in alike.items()]

    def _message(self, errors):
        if not errors:
            halted = (self.rollout or {}).get("halted")
            if halted:
                return f"changed, but the restart is halted at {halted['container'] or 'a gate'}: {halted['why']}"
            return "lxcfleet failed"
        first = "\n".join(text for text in (errors[0]["message"], errors[0]["why"], errors[0]["hint"]) if text)
        if len(self.results) == 1:
            return first
        return f"{len(errors)} of {len(self.results)} containers failed; the first: {first}"
