"""The launcher's operations, declared once: each with the types of its argument and its answers.

The launcher's client and its children both read this, and mypy checks both sides and all callers against it. Arguments and
answers are sent as JSON. An operation is its own name, so it is sent as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from lxcfleet.launcher.items.archives import ExportItem, ImportItem, Packed
from lxcfleet.launcher.items.base import CheckedGeneration, Fit, FitItem, FreezeItem, MaskItem
from lxcfleet.launcher.items.containers import CheckAnswer, CheckItem, Done, InitPid, LimitItem, PrepareItem, TrialItem
from lxcfleet.launcher.items.cves import CveItem, CveSets
from lxcfleet.launcher.items.data import AppItem, Delivered, DeliverItem, Fetched, FetchItem, MountsItem, TidyItem, VolumeItem
from lxcfleet.launcher.items.looks import (
    Differing,
    DiffItem,
    ExposedItem,
    ExposureItem,
    StaleItem,
    UnshadowItem,
    UsageItem,
    Used,
)
from lxcfleet.launcher.items.network import (
    BridgeAddress,
    BridgeItem,
    ClosedForward,
    DhcpItem,
    DisconnectItem,
    Foreign,
    HostRoutes,
    JoinItem,
    LeasedItem,
    LookedUp,
    LookupItem,
    NetworkItem,
    PublishItem,
    RejoinItem,
    RoutesItem,
    RulesItem,
    UplinkItem,
)
from lxcfleet.launcher.items.snapshots import DoubleItem, RestoreItem, SealItem, SnapshotItem, SnapshotPlace

A = TypeVar("A")
R = TypeVar("R")

CHILD_SECONDS = 120
"""The longest time, in seconds, that a child may take: liblxc can wait for ever on a monitor that hangs."""


class LauncherOperation(str, Generic[A, R]):
    """An operation. ``A``: the type of its argument; ``R``: the type of one answer."""


class Ask(LauncherOperation[A, R], Generic[A, R]):
    """An operation with one answer."""


class RunProgram(Ask[A, CheckAnswer], Generic[A]):
    """An operation that runs a program, which may be hostile. Its argument has a ``timeout``, in seconds."""


class Each(LauncherOperation[A, R], Generic[A, R]):
    """An operation on many containers, with an answer for each as soon as it is done."""


class Large(LauncherOperation[A, R], Generic[A, R]):
    """An operation with one answer that may be too large for a datagram, and so comes in a memory file."""


class Talk(LauncherOperation[A, R], Generic[A, R]):
    """An operation whose argument comes piece by piece, while answers go back."""


PREPARE: Talk[list[PrepareItem], Done] = Talk("prepare")
REMOVE: Each[list[str], Done] = Each("remove")
"""Takes names of directories."""
INSPECT: Each[list[str], InitPid] = Each("inspect")
FREEZE: Ask[list[str], Done] = Ask("freeze")
UNFREEZE: Ask[list[str], Done] = Ask("unfreeze")
LIMIT: Each[list[LimitItem], Done] = Each("limit")
"""Answers in the order of the items."""
CHECK_KEYS: Ask[list[tuple[str, str]], Done] = Ask("check_keys")
"""Takes keys of LXC's configuration with their values: whether liblxc takes all of them."""
CHECK: RunProgram[CheckItem] = RunProgram("check")
TRY: RunProgram[TrialItem] = RunProgram("try")
"""Runs a test of a container; nothing that it started is left afterwards."""
FEATURES: Ask[None, Mapping[str, Any]] = Ask("features")
"""Answers the host's features, as host.facts.features.Features.to_json writes them."""
ROOT_IDS: Ask[list[int], Done] = Ask("root_ids")
"""Takes the first and the last of the ids that root gets in /etc/subuid and /etc/subgid."""
ATTACH: LauncherOperation[Any, None] = LauncherOperation("attach")
"""Takes an AttachRequest of the API; the answers go to the client."""
FOREGROUND: LauncherOperation[Any, None] = LauncherOperation("foreground")
"""Takes a KeeperItem; the answers go to the client, as ForegroundRequest of the API has them."""
EXPORT: Talk[ExportItem, Packed] = Talk("export")
"""Takes the descriptor of the archive, too; the last answer is done, or an error."""
IMPORT: Talk[ImportItem, Packed] = Talk("import")
"""The argument comes once the head of the archive, whose descriptor came along, was answered, in a memory file."""

STALE: Large[StaleItem, list[dict[str, Any]]] = Large("stale")
"""Answers patch.stale.judge.StaleScan.to_json for each container."""
SHADOWS: Large[list[tuple[str, Any]], list[dict[str, Any]]] = Large("shadows")
"""Takes names and stacks; answers patch.shadow.files.ShadowFindings.to_json for each container."""
CVES: Large[CveItem, CveSets] = Large("cves")
FREEZE_BASE: Large[FreezeItem, int] = Large("freeze_base")
"""Answers the number of the new generation, or minus the number of the newest one if that is the same."""
CHECK_GENERATION: Large[int, CheckedGeneration] = Large("check_generation")
FIT: Large[FitItem, list[Fit]] = Large("fit")
REMOVE_GENERATION: Ask[int, Done] = Ask("remove_generation")
TIDY_GENERATIONS: Ask[None, Done] = Ask("tidy_generations")
"""Removes what is half made or half removed; the notes name it."""
MAKE_VOLUME: Ask[VolumeItem, Done] = Ask("make_volume")
CHANGE_VOLUME: Ask[VolumeItem, Done] = Ask("change_volume")
REMOVE_VOLUME: Ask[str, Done] = Ask("remove_volume")
"""Takes the name of a directory among the volumes."""
SEAL_APP: Ask[AppItem, Done] = Ask("seal_app")
VERIFY_APP: Ask[AppItem, Done] = Ask("verify_app")
REMOVE_APP: Ask[str, Done] = Ask("remove_app")
"""Takes APP/NAME, as data.apps.store.leftovers gives it."""
CHECK_MOUNTS: Ask[MountsItem, Done] = Ask("check_mounts")
"""The notes tell which packages' files would be hidden."""
SNAPSHOT_PLACE: Ask[None, SnapshotPlace] = Ask("snapshot_place")
TAKE_SNAPSHOT: Ask[SnapshotItem, Done] = Ask("take_snapshot")
SEAL_SNAPSHOT: Ask[SealItem, Done] = Ask("seal_snapshot")
REMOVE_SNAPSHOT: Ask[SnapshotItem, Done] = Ask("remove_snapshot")
"""Takes the name of a directory among the container's snapshots."""
DOUBLE_DELTA: Ask[DoubleItem, Done] = Ask("double_delta")
RESTORE_SNAPSHOT: Ask[RestoreItem, Done] = Ask("restore_snapshot")
FINISH_RESTORE: Ask[str, Done] = Ask("finish_restore")
"""Takes the name of a container; the note names the snapshot that it got."""
FETCH_SECRET: Ask[FetchItem, Fetched] = Ask("fetch_secret")
DELIVER_SECRETS: Large[list[DeliverItem], list[Delivered]] = Large("deliver_secrets")
TIDY_SECRETS: Ask[TidyItem, Done] = Ask("tidy_secrets")
UNSHADOW: Ask[UnshadowItem, Done] = Ask("unshadow")
EXPOSURE: Large[list[ExposureItem], list[ExposedItem]] = Large("exposure")
USED: Large[UsageItem, list[Used]] = Large("used")
DIFF: Large[DiffItem, Differing] = Large("diff")
MASK: Ask[MaskItem, Done] = Ask("mask")
UNMASK: Ask[int, Done] = Ask("unmask")
"""Takes the number of the generation whose mask is unmounted and removed."""
RELEASE: Ask[None, Done] = Ask("release")

ROUTES: Ask[RoutesItem, HostRoutes] = Ask("routes")
BRIDGE: Ask[BridgeItem, BridgeAddress] = Ask("bridge")
NETWORK: Ask[NetworkItem, Done] = Ask("network")
JOIN: Ask[JoinItem, Done] = Ask("join")
DHCP: Ask[list[DhcpItem], Done] = Ask("dhcp")
UPLINK: Ask[UplinkItem, Done] = Ask("uplink")
LEAVE_UPLINK: Ask[UplinkItem, Done] = Ask("leave_uplink")
REJOIN: Ask[list[RejoinItem], Done] = Ask("rejoin")
LEASED: Large[LeasedItem, list[tuple[str, int]]] = Large("leased")
"""Answers ports and the addresses, as numbers, that were given behind these ports."""
PUBLISHED: Large[str, Foreign] = Large("published")
"""Takes the fleet's own table; answers what other fleets publish."""
FORWARD: Large[str, list[ClosedForward]] = Large("forward")
"""Takes a bridge; answers the firewalls' chains that drop what the host passes on from it or to it."""
PUBLISH: Ask[PublishItem, Done] = Ask("publish")
RULES: Ask[RulesItem, Done] = Ask("rules")
LOOKUP: Ask[LookupItem, LookedUp] = Ask("lookup")
DISCONNECT: Ask[DisconnectItem, Done] = Ask("disconnect")

OF_ATTACHER: tuple[LauncherOperation[Any, Any], ...] = (ATTACH, CHECK)
"""Those that the attacher's children do. The launcher's children do all others."""
ALL: tuple[LauncherOperation[Any, Any], ...] = tuple(
    each for each in [*globals().values()] if isinstance(each, LauncherOperation)
)
