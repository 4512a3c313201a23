"""How a call is declared: where the parts of its request stand (path, query, body), and the type of its reply.

The client writes a request, the server reads it, and docs/api.md describes it, all from the same declaration. This module
must import quickly, as every command line starts with it: so its dataclasses have no methods but ``__init__``, and the types
of requests and replies are looked up later.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from lxcfleet.errors import InvalidInput

T = TypeVar("T")
Q = TypeVar("Q")
R = TypeVar("R")

NOT_VALID = "the request is not valid"


class Later:
    """A module of this package that is imported once something of it is needed, and not before."""

    def __init__(self, module: str) -> None:
        self._module = module

    def __getattr__(self, name: str) -> LaterValue:
        return LaterValue(self._module, name)


class LaterValue:
    """A name in such a module. Has the attributes of what it stands for."""

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = module, name

    def there(self) -> Any:
        """The value that it stands for."""
        return getattr(importlib.import_module(f"lxcfleet.api.{self._module}"), self._name)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.there(), name)


def _there(kind: Any) -> Any:
    return kind.there() if isinstance(kind, LaterValue) else kind


class Sent(NamedTuple):
    """A request on its way."""

    path: Mapping[str, str] = {}
    """The parts of the path by name."""
    query: Mapping[str, Sequence[str]] = {}
    body: Any = None


# -- the keys of a query ------------------------------------------------------------------------------------


@dataclass(eq=False, repr=False)
class Key(Generic[T]):
    """One key of a query, and how its value is written and read."""

    name: str
    form: str
    """The texts that the key may have, in words."""
    meaning: str
    write: Callable[[T], Iterable[str]]
    """Gives the key's texts for a value; no text leaves the key out."""
    read: Callable[[Sequence[str]], T]
    """Gives the value for the key's texts, of which there is at least one; raises InvalidInput."""
    default: T
    """The value where the key is not in the query."""


class Query(Generic[T]):
    """A value that one or more keys of a query make up."""

    def __init__(self, *keys: Key[Any], join: Callable[..., T], split: Callable[[T], tuple[Any, ...]]) -> None:
        self.keys = keys
        self._join, self._split = join, split

    def write(self, value: T) -> dict[str, list[str]]:
        """The keys with their values."""
        pairs = zip(self.keys, self._split(value), strict=True)
        return {key.name: texts for key, one in pairs if (texts := [*key.write(one)])}

    def read(self, query: Mapping[str, Sequence[str]], complaints: list[str]) -> T | None:
        """The value, or None if a key makes no sense; complaints about keys go to ``complaints``."""
        values = []
        for key in self.keys:
            try:
                values.append(key.read(query[key.name]) if query.get(key.name) else key.default)
            except InvalidInput as error:
                complaints.append("; ".join(part for part in (f"query: {key.name}: {error.message}", error.hint) if part))
        return self._join(*values) if len(values) == len(self.keys) else None


def single(key: Key[T]) -> Query[T]:
    """A query of one key."""
    def itself(value: T) -> T:
        return value

    return Query(key, join=itself, split=lambda value: (value,))


# -- where a request stands ---------------------------------------------------------------------------------


class Takes(Protocol[Q]):
    """The shape of a call's request. ``Q``: the type of the request."""

    @property
    def keys(self) -> Sequence[Key[Any]]:
        """The keys of its query."""

    @property
    def body(self) -> type | None:
        """The type of its body; None: the call has no body."""

    @property
    def strict(self) -> bool:
        """Whether the server refuses unknown keys in the query."""

    def write(self, request: Q) -> Sent:
        """The request on its way."""

    def read(self, sent: Sent) -> Q:
        """The request that arrived; raises InvalidInput with everything that is wrong with it."""


@dataclass(eq=False, repr=False)
class Nothing:
    """A call without a request: no part of its path, query or body varies."""

    strict: bool = True
    keys: Sequence[Key[Any]] = ()
    body: type | None = None

    def write(self, _: None) -> Sent:
        """As it is."""
        return Sent()

    def read(self, sent: Sent) -> None:
        """As it is."""
        _finish(unknown(sent.query, ()) if self.strict else [])


@dataclass(eq=False, repr=False)
class Named:
    """A call about one object, whose name or id stands in the path."""

    part: str
    keys: Sequence[Key[Any]] = ()
    body: type | None = None
    strict: bool = True

    def write(self, request: str) -> Sent:
        """The name in the path."""
        return Sent(path={self.part: request})

    def read(self, sent: Sent) -> str:
        """The name in the path."""
        _finish(unknown(sent.query, ()))
        return sent.path[self.part]


class InQuery(Generic[Q]):
    """A call whose request is in its query; a name in its path may belong to the request, too.

    ``make`` gets the name in the path, if there is one, then the value that each of ``parts`` read. ``split`` takes a request
    apart into the same values.
    """

    strict = True
    body: type | None = None

    def __init__(
        self, *parts: Query[Any], make: Callable[..., Q], split: Callable[[Q], tuple[Any, ...]], path: str | None = None
    ) -> None:
        self.keys: Sequence[Key[Any]] = [key for part in parts for key in part.keys]
        self._parts, self._make, self._split, self._path = parts, make, split, path

    def write(self, request: Q) -> Sent:
        """The request in the query."""
        values = list(self._split(request))
        path = {self._path: str(values.pop(0))} if self._path else {}
        query: dict[str, list[str]] = {}
        for part, value in zip(self._parts, values, strict=True):
            query |= part.write(value)
        return Sent(path, query)

    def read(self, sent: Sent) -> Q:
        """The request that the query has."""
        complaints = unknown(sent.query, self.keys)
        values = [part.read(sent.query, complaints) for part in self._parts]
        _finish(complaints)
        return self._make(*([sent.path[self._path]] if self._path else []), *values)


class Body(Protocol):
    """A request that is sent as a JSON object."""

    def to_json(self) -> dict[str, Any]:
        """The object."""

    @classmethod
    def from_json(cls, data: object) -> Any:
        """The request in the object; raises InvalidInput."""


B = TypeVar("B", bound=Body)


class InBody(Generic[B]):
    """A call whose request is a JSON object in its body."""

    strict = True
    keys: Sequence[Key[Any]] = ()

    def __init__(self, kind: type[B]) -> None:
        self._kind = kind

    @property
    def body(self) -> type | None:
        """The type of the body."""
        kind: type = _there(self._kind)
        return kind

    def write(self, request: B) -> Sent:
        """The request in the body."""
        return Sent(body=request.to_json())

    def read(self, sent: Sent) -> B:
        """The request that the body has."""
        _finish(unknown(sent.query, ()))
        request: B = self._kind.from_json(sent.body)
        return request


def unknown(query: Iterable[str], keys: Sequence[Key[Any]]) -> list[str]:
    """Complaints about unknown keys of a query: were a mistyped key ignored, the call would be about everything."""
    known = {key.name for key in keys}
    return [f"query: {name[:40]}: unknown key" for name in query if name not in known]


def _finish(complaints: Sequence[str]) -> None:
    if complaints:
        raise InvalidInput(NOT_VALID, why="\n".join(complaints))


# -- replies ------------------------------------------------------------------------------------------------


@dataclass(eq=False, repr=False)
class Gives(Generic[R]):
    """A reply that is a JSON value. ``R``: its type."""

    named: type
    many: bool = False
    """Whether the reply is a list of such records."""
    maybe: bool = False
    """Whether the reply may be null instead."""

    @property
    def record(self) -> Any:
        """The type of one record."""
        return _there(self.named)

    @property
    def type(self) -> Any:
        """``R`` itself."""
        record: Any = self.record
        return list[record] if self.many else record | None if self.maybe else record


def one(record: type[T]) -> Gives[T]:
    """A record."""
    return Gives(record)


def many(record: type[T]) -> Gives[list[T]]:
    """A list of records."""
    return Gives(record, many=True)


def maybe(record: type[T]) -> Gives[T | None]:
    """A record, or null."""
    return Gives(record, maybe=True)


@dataclass(eq=False, repr=False)
class AnyCall(Generic[Q]):
    """One call, with any kind of reply. ``path`` may hold ``{name}`` or ``{id}``."""

    name: str
    method: str
    path: str
    summary: str
    takes: Takes[Q]
    reads: bool = field(default=False, kw_only=True)
    """Whether the call changes nothing though its method is not GET."""

    @property
    def harmless(self) -> bool:
        """Whether callers that may only read may use this call."""
        return self.reads or self.method == "GET"


@dataclass(eq=False, repr=False)
class Call(AnyCall[Q], Generic[Q, R]):
    """A call that is answered with one JSON value."""

    gives: Gives[R]
    status: int = field(default=200, kw_only=True)
    """202: the reply is an operation, which goes on in the daemon."""
    waits: bool = field(default=False, kw_only=True)
    """Whether the reply may take as long as the request says. The server gives up the work once the client is gone."""
    hides: tuple[str, ...] = field(default=(), kw_only=True)
    """Mappings in the reply whose values are hidden from callers that may only read. ``spec.environment`` names a mapping
    inside another."""


@dataclass(eq=False, repr=False)
class StreamCall(AnyCall[Q], Generic[Q, R]):
    """A call that is answered with JSON values, one a line, as they arise. The last line is always complete."""

    gives: tuple[Gives[Any], ...]
    """The kinds of its lines. ``R``: the type of all kinds together."""


@dataclass(eq=False, repr=False)
class TextCall(AnyCall[Q]):
    """A call that is answered with text."""

    content: str = "text/plain"
