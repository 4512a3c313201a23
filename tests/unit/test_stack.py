"""Layers as a list: with a fourth layer between mask and delta, every search for the provider of a path works."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lxcfleet.base import layers, mount_plan
from lxcfleet.base.mount_plan import Image, Part, plan
from lxcfleet.base.present import Found, Present, Shelf, part_layers
from lxcfleet.base.stack import Layer, Stack, stack_of
from lxcfleet.errors import HostError
from lxcfleet.host.process.maps import Identity
from lxcfleet.patch.shadow.files import ShadowFindings, ShadowKind, find
from lxcfleet.patch.stale.judge import Why, judge_mapped
from lxcfleet.paths import Paths
from lxcfleet.spec.container.apps import AppUse

from .layers_in import directories, layer_in, put, stack_in

PATHS = Paths(lxc=Path("/c"), run=Path("/run/x"), etc=Path("/etc/x"))
APP = Layer("app", "/apps/web", "/run/x/app", idmapped=True, hosts=False, neutral=False, opaque="trusted.overlay.opaque")


def with_app(stack: Stack) -> Stack:
    """The usual layers, with an app layer between delta and mask."""
    return Stack((stack.top, APP, *stack.lower))


@pytest.fixture
def four(tmp_path: Path) -> dict[str, Path]:
    if os.geteuid():
        pytest.skip("only root may make whiteouts and opaque directories")
    return directories(tmp_path, "app")


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    shelf = Shelf()
    yield shelf
    shelf.close()


def provider(shelf: Shelf, four: dict[str, Path], path: str) -> str | None:
    """The layer that has ``path``; None: nothing is there."""
    with shelf.present(stack_in(four)) as present:
        found = present.find(path)
        return None if found.status is None else found.layer.name


def whiteout(layer: Path, path: str) -> None:
    target = layer / path.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    os.mknod(target, 0o020000, 0)


def make_opaque(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    os.setxattr(directory, "trusted.overlay.opaque", b"y")


# -- the value ---------------------------------------------------------------------------------------------------


def test_a_stack_goes_to_the_launcher_and_comes_back() -> None:
    stack = with_app(stack_of(PATHS, "web"))
    assert Stack.from_json(json.loads(json.dumps(stack.to_json()))) == stack
    assert [layer.name for layer in stack] == ["delta", "app", "mask", "base"]


def test_the_usual_stack() -> None:
    stack = stack_of(PATHS, "web")
    assert [layer.name for layer in stack] == ["delta", "mask", "base"]
    assert [layer.source for layer in stack] == ["/c/web/delta", "/run/x/mask", "/"]
    assert [layer.read_only for layer in stack] == [False, True, True]
    assert [layer.hosts for layer in stack] == [False, False, True]


@pytest.mark.parametrize("order", [(0,), (1, 2), (0, 2, 1), (0, 1), (0, 0, 2), (0, 1, 1, 2)])
def test_an_order_that_is_no_stack_is_refused(order: tuple[int, ...]) -> None:
    usual = stack_of(PATHS, "web").layers
    with pytest.raises(ValueError, match=r"layer"):
        Stack(tuple(usual[number] for number in order))


# -- which layer provides a path ---------------------------------------------------------------------------------


def test_the_fourth_layer_provides(four: dict[str, Path], shelf: Shelf) -> None:
    for number, name in enumerate(("base", "mask", "app", "delta")):
        for file in "abcd"[number:]:
            put(four[name], f"/usr/lib/{file}")
    assert [provider(shelf, four, f"/usr/lib/{file}") for file in "abcd"] == ["base", "mask", "app", "delta"]


def test_the_fourth_layer_hides(four: dict[str, Path], shelf: Shelf) -> None:
    for path in ("/usr/lib/gone", "/usr/share/doc/hidden"):
        put(four["base"], path)
    whiteout(four["app"], "/usr/lib/gone")
    make_opaque(four["app"] / "usr/share/doc")
    put(four["app"], "/usr/share/doc/own")
    assert provider(shelf, four, "/usr/lib/gone") is None
    assert provider(shelf, four, "/usr/share/doc/hidden") is None
    assert provider(shelf, four, "/usr/share/doc/own") == "app"
    # A file that the container itself put there shows all the same.
    put(four["delta"], "/usr/lib/gone")
    assert provider(shelf, four, "/usr/lib/gone") == "delta"


def test_the_mask_hides_nothing_of_the_fourth_layer(four: dict[str, Path], shelf: Shelf) -> None:
    put(four["base"], "/opt/secret"), put(four["app"], "/opt/web/run")
    make_opaque(four["mask"] / "opt")
    assert provider(shelf, four, "/opt/web/run") == "app"
    assert provider(shelf, four, "/opt/secret") is None


def test_a_directory_of_several_layers_is_the_lowest_ones(four: dict[str, Path], shelf: Shelf) -> None:
    for name in ("mask", "app"):
        (four[name] / "opt/web").mkdir(parents=True)
    put(four["base"], "/opt/web")  # this file hides the directory below it
    (four["base"] / "usr").mkdir()
    (four["app"] / "usr").mkdir()
    assert provider(shelf, four, "/opt/web") == "mask"
    assert provider(shelf, four, "/usr") == "base"


def test_links_lead_through_the_fourth_layer(four: dict[str, Path], shelf: Shelf) -> None:
    (four["base"] / "usr/bin").mkdir(parents=True)
    (four["app"] / "usr/bin").mkdir(parents=True)
    (four["app"] / "usr/bin/web").symlink_to("/opt/web/run")
    put(four["app"], "/opt/web/run")
    with shelf.present(stack_in(four)) as present:
        assert present.resolve("/usr/bin/web") == "/opt/web/run"


# -- stale -------------------------------------------------------------------------------------------------------


def judged(present: Present, mapped: Path, path: str) -> Why | None:
    return judge_mapped(Identity.of(mapped.stat()), present.find(path), deleted=False)


def test_a_file_of_the_fourth_layer_is_compared_with_that_layer(four: dict[str, Path], shelf: Shelf) -> None:
    put(four["base"], "/usr/lib/libssl.so.3", "host's")
    mapped = put(four["app"], "/usr/lib/libssl.so.3", "the app's")
    kept = mapped.with_name("kept")
    os.link(mapped, kept)
    with shelf.present(stack_in(four)) as present:
        # A patch of the host reaches no file that the app layer provides.
        put(four["base"], "/usr/lib/libssl.so.3", "host's, patched", 2000)
        assert judged(present, kept, "/usr/lib/libssl.so.3") is None
        new = put(four["app"], "/usr/lib/new", "the app's, newer", 2000)
        new.rename(mapped)
        assert judged(present, kept, "/usr/lib/libssl.so.3") is Why.REPLACED


def test_a_file_that_the_fourth_layer_took_away_is_stale(four: dict[str, Path], shelf: Shelf) -> None:
    mapped = put(four["base"], "/usr/lib/libssl.so.3")
    whiteout(four["app"], "/usr/lib/libssl.so.3")
    with shelf.present(stack_in(four)) as present:
        assert judged(present, mapped, "/usr/lib/libssl.so.3") is Why.REMOVED
        assert present.find("/usr/lib/libssl.so.3").layer.name == "app"


# -- shadows -----------------------------------------------------------------------------------------------------


def look(four: dict[str, Path], *names: str) -> list[ShadowFindings]:
    """The shadows of ``names``, all of which have these directories."""
    return list(find((name, stack_in(four)) for name in names))


def test_shadows_in_the_fourth_layer_are_found(four: dict[str, Path]) -> None:
    for name in ("ssl", "crypto", "c"):
        put(four["base"], f"/usr/lib/{name}", "host's")
    put(four["app"], "/usr/lib/ssl", "the app's")
    whiteout(four["app"], "/usr/lib/crypto")
    put(four["app"], "/usr/lib/only-the-apps")
    put(four["delta"], "/usr/lib/c", "own")
    one, two = look(four, "web1", "web2")
    assert one.shadows == two.shadows
    assert [(each.path, each.kind, each.layer, each.own) for each in one.shadows] == [
        ("/usr/lib/c", ShadowKind.FILE, "delta", True),
        ("/usr/lib/crypto", ShadowKind.REMOVED, "app", False),
        ("/usr/lib/ssl", ShadowKind.FILE, "app", False),
    ]
    assert [ShadowFindings.from_json(json.loads(json.dumps(each.to_json()))) for each in (one, two)] == [one, two]


def test_a_file_over_the_fourth_layers_is_no_shadow_of_the_delta(four: dict[str, Path]) -> None:
    put(four["app"], "/opt/web/run"), put(four["delta"], "/opt/web/run")
    put(four["base"], "/usr/lib/ssl"), put(four["app"], "/usr/lib/ssl"), put(four["delta"], "/usr/lib/ssl")
    (found,) = look(four, "web")
    assert [(each.path, each.layer) for each in found.shadows] == [("/usr/lib/ssl", "app")]


def test_packages_that_are_installed_in_the_fourth_layer_are_the_containers(four: dict[str, Path]) -> None:
    status = "Package: {}\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n"
    put(four["base"], "/var/lib/dpkg/status", status.format("host"))
    assert look(four, "web")[0].packages is None
    put(four["app"], "/var/lib/dpkg/status", status.format("baked"))
    assert look(four, "web")[0].packages == {"baked:amd64": "1"}
    put(four["delta"], "/var/lib/dpkg/status", status.format("own"))
    assert look(four, "web")[0].packages == {"own:amd64": "1"}


# -- the mount plan ----------------------------------------------------------------------------------------------


def test_the_plan_of_the_usual_layers() -> None:
    stack = stack_of(PATHS, "web")
    made = plan(PATHS, stack, "web", 100000, [Part("/usr", "1.2.3", stack.lower, ("nosuid",))])
    options = f"{mount_plan.OPTIONS}"
    assert made.lines() == [
        "/run/x/base: /, read-only, ids 0-65535 as 100000-165535",
        "/run/x/base/usr: /usr, read-only, ids 0-65535 as 100000-165535",
        "/run/x/mask: /run/x/mask, read-only, ids 0-65535 as 100000-165535",
        "/run/x/user: its user namespace",
        "/run/x/root/usr: overlay, nodev,nosuid,lowerdir=/run/x/mask/usr:/run/x/base/usr,upperdir=/c/web/delta/usr,"
        f"workdir=/c/web/work-usr,{options}",
        "/run/x/root: overlay, nodev,lowerdir=/run/x/mask:/run/x/base,upperdir=/c/web/delta,workdir=/c/web/work,"
        f"{options}",
    ]


def test_a_privileged_container_has_no_shift_and_no_user_namespace() -> None:
    made = plan(PATHS, stack_of(PATHS, "web"), "web", None, [])
    assert made.first_id is None
    assert [clone.shifted for clone in made.clones] == [False, False]
    assert not [line for line in made.lines() if "ids" in line or "user" in line]


def test_the_plan_with_a_fourth_layer() -> None:
    stack = with_app(stack_of(PATHS, "web"))
    usr, opt = Part("/usr", "1", stack.lower), Part("/opt", "2", stack.lower[1:])
    made = plan(PATHS, stack, "web", 100000, [usr, opt])
    assert [(clone.source, clone.target, clone.shifted, clone.identity) for clone in made.clones] == [
        ("/", "/run/x/base", True, None),
        ("/usr", "/run/x/base/usr", True, "1"),
        ("/opt", "/run/x/base/opt", True, "2"),
        ("/run/x/mask", "/run/x/mask", True, None),
        ("/apps/web", "/run/x/app", True, None),
    ]
    assert [(overlay.point, overlay.lower) for overlay in made.overlays] == [
        ("", ("/run/x/app", "/run/x/mask", "/run/x/base")),
        ("/usr", ("/run/x/app/usr", "/run/x/mask/usr", "/run/x/base/usr")),
        ("/opt", ("/run/x/mask/opt", "/run/x/base/opt")),
    ]


def test_the_plan_with_a_release_of_an_app() -> None:
    use = AppUse("shop", "1.4", "/")
    stack = stack_of(PATHS, "web", use=use)
    tree = PATHS.release("shop", "1.4").tree
    assert [layer.name for layer in stack] == ["delta", "app shop@1.4", "mask", "base"]
    assert (stack.layers[1].source, stack.layers[1].image) == (str(tree), str(tree.parent / "image"))
    assert Stack.from_json(json.loads(json.dumps(stack.to_json()))) == stack
    made = plan(PATHS, stack, "web", 100000, [Part("/usr", "1", stack.lower)])
    assert made.images == (Image(str(tree.parent / "image"), "/run/x/app", True),)
    assert [clone.target for clone in made.clones] == ["/run/x/base", "/run/x/base/usr", "/run/x/mask"]
    assert [overlay.lower for overlay in made.overlays] == [
        ("/run/x/app", "/run/x/mask", "/run/x/base"), ("/run/x/app/usr", "/run/x/mask/usr", "/run/x/base/usr"),
    ]  # fmt: skip
    assert f"/run/x/app: the image {tree.parent}/image, read-only, ids 0-65535 as 100000-165535" in made.lines()
    assert not plan(PATHS, stack, "web", None, []).images[0].shifted
    assert not stack_of(PATHS, "web").layers[1].image


def test_a_file_of_a_release_is_never_old() -> None:
    layer = stack_of(PATHS, "web", use=AppUse("shop", "1.4", "/")).layers[1]
    other = Identity(1, 2, 3, 4)
    assert judge_mapped(other, Found(layer, os.stat("/")), deleted=False) is None
    assert judge_mapped(other, Found(layer._replace(app=""), os.stat("/")), deleted=False) is Why.REPLACED


def test_a_layer_whose_files_have_the_owners_already_is_not_shifted() -> None:
    usual = stack_of(PATHS, "web")
    stack = Stack((usual.top, APP._replace(idmapped=False), *usual.lower))
    assert [clone.shifted for clone in plan(PATHS, stack, "web", 100000, []).clones] == [True, True, False]


def test_the_layers_of_a_part(four: dict[str, Path], shelf: Shelf) -> None:
    for point in ("usr", "opt", "var", "srv"):
        (four["mask"] / point).mkdir()
        (four["base"] / point).mkdir()
    (four["app"] / "usr").mkdir()
    make_opaque(four["app"] / "opt")
    whiteout(four["app"], "/srv")
    having = {point: part_layers(shelf, stack_in(four), point) for point in ("/usr", "/opt", "/var", "/srv")}
    assert {point: found and [layer.name for layer in found] for point, found in having.items()} == {
        "/usr": ["app", "mask", "base"], "/opt": ["app"], "/var": ["mask", "base"], "/srv": None,
    }  # fmt: skip


@pytest.mark.parametrize(("gone", "why"), [("mask", "the mask is not: all of the host's files"), ("app", "the app is not")])
def test_a_layer_that_is_not_mounted_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: str, why: str) -> None:
    stack = Stack(tuple(layer_in(tmp_path, name) for name in ("delta", "app", "mask", "base")))
    monkeypatch.setattr(os.path, "ismount", lambda place: not str(place).endswith(gone))
    with pytest.raises(HostError) as refused:
        layers.mount(PATHS, stack, "web", None, 0)
    assert why in (refused.value.why or "")
