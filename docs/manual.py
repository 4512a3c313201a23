"""Writes the man pages and the shells' completions from the code: `docs/manual.py DIRECTORY`, for the installer.

lxcfleet(1) and lxcfleet.yaml(5) come from the command line and the settings themselves, as docs/reference.md does;
lxcfleetd(8) and bash's completion are texts of their own, beside this file.
"""

from __future__ import annotations

import datetime
import inspect
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import reference
from click.shell_completion import get_completion_class

from lxcfleet import __version__
from lxcfleet.cli.main import ALIASES, cli
from lxcfleet.spec.files import settings

HERE = Path(__file__).resolve().parent
SAMPLE = HERE.parent / "etc/lxcfleet.yaml"
DATE = datetime.datetime.fromtimestamp(
    int(os.environ.get("SOURCE_DATE_EPOCH", SAMPLE.stat().st_mtime)), datetime.UTC
).strftime("%Y-%m-%d")
SHELLS = {"bash": "lxcfleet", "zsh": "_lxcfleet", "fish": "lxcfleet.fish"}
"""Each shell and the name under which it looks for our completion."""

FILES = {
    "/etc/lxcfleet/lxcfleet.yaml": "The settings; see lxcfleet.yaml(5).",
    "/etc/lxcfleet/profiles.d/*.yaml": "Profiles, one in each file; see lxcfleet.yaml(5).",
    "/etc/lxcfleet/mask.d/*.yaml": "Rules of your own for what containers see of the host.",
    "/var/lib/lxc/NAME/lxcfleet.yaml": "What is asked for: create writes it, and set changes it.",
    "/var/lib/lxc/NAME/delta/": "What the container wrote: its only state.",
    "/var/lib/lxcfleet/": "What outlives containers: volumes, apps, generations, fleets as they were applied last.",
    "/run/lxcfleet/lxcfleet.sock": "Where lxcfleetd(8) answers: root and the group lxcfleet may use it, the group "
    "lxcfleet-ro to look.",
}

STATUS = {
    "0": "All was done.",
    "1": "It failed, or nothing was done.",
    "2": "The command line or other input is not valid; nothing was changed.",
    "3": "Some of several containers failed; the rest was done.",
    "4": "A check found something.",
    "125-127": "exec, shell, run and backup run: lxcfleet failed, the command can't be run, there is no such command. Other "
    "numbers are the command's own.",
    "130": "Ctrl-C ended it; what the daemon does goes on, if nothing else was said.",
}

ENVIRONMENT = {
    "LXCFLEET_DEBUG": "If set to 1, errors come with a traceback, as with --debug.",
}


def main() -> None:
    """The command."""
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "lxcfleet.1").write_text("\n".join(_program()) + "\n")
    (directory / "lxcfleet.yaml.5").write_text("\n".join(_settings()) + "\n")
    page = (HERE / "lxcfleetd.8").read_text().replace("@DATE@", DATE).replace("@VERSION@", __version__)
    (directory / "lxcfleetd.8").write_text(page)
    for shell in SHELLS:
        (directory / f"completion.{shell}").write_text(_completion(shell))


def _completion(shell: str) -> str:
    """The script for a shell: click's, but for bash, whose words end at the = of a label."""
    if shell == "bash":
        return (HERE / "completion.bash").read_text()
    found = get_completion_class(shell)
    assert found is not None
    complete = found(cli, {}, "lxcfleet", "_LXCFLEET_COMPLETE")
    # Without source(), which looks for the shell's version on the machine that builds this.
    script = complete.source_template % complete.source_vars() + "\n"
    if shell == "zsh" and "loadautofunc" not in script:
        # zsh loads it at the first TAB, which that of Debian 12's click leaves without an answer.
        script += '_lxcfleet_completion "$@"\n'
    return script


# -- roff: man(7) -------------------------------------------------------------------------------------------


def _roff(text: str) -> str:
    """``text`` as a line that means itself. `code` and ``code`` become bold."""
    plain = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("…", "...")
    bold = re.sub(r"(`{1,2})([^`]+)\1", r"\\fB\2\\fR", plain)
    return f"\\&{bold}" if bold.startswith(".") else bold


def _head(name: str, section: int, what: str) -> Iterator[str]:
    yield f'.TH {name.upper()} {section} {DATE} "lxcfleet {__version__}"'
    yield ".SH NAME"
    yield f"{name} \\- {_roff(what)}"


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if paragraph.startswith("\b\n"):
            lines = paragraph.split("\n")[1:]
            if lines[0] == "Examples:":
                del lines[0]
            yield from (".PP", ".nf", ".RS")
            yield from (_roff(line.strip()) for line in lines)
            yield from (".RE", ".fi")
        else:
            yield ".PP"
            yield _roff(" ".join(paragraph.split()))


def _items(items: dict[str, str]) -> Iterator[str]:
    for name, text in items.items():
        yield ".TP"
        yield f"\\fB{_roff(name)}\\fR"
        yield _roff(text)


def _also(*pages: str) -> Iterator[str]:
    yield ".SH SEE ALSO"
    yield ", ".join(f"\\fB{name}\\fR({section}" for name, section in (page.split("(") for page in pages))


# -- the pages ----------------------------------------------------------------------------------------------


def _program() -> Iterator[str]:
    yield from _head("lxcfleet", 1, "run fleets of LXC containers cloned from this host's own root")
    yield ".SH SYNOPSIS"
    yield "\\fBlxcfleet\\fR [\\fB\\-\\-debug\\fR] [\\fB\\-v\\fR] \\fIVERB\\fR ..."
    yield ".SH DESCRIPTION"
    yield from _paragraphs(cli.help or "")
    yield ".PP"
    yield "What is chosen by NAME, GLOB, \\fB\\-l\\fR and \\fB\\-\\-all\\fR narrows each other down; nothing is done to"
    yield "everything because an argument is missing."
    yield ".SH VERBS"
    context = click.Context(cli, info_name="lxcfleet", **cli.context_settings)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        yield from _command(command, name, context)
    yield ".SH EXIT STATUS"
    yield from _items(STATUS)
    yield ".SH ENVIRONMENT"
    yield from _items(ENVIRONMENT)
    yield ".SH FILES"
    yield from _items(FILES)
    yield from _also("lxcfleet.yaml(5)", "lxcfleetd(8)", "lxc(7)", "lxc\\-ls(1)")


def _command(command: click.Command, name: str, parent: click.Context) -> Iterator[str]:
    context = click.Context(command, info_name=name, parent=parent)
    short = [each for each, long in ALIASES.items() if long == name]
    usage = _roff(" ".join(command.collect_usage_pieces(context)))
    yield f'.SS "{_roff(context.command_path)} {usage}"'
    yield from _paragraphs(command.help or "")
    if short and not any(each in (command.help or "") for each in short):
        yield f"Also: {', '.join(short)}."
    for option in command.params:
        if isinstance(option, click.Option):
            yield ".TP"
            yield _roff(reference.option_names(option)).replace("\\e|", "|")
            yield _roff(option.help or "")
    if isinstance(command, click.Group):
        for each in command.list_commands(context):
            child = command.get_command(context, each)
            assert child is not None
            yield from _command(child, each, context)


def _settings() -> Iterator[str]:
    yield from _head("lxcfleet.yaml", 5, "settings of lxcfleetd")
    yield ".SH SYNOPSIS"
    yield ".I /etc/lxcfleet/lxcfleet.yaml"
    yield ".SH DESCRIPTION"
    yield "The operator's settings, as YAML; every key may be left out, and so may the file."
    yield "\\fBlxcfleet config check\\fR finds what is wrong with it, all at once. After a change:"
    yield "\\fBsystemctl reload lxcfleet\\fR. \\fBlxcfleet config show\\fR prints all keys, with their defaults."
    yield ".SH SETTINGS"
    for kind, title in (
        (settings.Config, ""),
        *((each, name) for name, each in reference.sections()),
    ):
        if title:
            yield f".SS {_roff(title)}"
            yield _roff(" ".join((inspect.getdoc(kind) or "").split()))
        yield from _table(kind)
    yield ".SH EXAMPLE"
    yield from (".nf", *(_roff(line) for line in SAMPLE.read_text().splitlines()), ".fi")
    yield from _also("lxcfleet(1)", "lxcfleetd(8)")


def _table(kind: type) -> Iterator[str]:
    for row in reference.keys(kind):
        default = reference.default(row).strip("`")
        yield ".TP"
        yield f"\\fB{_roff(row.key)}\\fR" + (f" (default: {_roff(default)})" if default else "")
        yield _roff(row.help)


if __name__ == "__main__":
    main()
