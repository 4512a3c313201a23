"""Writes docs/reference.md from the code: the command line, and the settings. `make docs` runs it."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import click

from lxcfleet.cli.main import ALIASES, cli
from lxcfleet.spec import settings
from lxcfleet.spec.fields import askable

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


def sections() -> Iterator[tuple[str, type]]:
    """The settings that hold others, as they are written, and what they hold."""
    yield "`network:`", settings.NetworkSettings
    yield "`metrics:`", settings.MetricsSettings
    yield "`rollout:`", settings.RolloutSettings
    yield "`patch:`", settings.PatchSettings
    yield "`profiles:` NAME`:`", settings.Profile
    yield "`rollout:` of a profile", settings.ProfileRollout


def _table(section: type) -> Iterator[str]:
    yield "| key | default | |\n|---|---|---|"
    for key, usual, text in keys(section):
        yield f"| `{key}` | {usual} | {_cell(text)} |"
    yield ""


def keys(section: type) -> Iterator[tuple[str, str, str]]:
    """The keys of a section but those that are sections of their own: name, default and meaning."""
    if section is settings.Profile:
        for key, row in askable(profile=True).items():
            yield key, f"`{row.setting}:`" if row.setting else row.usual or shown(row.default), row.help
        yield "rollout", "", "How its containers take part in rollouts; see below."
        return
    said = attribute_docs(section)
    for field in dataclasses.fields(section):
        if field.name in said:
            yield field.name, default(field), said[field.name]


def default(field: dataclasses.Field[object]) -> str:
    """What holds where the key is left out."""
    value = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    return shown(value)


def shown(value: object) -> str:
    """A value as it stands in the file."""
    match value:
        case None | () | {} | settings.ProfileRollout():
            return ""
        case ("*",):
            return '`["*"]`'
        case bool():
            return f"`{str(value).lower()}`"
        case float():
            return f"`{value:g}`"
        case _:
            return f"`{value}`"


def attribute_docs(settings: type) -> dict[str, str]:
    """The strings that follow the fields of a class, by field."""
    tree = ast.parse(inspect.getsource(settings)).body[0]
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for field, after in zip(tree.body, tree.body[1:], strict=False):
        match field, after:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = " ".join(text.split())
    return found


if __name__ == "__main__":
    sys.stdout.write(page())
