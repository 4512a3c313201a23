"""Options and arguments that several verbs share, and the values that they give."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, TypeVar

import click

from lxcfleet.cli import complete
from lxcfleet.cli.complete import AFTER_DASHES
from lxcfleet.cli.ui.output import FORMATS
from lxcfleet.errors import InvalidInput
from lxcfleet.spec.reading.names import MAX_DRAIN, check_name, check_variable, parse_label
from lxcfleet.spec.reading.terms import Init
from lxcfleet.spec.selection import Selection, is_glob
from lxcfleet.spec.states import State
from lxcfleet.units import parse_duration

INITS = tuple(each.value for each in Init)
STATES = tuple(each.value for each in State)
"""Plain words, as click from 8.2 on would offer the names of an enumeration's members instead of their values."""

_CLOSE = 0.7
"""How similar a typo and a verb, or an option, must be. With a smaller value `help` would suggest `shell`."""

_SENTENCE = 500
"""A number of characters that no first sentence of a help has."""

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


def selected(function: F) -> F:
    """SEL: names and globs, ``-l``, ``--all``."""
    function = click.option("--all", "everything", is_flag=True, help="All containers.")(function)
    function = labelled("Only those that have this label; may be repeated.")(function)
    return click.argument("patterns", nargs=-1, metavar="[NAME|GLOB]...", shell_complete=complete.names)(function)


def labelled(text: str) -> Callable[[F], F]:
    """``-l KEY=VALUE``."""
    return click.option(
        "-l", "--label", "labels", multiple=True, metavar="KEY=VALUE", help=text, shell_complete=complete.labels
    )


def formatted(function: F) -> F:
    """``-f FORMAT``."""
    return click.option(
        "-f",
        "--format",
        "style",
        type=click.Choice(FORMATS),
        default="table",
        callback=_one_of_two,
        help="How to print; default: table.",
    )(function)


def quiet(text: str) -> Callable[[F], F]:
    """``-q``."""
    return click.option("-q", "--quiet", is_flag=True, callback=_one_of_two, help=text)


def _one_of_two(ctx: click.Context, parameter: click.Parameter, value: Any) -> Any:
    """Refuse ``-q`` with ``-f``. click calls this for both options; only the second call sees both values."""
    said = {**ctx.params, str(parameter.name): value}
    if said.get("quiet") and said.get("style", "table") != "table":
        raise InvalidInput(f"-q and -f {said['style']} exclude each other", hint="leave out one of them")
    return value


def refuse(said: Iterable[str], why: str, hint: str) -> None:
    """Raise InvalidInput for the first of the options ``said``, if any: they were given where they would do nothing."""
    for option in said:
        raise InvalidInput(f"{option} would do nothing", why=why, hint=hint)


def dry_run(function: F) -> F:
    """``--dry-run``."""
    return click.option("--dry-run", is_flag=True, help="Only say what would be done.")(function)


def ignore_depends(function: F) -> F:
    """``--ignore-depends``."""
    return click.option(
        "--ignore-depends", is_flag=True,
        help="Give containers another base (`generation`) also if their own packages would then lack what they depend on.",
    )(function)  # fmt: skip


class Time(click.FloatRange):
    """Seconds within bounds, which people may write as 10m, too."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See click.ParamType."""
        if isinstance(value, str):
            try:
                value = parse_duration(value)
            except InvalidInput as error:
                self.fail(f"{error.message}; {error.hint}", param, ctx)
        return super().convert(value, param, ctx)

    def _describe_range(self) -> str:
        return f"{self.min:g} to {self.max:g} s"


def drain(text: str) -> Callable[[F], F]:
    """``--drain TIME``."""
    return click.option("--drain", type=Time(0, MAX_DRAIN), default=None, metavar="TIME", help=text)


def environment_option(function: F) -> F:
    """``-e NAME=VALUE``."""
    text = "An environment variable; may be repeated. NAME alone takes its value from here."
    return click.option("-e", "--env", "variables", multiple=True, metavar="NAME=VALUE", help=text)(function)


def read_by(parse: Callable[[str], T]) -> Callable[..., Any]:
    """A callback for click that reads an option's text with ``parse``; errors name the option."""
    return _reading(lambda value: None if value is None else parse(value))


def read_all_by(parse: Callable[[Iterable[str]], Iterable[T]]) -> Callable[..., Any]:
    """The same for an option that may be repeated."""
    return _reading(lambda value: tuple(parse(value)))


def _reading(parse: Callable[[Any], Any]) -> Callable[..., Any]:
    def read(_ctx: click.Context, parameter: click.Parameter, value: Any) -> Any:
        try:
            return parse(value)
        except InvalidInput as error:
            option = max(parameter.opts, key=len)
            raise InvalidInput(f"{option}: {error.message}", why=error.why, hint=error.hint) from error

    return read


def moment(text: str) -> float:
    """Seconds since the epoch, for ``--since``."""
    from datetime import datetime

    from lxcfleet.spec.reading.moments import parse_since

    return parse_since(text, datetime.now().astimezone())


def selection(patterns: Iterable[str], labels: Iterable[str], everything: bool) -> Selection:
    """The selection from the arguments of ``selected``; raises InvalidInput if it chooses nothing or makes no sense."""
    chosen = optional_selection(patterns, labels, everything)
    if not (chosen.patterns or chosen.labels or chosen.everything):
        raise InvalidInput("no container chosen", hint="give names, globs, -l KEY=VALUE or --all")
    return chosen


def optional_selection(patterns: Iterable[str], labels: Iterable[str], everything: bool) -> Selection:
    """Like ``selection``, but without names and options it means all containers."""
    chosen = tuple(patterns)
    for pattern in chosen:
        if not is_glob(pattern):
            check_name(pattern)
    if everything and chosen:
        raise InvalidInput("--all and names exclude each other")
    return Selection(chosen, tuple(parse_label(label) for label in labels), everything)


def one_name(name: str) -> str:
    """The name of the one container that a verb takes; raises InvalidInput."""
    if is_glob(name):
        raise InvalidInput(
            f"{name!r} is a glob, and one container has to be named", hint=f"`lxcfleet list {name!r}` shows which there are"
        )
    return check_name(name)


def environment(variables: Iterable[str]) -> dict[str, str]:
    """The variables from ``environment_option``."""
    result: dict[str, str] = {}
    for text in variables:
        name, equals, value = text.partition("=")
        check_variable(name, value)
        if equals:
            result[name] = value
        elif name in os.environ:
            result[name] = os.environ[name]
        else:
            raise InvalidInput(f"no environment variable {name!r} here", hint=f"write -e {name}=VALUE")
    return result


class Suggesting(click.Group):
    """A group of verbs that suggests a verb when it does not know the typed one."""

    meant: ClassVar[Mapping[str, str]] = {}
    """Verbs of other tools, and the verb that does the same here."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Like click's, with the whole sentence of each verb: click cuts it at the end of the line."""
        verbs = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        rows = [(name, verb.get_short_help_str(_SENTENCE)) for name, verb in verbs if verb is not None and not verb.hidden]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Like click's, with a suggestion in the error."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            close = nearest(args[0], self.list_commands(ctx))
            close = [self.meant[args[0]]] if args[0] in self.meant else close
            close = close or self._below(ctx, args[0])
            if close:
                error.message += f" Did you mean {' or '.join(map(repr, close))}?"
            raise

    def _below(self, ctx: click.Context, verb: str) -> list[str]:
        """The verbs of groups in this one that have this name, such as `patch rehearse`."""
        groups = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        return [f"{name} {verb}" for name, group in groups if isinstance(group, click.Group) and verb in group.commands]


def nearest(word: str, known: Iterable[str]) -> list[str]:
    """The one of ``known`` that a typo most likely stands for, if one is like it at all."""
    import difflib

    return difflib.get_close_matches(word, list(known), 1, _CLOSE)


class TakesCommand(click.Command):
    """A verb that takes ``-- CMD…`` at its end; ``command_after_dashes`` gives it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Cut the command off first: click must not read its options."""
        if "--" in args:
            cut = args.index("--")
            ctx.meta[AFTER_DASHES] = tuple(args[cut + 1 :])
            args = args[:cut]
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            known = isinstance(error, click.BadParameter) or (isinstance(error, click.NoSuchOption) and error.possibilities)
            if AFTER_DASHES not in ctx.meta and not known:
                error.message = f"{error.message.rstrip('.')}; a command to run goes after --"
            raise

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Show the command in the usage line."""
        return [*super().collect_usage_pieces(ctx), "[-- CMD...]"]


def command_after_dashes(ctx: click.Context) -> tuple[str, ...]:
    """The command after ``--``; empty if there was no ``--``."""
    command: tuple[str, ...] = ctx.meta.get(AFTER_DASHES, ())
    if AFTER_DASHES in ctx.meta and not (command and command[0]):
        raise click.UsageError("no command after --", ctx)
    return command
