"""Writes docs/reference.md from the code: the command line, and the settings. `make docs` runs it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import click

from lxcfleet.cli.main import ALIASES, cli
from lxcfleet.spec.container import fields, health, restart
from lxcfleet.spec.files import profiles, settings
from lxcfleet.spec.policies.rollout import ProfileRollout
from lxcfleet.spec.reading.rows import Effect, Row, SectionType, rows_of

HEAD = """\
# Reference

Written by `make docs` from the code; a test sees to it that the two agree.

"""


def page() -> str:
    """The whole page."""
    return HEAD + "\n".join([*_commands(), *_settings()])


def _commands() -> Iterator[str]:
    yield "## The command line\n"
    yield "`lxcfleet [--debug] [-v] VERB …`; each verb takes `-h`. What is chosen by NAME, GLOB, `-l` and `--all` narrows"
    yield "each other down; nothing is done to everything because an argument is missing.\n"
    yield (cli.epilog or "").partition(". ")[2] + "\n"
    context = click.Context(cli, info_name="lxcfleet", **cli.context_settings)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        yield from _command(command, name, context)


def _command(command: click.Command, name: str, parent: click.Context) -> Iterator[str]:
    context = click.Context(command, info_name=name, parent=parent)
    also = [short for short, long in ALIASES.items() if long == name]
    yield f"### {context.command_path}\n" if not also else f"### {context.command_path}, {', '.join(also)}\n"
    yield f"    {context.command_path} {' '.join(command.collect_usage_pieces(context))}\n"
    yield from _text(inspect.cleandoc(command.help or ""))
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    if options:
        yield "| option | |\n|---|---|"
        yield from (f"| {option_names(option)} | {_cell(option.help or '')} |" for option in options)
        yield ""
    if isinstance(command, click.Group):
        for each in command.list_commands(context):
            child = command.get_command(context, each)
            assert child is not None
            yield from _command(child, each, context)


def _text(text: str) -> Iterator[str]:
    """Paragraphs; those that \\b keeps as they are, the examples, as code."""
    for paragraph in text.split("\n\n"):
        if paragraph.startswith("\b\n"):
            yield "\n".join(f"    {line.strip()}" for line in paragraph.split("\n")[2:]) + "\n"
        else:
            yield paragraph + "\n"


def option_names(option: click.Option) -> str:
    """How an option is written, with what it takes."""
    names = ", ".join(f"`{name}`" for name in option.opts)
    if option.secondary_opts:
        names += " / " + ", ".join(f"`{name}`" for name in option.secondary_opts)
    if option.is_flag:
        return names
    if isinstance(option.type, click.Choice):
        return f"{names} {_cell('|'.join(option.type.choices))}"
    return f"{names} {option.metavar or _type(option)}"


def _type(option: click.Option) -> str:
    return "NUMBER" if isinstance(option.type, (click.types.IntParamType, click.types.FloatParamType)) else "TEXT"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _settings() -> Iterator[str]:
    yield "## Settings\n"
    yield "`/etc/lxcfleet/lxcfleet.yaml`; every key may be left out. `lxcfleet config check [FILE]` finds what is wrong with"
    yield "it, all at once; after a change `systemctl reload lxcfleet`: no key takes a restart of lxcfleetd, and what"
    yield "can't change at the moment is in its log. Rules for the mask are in files of their own: [mask](mask.md).\n"
    yield from _table(settings.Config)
    for title, kind in sections():
        yield f"### {title}\n"
        yield (inspect.getdoc(kind) or "").replace("``", "`") + "\n"
        yield from _table(kind)
    yield "### What `lxcfleet set` changes\n"
    yield "Keys and values are those of a profile. How a container comes to a new value:\n"
    for change, when in _WHEN.items():
        yield f"- {when}: {', '.join(f'`{key}`' for key, row in fields.table().items() if row.change is change)}"
    yield ""


_WHEN = {
    Effect.LIVE: "at once, also while it runs",
    Effect.RESTART: "by a restart",
    Effect.NEVER: "not at all; destroy the container and create it anew",
}


def sections() -> Iterator[tuple[str, type]]:
    """The settings that hold others, as they are written, and what they hold."""
    for key, row in rows_of(settings.Config).items():
        if isinstance(row.type, SectionType):
            yield f"`{key}:`", row.type.kind
    yield "`profiles:` NAME`:`", profiles.Profile
    yield "`health:` of a profile", health.HealthCheck
    yield "`restart:` of a profile", restart.Restart
    yield "`rollout:` of a profile", ProfileRollout


def _table(section: type) -> Iterator[str]:
    yield "| key | default | |\n|---|---|---|"
    for row in keys(section):
        yield f"| `{row.key}` | {default(row)} | {_cell(row.help)} |"
    yield ""


def keys(section: type) -> Iterator[Row]:
    """The keys of a section but those of the settings that are sections of their own."""
    if section is profiles.Profile:
        yield from profiles.rows().values()
    elif section is health.HealthCheck:
        yield from health.rows().values()
    else:
        apart = (SectionType, profiles.ProfilesType)
        yield from (row for row in rows_of(section).values() if not isinstance(row.type, apart))


def default(row: Row) -> str:
    """What holds where the key is left out."""
    if row.setting or row.usual:
        return f"`{row.setting}:`" if row.setting else row.usual
    if row.default in (None, (), {}) and not isinstance(row.default, bool):
        return ""
    value = row.render(row.default)
    return f"`{value}`" if value and isinstance(value, str) else f"`{settings.plain(value)}`"


if __name__ == "__main__":
    sys.stdout.write(page())
