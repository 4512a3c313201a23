"""Secrets as the API has them: listed without their values, and fetched anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from lxcfleet.api.records import SecretRecord
from lxcfleet.api.requests import RefreshSecretsRequest
from lxcfleet.containers.secrets.declarations import Declared
from lxcfleet.containers.secrets.keeper import Secrets
from lxcfleet.errors import FleetError, InvalidInput, NotFound
from lxcfleet.runtime.operations import Operation, Operations
from lxcfleet.spec.results import Result
from lxcfleet.spec.selection import natural_order
from lxcfleet.units import counted

_HINT = "`lxcfleet secret list` shows those that are declared"


class SecretCalls:
    """The use cases behind the calls about secrets."""

    def __init__(self, secrets: Secrets, operations: Operations, changed: Callable[[], object]) -> None:
        """``changed``: called once containers have other values."""
        self._secrets, self._operations, self._changed = secrets, operations, changed

    def records(self) -> list[SecretRecord]:
        """All that are declared."""
        users = self._secrets.users()
        return [self._record(each, [c.name for c in users.get(each.key, ())]) for each in self._secrets.declared()]

    def _record(self, declared: Declared, containers: Sequence[str]) -> SecretRecord:
        value = self._secrets.value(declared.key)
        return {
            "name": declared.key,
            "fleet": declared.fleet,
            "source": str(declared.source),
            "refresh_seconds": declared.source.refresh or None,
            "containers": list(natural_order(containers)),
            "fetched": _moment(value.fetched if value else 0.0),
            "changed": _moment(value.changed if value else 0.0),
            "problem": (value.problem or None) if value else None,
        }

    def refresh(self, ask: RefreshSecretsRequest) -> Operation:
        """Begin to ask sources anew. Raises NotFound, InvalidInput."""
        chosen = self._chosen(ask)
        if ask.dry_run:
            users = self._secrets.users([each.key for each in chosen])
            lines = [
                f"{each.key}: ask {each.source}; of {counted(len(users.get(each.key, ())), 'container')}" for each in chosen
            ]
            return self._operations.dry("refresh", [Result(each.key, "planned", True) for each in chosen], lines)

        async def work(operation: Operation) -> None:
            try:
                found = await self._secrets.renew([each.key for each in chosen])
            except FleetError as error:
                found = {each.key: error for each in chosen}
            for key, outcome in found.items():
                if isinstance(outcome, FleetError):
                    operation.add(Result(key, "failed", False, outcome.body()))
                else:
                    operation.add(Result(key, "changed" if outcome else "unchanged", outcome))
            self._changed()

        return self._operations.run("refresh", len(chosen), work)

    def _chosen(self, ask: RefreshSecretsRequest) -> list[Declared]:
        known = self._secrets.declared()
        if ask.everything:
            return known
        found: dict[str, Declared] = {}
        for name in ask.names:
            exact = [each for each in known if each.key == name]
            alike = exact or [each for each in known if each.name == name]
            if not alike:
                raise NotFound(f"no secret named {name}", hint=_HINT)
            if len(alike) > 1:
                names = ", ".join(each.key for each in alike)
                raise InvalidInput(f"{name} is the name of several secrets", why=names, hint="say which: FLEET/NAME")
            found[alike[0].key] = alike[0]
        return [*found.values()]


def _moment(seconds: float) -> str | None:
    if not seconds:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
