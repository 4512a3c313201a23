"""Writes docs/api.md from the declaration of the API. `make docs` runs it."""

from __future__ import annotations

import ast
import dataclasses
import enum
import inspect
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lxcfleet import errors
from lxcfleet.api import calls
from lxcfleet.api.calls import CALLS
from lxcfleet.api.requests import AttachRequest, CreateRequest
from lxcfleet.api.shape import AnyCall, Call, Gives, StreamCall
from lxcfleet.spec.container.fields import askable
from lxcfleet.spec.selection import Selection

HEAD = """\
# API

Written by `make docs` from `lxcfleet/api`; a test sees to it that the two agree.

HTTP/1.1 over the Unix socket `/run/lxcfleet/lxcfleet.sock`, one request on each connection, JSON in and out:

    curl --unix-socket /run/lxcfleet/lxcfleet.sock 'http://localhost/1.0/containers?label=tier=front'

A body needs a Content-Length, and comes as it is: a chunked one is answered with 411, a packed one with 415. Root and
the group `lxcfleet` may call everything, the group `lxcfleet-ro` what changes nothing. The kernel tells the daemon who
the caller is. What changes containers answers 202 with an operation. That lives in the daemon: it goes on when the
client goes away, and can be followed, waited for and cancelled. A daemon that ends forgets its operations; the next one
finishes what had begun with each container.

A key of a query or of a body that a call does not have is refused, as a typo would else choose everything. What scrapes
(`/metrics` and `/1.0/targets`) may add keys to the query. A request may have {max_body} bytes. In a reply keys may be
added in later versions, and none goes away within `/1.0`. A reply that comes in chunks came to its end only if the last,
empty chunk is there: without it the daemon ended first.

"""


def page() -> str:
    """The whole page."""
    return HEAD.format(max_body=calls.MAX_BODY) + "\n".join([*_table(), *_calls(), *_attach(), *_types(), *_errors()])


def _table() -> Iterator[str]:
    yield "## Calls\n"
    yield "| call | | who |\n|---|---|---|"
    for call in CALLS.values():
        yield f"| [`{call.method} {call.path}`](#{call.name.replace('_', '-')}) | {call.summary} | {_who(call)} |"
    yield ""


def _who(call: AnyCall) -> str:
    return "readers too" if call.harmless else "`lxcfleet`"


def _calls() -> Iterator[str]:
    for call in CALLS.values():
        yield f"### {call.name.replace('_', '-')}\n"
        yield f"    {call.method} {call.path}\n"
        yield _sentence(call.summary) + f" For {_who(call).replace('readers too', 'readers, too')}.\n"
        if call.takes.keys:
            yield "| key of the query | what may stand there | |\n|---|---|---|"
            for key in call.takes.keys:
                yield f"| `{key.name}` | {_cell(key.form)} | {_default(key.default)}{_cell(key.meaning)} |"
            yield ""
        if call.takes.body is not None:
            yield f"Body: {_link(call.takes.body)}.\n"
        yield _reply(call) + "\n"


def _default(value: object) -> str:
    return "" if value in ((), False) else f"Default: `{value}`. "


def _reply(call: AnyCall) -> str:
    if isinstance(call, Call):
        status = f"Reply, {call.status}: "
        hidden = "".join(f" Readers do not see the values of `{key}`." for key in call.hides)
        gone = " The daemon stops waiting when the client goes away." if call.waits else ""
        return f"{status}{_given(call.gives)}.{hidden}{gone}"
    if isinstance(call, StreamCall):
        return f"Reply, 200: JSON lines, each {' or '.join(map(_given, call.gives))}."
    return f"Reply, 200: text (`{call.content}`)."


def _given(gives: Gives) -> str:
    if gives.many:
        return f"a list of {_link(gives.record)}"
    return _link(gives.record) + (" or null" if gives.maybe else "")


def _attach() -> Iterator[str]:
    yield "## Running commands\n"
    yield "`/run/lxcfleet/attach.sock`, for `lxcfleet` alone. The first message is:\n"
    yield from _type(AttachRequest)


def _types() -> Iterator[str]:
    yield "## Types\n"
    for kind in _all_types():
        yield f"### {kind.__name__}\n"
        yield from _type(kind)


def _all_types() -> list[type]:
    """All that stands in a request or reply, and in those, in the order in which it is met."""
    found: dict[type, None] = {}
    waiting: list[object] = []
    for call in CALLS.values():
        waiting.append(call.takes.body)
        gives = getattr(call, "gives", ())
        waiting += [each.record for each in (gives if isinstance(gives, tuple) else (gives,))]
    while waiting:
        kind = waiting.pop(0)
        if _described(kind) and kind not in found:
            found[kind] = None
            waiting += typing.get_type_hints(kind, include_extras=True).values()
        else:
            waiting = [*typing.get_args(kind), *waiting]
    return list(found)


def _described(kind: object) -> bool:
    """Whether a type has a section of its own."""
    module = getattr(kind, "__module__", "")
    return isinstance(kind, type) and (module.startswith("lxcfleet.api") or kind in (Selection, errors.ErrorBody))


def _type(kind: type) -> Iterator[str]:
    yield _prose(inspect.getdoc(kind) or "") + "\n"
    said = _attribute_docs(kind)
    hints = typing.get_type_hints(kind, include_extras=True)
    yield "| key | type | |\n|---|---|---|"
    for name, hint in hints.items():
        if (kind, name) == (CreateRequest, "said"):  # it travels as keys beside the others
            yield from (f"| `{key}` | {_cell(row.type.form)} | {_cell(row.help)} |" for key, row in askable().items())
            continue
        yield f"| `{name}` | {_cell(_hint(kind, name, hint))} | {_cell(_prose(said.get(name, '')))} |"
    yield ""


def _hint(kind: type, name: str, hint: object) -> str:
    if kind is Selection and name == "labels":
        return "a mapping of text to text"
    if dataclasses.is_dataclass(kind):
        field = next(each for each in dataclasses.fields(kind) if each.name == name)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            return f"{_told(hint)}; must be there"
    return _told(hint)


_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false", types.NoneType: "null"}


def _told(hint: object) -> str:
    """A type in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in _WORDS:
        return _WORDS[hint]
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_told, arguments))
    if origin is typing.NotRequired:
        return f"{_told(arguments[0])}; may be missing"
    if origin is tuple and arguments[-1] is not ...:
        return f"a list of {len(arguments)}: {', '.join(map(_told, arguments))}"
    if origin in (list, tuple):
        return f"a list of {_told(arguments[0]).removeprefix('a ')}"
    if origin in (dict, Mapping) or hint is dict:
        values = arguments[1:] if arguments else ()
        return "a mapping" if values in ((), (typing.Any,)) else f"a mapping of text to {_told(values[0]).removeprefix('a ')}"
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return ", ".join(str(each.value) for each in hint)
    return _link(hint) if _described(hint) else "a mapping"


def _link(kind: object) -> str:
    name = getattr(kind, "__name__", str(kind))
    return f"[{name}](#{name.lower()})"


def _attribute_docs(kind: type) -> dict[str, str]:
    """The strings that follow the fields of a class, by field; those of its bases, too."""
    tree = ast.parse(inspect.getsource(kind)).body[0]
    assert isinstance(tree, ast.ClassDef)
    found: dict[str, str] = {}
    for base in tree.bases:  # a TypedDict knows its bases only from Python 3.12 on
        if isinstance(base, ast.Name) and _described(inherited := vars(sys.modules[kind.__module__])[base.id]):
            found |= _attribute_docs(inherited)
    for field, after in zip(tree.body, tree.body[1:], strict=False):
        match field, after:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = " ".join(text.split())
    return found


def _errors() -> Iterator[str]:
    yield "## Errors\n"
    yield f'`{{"error": …}}` with an {_link(errors.ErrorBody)}. `code` is what scripts may rely on.\n'
    yield "| code | HTTP | exit status of `lxcfleet` | |\n|---|---|---|---|"
    for code, kind in errors.BY_CODE.items():
        yield f"| `{code}` | {kind.http_status} | {kind.exit_status} | {_cell(_prose(inspect.getdoc(kind) or ''))} |"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def _prose(text: str) -> str:
    return " ".join(text.replace("``", "`").split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(page() + "\n")
