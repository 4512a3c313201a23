"""Which files of the host make its services run in a container: the plan over small trees."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from lxcfleet.base import mount_plan
from lxcfleet.base.present import Shelf, part_layers
from lxcfleet.base.services import layer, planner, units
from lxcfleet.base.services.planner import ServicePlan
from lxcfleet.base.stack import Services, Stack, base, stack_of
from lxcfleet.base.tree import Tree
from lxcfleet.errors import HostError, InvalidInput
from lxcfleet.host.kernel.entries import Copy, Directory, File, Symlink
from lxcfleet.host.kernel.mounts import OPAQUE
from lxcfleet.host.process.maps import Identity
from lxcfleet.patch.shadow.files import find as shadows
from lxcfleet.paths import Paths
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.container.unit_names import check_units, parse_unit

from .layers_in import directories, stack_in
from .mask_tree import SYSTEM, put, small_host

ADMIN = "etc/systemd/system"
INSTALL = "[Install]\nWantedBy=multi-user.target\n"


@pytest.fixture
def host(tmp_path: Path) -> Path:
    root = small_host(tmp_path / "host")
    put(root, f"{SYSTEM}/web.service", f"[Service]\nExecStart=/usr/bin/web\n{INSTALL}")
    return root


def plan(host: Path, *names: str, present: tuple[str, ...] = ("basic.target", "dbus.service")) -> ServicePlan:
    made = planner.plan(Tree(host), names, present)
    made.check()
    return made


def refused(host: Path, name: str) -> InvalidInput:
    with pytest.raises(InvalidInput) as error:
        plan(host, name)
    return error.value


def links(made: ServicePlan) -> dict[str, str]:
    """The links in the administrator's directory, without its name."""
    prefix = f"/{ADMIN}/"
    return {
        path.removeprefix(prefix): entry.target.rpartition("/")[2]
        for path, entry in made.entries.items()
        if isinstance(entry, Symlink) and path.startswith(prefix)
    }


def copies(made: ServicePlan) -> set[str]:
    return {path.lstrip("/") for path, entry in made.entries.items() if isinstance(entry, Copy)}


# -- how a unit is enabled -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("install", "expected"),
    [
        ("WantedBy=multi-user.target", {"multi-user.target.wants/x.service": "x.service"}),
        ("RequiredBy=basic.target", {"basic.target.requires/x.service": "x.service"}),
        ("UpheldBy=multi-user.target", {"multi-user.target.upholds/x.service": "x.service"}),
        ("WantedBy=sysinit.target\nWantedBy=sockets.target timers.target", {
            f"{target}.target.wants/x.service": "x.service" for target in ("sysinit", "sockets", "timers")
        }),
        ("WantedBy=sockets.target\nWantedBy=\nWantedBy=multi-user.target", {
            "multi-user.target.wants/x.service": "x.service"
        }),
        ("WantedBy=graphical.target", {
            "graphical.target.wants/x.service": "x.service", "multi-user.target.wants/x.service": "x.service",
        }),
        ("WantedBy=multi-user.target\nAlias=y.service %p-z.service", {
            "multi-user.target.wants/x.service": "x.service", "y.service": "x.service", "x-z.service": "x.service",
        }),
        ("WantedBy=../../../../root/x.target\nAlias=/usr/bin/sh", {"multi-user.target.wants/x.service": "x.service"}),
        ("Also=web.service", {"multi-user.target.wants/web.service": "web.service"}),
        ("Also=gone.service x.service", {"multi-user.target.wants/x.service": "x.service"}),
        ("", {"multi-user.target.wants/x.service": "x.service"}),
    ],
)  # fmt: skip
def test_a_unit_is_enabled_as_its_install_section_says(host: Path, install: str, expected: dict[str, str]) -> None:
    put(host, f"{SYSTEM}/x.service", f"[Service]\nExecStart=/usr/bin/x\n[Install]\n{install}\n")
    assert links(plan(host, "x.service")) == expected


@pytest.mark.parametrize(
    ("name", "target"), [("x.service", "multi-user"), ("x.socket", "sockets"), ("x.timer", "timers"), ("x.path", "paths")]
)
def test_a_static_unit_is_wanted_by_the_usual_target_of_its_kind(host: Path, name: str, target: str) -> None:
    put(host, f"{SYSTEM}/x.service")
    put(host, f"{SYSTEM}/{name}", "[Unit]\nDescription=x\n")
    assert f"{target}.target.wants/{name}" in links(plan(host, name))


def test_the_links_by_which_the_host_starts_a_unit_count(host: Path) -> None:
    put(host, f"{SYSTEM}/clean.timer", "[Timer]\nOnBootSec=1\n")
    put(host, f"{SYSTEM}/clean.service", "[Service]\nExecStart=/usr/bin/clean\n")
    (host / SYSTEM / "timers.target.wants").mkdir()
    (host / SYSTEM / "timers.target.wants/clean.timer").symlink_to("../clean.timer")
    made = plan(host, "clean.timer")
    assert made.entries[f"/{SYSTEM}/timers.target.wants/clean.timer"] == Symlink("../clean.timer", "enabled: clean.timer")
    assert links(made) == {}


def test_a_unit_that_is_wanted_by_another_one_is_started_with_it(host: Path) -> None:
    put(host, f"{SYSTEM}/helper.service", "[Install]\nWantedBy=web.service\n")
    both, alone = plan(host, "web.service", "helper.service"), plan(host, "helper.service")
    assert "multi-user.target.wants/helper.service" not in links(both)
    assert "multi-user.target.wants/helper.service" in links(alone)


@pytest.mark.parametrize("state", ["masked", "masked by an empty file", "enabled elsewhere", "linked"])
def test_the_hosts_own_state_of_a_unit_does_not_matter(host: Path, state: str) -> None:
    (host / ADMIN).mkdir(parents=True)
    match state:
        case "masked":
            (host / ADMIN / "web.service").symlink_to("/dev/null")
        case "masked by an empty file":
            put(host, f"{ADMIN}/web.service")
        case "enabled elsewhere":
            (host / ADMIN / "own.target.wants").mkdir()
            (host / ADMIN / "own.target.wants/web.service").symlink_to("/lib/systemd/system/web.service")
        case _:
            (host / ADMIN / "web.service").symlink_to("/lib/systemd/system/web.service")
    made = plan(host, "web.service")
    assert copies(made) == {f"{SYSTEM}/web.service"}
    assert links(made)["multi-user.target.wants/web.service"] == "web.service"


# -- what belongs to a unit ----------------------------------------------------------------------------------------


def test_the_administrators_file_is_preferred_to_the_packages(host: Path) -> None:
    put(host, f"{ADMIN}/web.service", "[Service]\nExecStart=/usr/bin/other\n[Install]\nWantedBy=basic.target\n")
    made = plan(host, "web.service")
    assert copies(made) == {f"{ADMIN}/web.service"}
    assert made.units["web.service"].values("Service", "ExecStart") == ["/usr/bin/other"]
    assert isinstance(made.entries[f"/{ADMIN}/basic.target.wants/web.service"], Symlink)


def test_drop_ins_aliases_and_dbus_names_come_along(host: Path) -> None:
    put(host, f"{SYSTEM}/web-front.service", "[Service]\nExecStart=/usr/bin/web\n")
    for path in (f"{SYSTEM}/web-front.service.d/a", f"{ADMIN}/web-front.service.d/b", f"{ADMIN}/web-.service.d/c"):
        put(host, f"{path}.conf", "[Service]\nNice=5\n")
    put(host, f"{ADMIN}/web-front.service.d/notes.txt")
    put(host, f"{ADMIN}/www.service.d/d.conf", "[Service]\nNice=6\n")
    (host / ADMIN / "www.service").symlink_to("/lib/systemd/system/web-front.service")
    bus = "usr/share/dbus-1/system-services"
    put(host, f"{bus}/org.example.Web.service", "[D-BUS Service]\nName=org.example.Web\nSystemdService=www.service\n")
    put(host, f"{bus}/org.example.Other.service", "[D-BUS Service]\nName=org.example.Other\nSystemdService=other.service\n")
    made = plan(host, "web-front.service")
    assert copies(made) == {
        f"{SYSTEM}/web-front.service", f"{SYSTEM}/web-front.service.d/a.conf", f"{ADMIN}/web-front.service.d/b.conf",
        f"{ADMIN}/web-.service.d/c.conf", f"{ADMIN}/www.service.d/d.conf", f"{bus}/org.example.Web.service",
    }  # fmt: skip
    assert links(made)["www.service"] == "web-front.service"
    assert made.units["web-front.service"].values("Service", "Nice") == ["5", "5", "5", "6"]


def test_an_alias_stands_for_its_unit(host: Path) -> None:
    (host / SYSTEM / "www.service").symlink_to("web.service")
    made = plan(host, "www.service")
    assert made.enabled == {"web.service"}
    assert links(made)["multi-user.target.wants/web.service"] == "web.service"
    assert made.entries[f"/{SYSTEM}/www.service"] == Symlink("web.service", "units: web.service")


@pytest.mark.parametrize(
    ("name", "content", "other"),
    [
        ("x.timer", "[Timer]\nOnCalendar=daily\n", "x.service"),
        ("x.timer", "[Timer]\nUnit=web.service\n", "web.service"),
        ("x.socket", "[Socket]\nListenStream=80\n", "x.service"),
        ("x.socket", "[Socket]\nListenStream=80\nService=web.service\n", "web.service"),
        ("x.socket", "[Socket]\nListenStream=80\nAccept=yes\n", "x@.service"),
        ("x.path", "[Path]\nPathExists=/tmp/x\n", "x.service"),
        ("y.service", "[Unit]\nRequires=x.service dbus.service basic.target\n", "x.service"),
        ("y.service", "[Unit]\nBindsTo=%N-x.service\n", "y-x.service"),
    ],
)  # fmt: skip
def test_what_a_unit_activates_or_needs_comes_along_disabled(host: Path, name: str, content: str, other: str) -> None:
    for service in ("x.service", "x@.service", "y-x.service"):
        put(host, f"{SYSTEM}/{service}", f"[Service]\nExecStart=/usr/bin/x\n{INSTALL}")
    put(host, f"{SYSTEM}/{name}", content)
    made = plan(host, name)
    assert copies(made) == {f"{SYSTEM}/{name}", f"{SYSTEM}/{other}"}
    assert made.enabled == {name}
    assert made.missing == []


def test_a_unit_without_which_it_does_not_start_and_that_the_host_lacks_is_told(host: Path) -> None:
    put(host, f"{SYSTEM}/x.timer", "[Timer]\nOnCalendar=daily\n[Unit]\nRequires=dev-sda.device data.mount own.target\n")
    assert plan(host, "x.timer").missing == [
        ("x.timer", "Unit", "x.service"), ("x.timer", "Requires", "dev-sda.device"), ("x.timer", "Requires", "data.mount"),
        ("x.timer", "Requires", "own.target"),
    ]  # fmt: skip


# -- templates and generators --------------------------------------------------------------------------------------


def test_an_instance_runs_from_its_template(host: Path) -> None:
    put(host, f"{SYSTEM}/db@.service", "[Install]\nWantedBy=multi-user.target %i.target\n")
    put(host, f"{ADMIN}/db@.service.d/all.conf")
    put(host, f"{ADMIN}/db@15-main.service.d/one.conf")
    put(host, f"{ADMIN}/db@16-main.service.d/other.conf")
    made = plan(host, "db@15-main.service")
    assert copies(made) == {
        f"{SYSTEM}/db@.service", f"{ADMIN}/db@.service.d/all.conf", f"{ADMIN}/db@15-main.service.d/one.conf"
    }  # fmt: skip
    assert links(made) == {
        "multi-user.target.wants/db@15-main.service": "db@.service", "15-main.target.wants/db@15-main.service": "db@.service",
    }  # fmt: skip


def test_a_template_runs_as_its_default_instance_or_not_at_all(host: Path) -> None:
    put(host, f"{SYSTEM}/db@.service", f"{INSTALL}DefaultInstance=main\n")
    put(host, f"{SYSTEM}/app@.service", INSTALL)
    assert links(plan(host, "db@.service")) == {"multi-user.target.wants/db@main.service": "db@.service"}
    assert "app@NAME.service" in (refused(host, "app@.service").hint or "")


@pytest.mark.parametrize("top", ["/usr/lib", "/lib"])
def test_the_generators_of_a_units_package_come_along_with_its_templates(host: Path, top: str) -> None:
    put(host, f"{SYSTEM}/web@.service", "[Service]\nExecStart=/usr/bin/web %i\n")
    for name in ("web-generator", "other-generator", "systemd-fstab-generator"):
        put(host, f"usr/lib/systemd/system-generators/{name}", mode=0o755)
    ends = ("system/web.service", "system/web@.service", "system-generators/web-generator")
    own = [f"{top}/systemd/{end}" for end in ends]
    put(host, "var/lib/dpkg/info/web.list", "\n".join(["/.", "/usr", *own, ""]))
    put(host, "var/lib/dpkg/info/other.list", "/usr\n/usr/lib/systemd/system-generators/other-generator\n")
    put(host, "var/lib/dpkg/info/systemd.list", f"/usr\n{own[0]}\n/lib/systemd/system-generators/systemd-fstab-generator\n")
    made = plan(host, "web.service")
    generator = "usr/lib/systemd/system-generators/web-generator"
    assert copies(made) == {f"{SYSTEM}/web.service", f"{SYSTEM}/web@.service", generator}
    assert made.entries[f"/{generator}"].owner.mode == 0o755  # type: ignore[union-attr]
    assert made.enabled == {"web.service"}


# -- what a service needs besides its unit ---------------------------------------------------------------------------


def test_a_service_gets_what_else_it_needs(host: Path) -> None:
    for name in ("ssh.service", "ssh.socket", "cron.service"):
        put(host, f"{SYSTEM}/{name}", INSTALL)
    made = plan(host, "ssh.service", "cron.service")
    keys = made.entries[f"/{SYSTEM}/lxcfleet-ssh-host-keys.service"]
    assert isinstance(keys, File)
    assert b"ssh-keygen -A" in keys.content
    for unit in ("ssh.service", "ssh.socket"):
        drop_in = made.entries[f"/{SYSTEM}/{unit}.d/lxcfleet-host-keys.conf"]
        assert isinstance(drop_in, File)
        assert b"After=lxcfleet-ssh-host-keys.service" in drop_in.content
    assert isinstance(made.entries["/etc/crontab"], File)
    assert "/etc/crontab" not in plan(host, "web.service").entries


# -- refused ---------------------------------------------------------------------------------------------------------


def test_an_unknown_unit_is_refused_with_names_that_are_near(host: Path) -> None:
    put(host, f"{SYSTEM}/php8.2-fpm.service", INSTALL)
    put(host, f"{SYSTEM}/sshd.target")
    assert "web.service" in (refused(host, "wep.service").hint or "")
    assert "php8.2-fpm.service" in (refused(host, "php-fpm.service").hint or "")
    put(host, f"{SYSTEM}/mariadb.service", f"{INSTALL}Alias=mysql.service mysqld.service\n")
    put(host, f"{SYSTEM}/app@.service", INSTALL)
    assert refused(host, "mysql.service").hint == "name mariadb.service"
    assert refused(host, "app.service").hint == "name an instance: app@NAME.service"
    for typed in ("WEB.service", "web.servce.service"):
        assert "web.service" in (refused(host, typed).hint or "")
    assert "list-unit-files" in (refused(host, "nothing-like-it.service").hint or "")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("own.target", "a target is no service"), ("data.mount", "a mount is no service"), ("a.slice", "a slice is no"),
        ("a.automount", "an automount is no service"),
        ("hwclock.service", "masks it"), ("empty.service", "masks it"), ("old.service", "/etc/init.d/old is a script"),
        ("secret.service", "can't read"), ("loop.service", "has no unit"), ("dangling.service", "has no unit"),
        ("directory.service", "has no unit"),
    ],
)  # fmt: skip
def test_a_unit_that_can_not_be_had_is_refused_with_the_reason(host: Path, name: str, why: str) -> None:
    for unit in ("own.target", "data.mount", "a.slice"):
        put(host, f"{SYSTEM}/{unit}", "[Unit]\nDescription=x\n")
    (host / SYSTEM / "hwclock.service").symlink_to("/dev/null")
    put(host, f"{SYSTEM}/empty.service")
    put(host, "etc/init.d/old", mode=0o755)
    put(host, f"{ADMIN}/secret.service", "[Service]\nEnvironment=PASSWORD=x\n", mode=0o600)
    (host / SYSTEM / "loop.service").symlink_to("loop2.service")
    (host / SYSTEM / "loop2.service").symlink_to("loop.service")
    (host / SYSTEM / "dangling.service").symlink_to("gone.service")
    (host / SYSTEM / "directory.service").mkdir()
    error = refused(host, name)
    assert why in f"{error.message} {error.why}"


def test_a_drop_in_that_others_can_not_read_stays_hidden(host: Path) -> None:
    put(host, f"{ADMIN}/web.service.d/secret.conf", "[Service]\nEnvironment=PASSWORD=x\n", mode=0o640)
    put(host, f"{ADMIN}/web.service.d/open.conf", "[Service]\nNice=1\n")
    unit = plan(host, "web.service").units["web.service"]
    assert unit.private == (f"/{ADMIN}/web.service.d/secret.conf",)
    assert unit.values("Service", "Environment") == []
    (host / ADMIN / "web.service.d").chmod(0o700)
    assert copies(plan(host, "web.service")) == {f"{SYSTEM}/web.service"}


@pytest.mark.parametrize("text", ["../x.service", "a/b.service", "x.service\n", "x\ny.service", "", ".service", "x y", "ü"])
def test_a_name_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_unit(text)


def test_a_name_without_a_kind_is_a_services() -> None:
    assert [parse_unit(text) for text in ("apache2", "php8.2-fpm", "a.timer")] == [
        "apache2.service", "php8.2-fpm.service", "a.timer"
    ]  # fmt: skip
    with pytest.raises(InvalidInput):
        check_units(["a.service", "a.service"])


# -- how unit files are read -----------------------------------------------------------------------------------------


def test_a_unit_file_is_read_as_systemd_reads_it() -> None:
    text = b"""\
# a comment
[Unit]
Description = two \\
  words
; another
[Service]
ExecStart=/usr/bin/a \\
# between
  b
no setting
Environment="A=1"
\xff=x
"""
    found = [(each.section, each.key, each.value) for each in units.parse(text)]
    assert found == [
        ("Unit", "Description", "two  words"), ("Service", "ExecStart", "/usr/bin/a  b"), ("Service", "Environment", '"A=1"'),
        ("Service", "\udcff", "x"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("%i-%I", "a@b-c.service", "b-c-b/c"), ("%n %N %p", "a@b.service", "a@b.service a@b a"), ("%j", "a-b-c.service", "c"),
        ("100%%", "a.service", "100%"), ("%I", r"a@b\x2dc.service", "b-c"), ("%H %", "a.service", "%H %"),
    ],
)  # fmt: skip
def test_specifiers_that_depend_on_the_name_are_filled_in(text: str, name: str, expected: str) -> None:
    assert units.expand(text, name) == expected


# -- the layer ---------------------------------------------------------------------------------------------------------


def test_the_layer_repeats_the_owners_and_modes_of_the_directories_above(host: Path) -> None:
    (host / "usr/lib/systemd").chmod(0o711)
    made = layer.entries(Tree(host), Services(("web.service",)))
    above = made["/usr/lib/systemd"]
    assert isinstance(above, Directory)
    assert (above.owner.mode, above.owner.uid, above.opaque) == (0o711, os.getuid(), False)
    assert list(made) == sorted(made)
    assert "/" in made


def test_timers_that_a_container_is_not_to_have_are_masked(host: Path) -> None:
    spec = Spec("one", maintenance=False)
    asked = Services.of(spec)
    assert "logrotate.timer" in asked.masked
    made = layer.entries(Tree(host), asked)
    off = made[f"/{ADMIN}/logrotate.timer"]
    assert isinstance(off, Symlink)
    assert off.target == "/dev/null"
    put(host, f"{SYSTEM}/logrotate.timer", "[Timer]\nOnCalendar=daily\n")
    put(host, f"{SYSTEM}/logrotate.service", "[Service]\nExecStart=/bin/true\n")
    both = layer.entries(Tree(host), asked._replace(units=("logrotate.timer",)))
    assert f"/{ADMIN}/logrotate.timer" not in both, "it is asked for by name"
    assert Services.of(replace(spec, maintenance=True)) == Services()
    assert "logrotate.timer" in str(asked)


def test_a_unit_that_the_host_lost_keeps_the_container_from_starting(host: Path) -> None:
    below = base(Paths())._replace(source=str(host))
    services = Services(("web.service",))
    before = layer.present(services, "one", below)
    assert layer.present(services, "two", below) is before
    (host / SYSTEM / "web.service").unlink()
    with pytest.raises(HostError) as error:
        layer.present(services, "one", below)
    assert error.value.message == "one can't start: the host has no unit web.service"
    assert layer.entries(Tree(host), services, whole=False).keys() == set()


def test_a_changed_unit_is_in_the_next_layer(host: Path) -> None:
    below = base(Paths())._replace(source=str(host))
    services = Services(("web.service",))
    assert f"/{ADMIN}/multi-user.target.wants/web.service" in layer.present(services, "one", below)
    put(host, f"{SYSTEM}/web.service", "[Install]\nWantedBy=basic.target\n")
    assert f"/{ADMIN}/basic.target.wants/web.service" in layer.present(services, "one", below)


# -- who looks at the layers -------------------------------------------------------------------------------------------


def make_opaque(directory: Path) -> None:
    if os.geteuid():
        pytest.skip("only root may make opaque directories")
    os.setxattr(directory, OPAQUE, b"y")


@pytest.fixture
def stack(host: Path, tmp_path: Path) -> Stack:
    """The layers of a container that runs the host's web.service. The mask hides the host's units."""
    made = directories(tmp_path)
    made["base"].rmdir()
    host.rename(made["base"])
    hidden = made["mask"] / SYSTEM
    hidden.mkdir(parents=True)
    usual = stack_in(made)
    own = stack_of(Paths(lxc=tmp_path, run=tmp_path / "run"), "web", Services(("web.service",))).layers[1]
    return Stack((usual.top, own, *usual.lower))


def test_a_copy_of_a_file_counts_as_the_hosts(stack: Stack) -> None:
    base = Path(stack.bottom.source)
    put(base, f"{SYSTEM}/other.service")
    make_opaque(Path(stack.standing[0].source) / SYSTEM)
    shelf = Shelf()
    with shelf.present(Stack.from_json(json.loads(json.dumps(stack.to_json())))) as present:
        found = present.find(f"/{SYSTEM}/web.service")
        assert (found.layer.name, found.identity) == ("base", Identity.of((base / SYSTEM / "web.service").stat()))
        assert present.find(f"/{SYSTEM}/other.service").status is None
        assert present.find(f"/{SYSTEM}").layer.name == "base"
        assert present.find("/usr/bin/sh").layer.name == "base"
        link = present.find(f"/{ADMIN}/multi-user.target.wants/web.service")
        assert (link.layer.name, link.status) == ("services", None)
    shelf.close()


def test_a_containers_own_unit_is_a_shadow_of_the_hosts(stack: Stack) -> None:
    make_opaque(Path(stack.standing[0].source) / SYSTEM)
    put(Path(stack.top.source), f"{SYSTEM}/web.service", "its own")
    put(Path(stack.top.source), f"{SYSTEM}/own.service", "its own")
    put(Path(stack.top.source), f"{ADMIN}/multi-user.target.wants/own.service", "its own")
    (delta,) = shadows([("web", stack)])
    assert [(each.path, each.kind, each.layer) for each in delta.shadows] == [(f"/{SYSTEM}/web.service", "file", "delta")]


def test_parts_lie_over_the_layer_if_it_has_files_there(stack: Stack) -> None:
    for point in ("usr", "opt"):
        (Path(stack.standing[0].source) / point).mkdir(exist_ok=True)
    having = {point: part_layers(Shelf(), stack, point) for point in ("/usr", "/opt")}
    assert {point: found and [each.name for each in found] for point, found in having.items()} == {
        "/usr": ["services", "mask", "base"], "/opt": ["mask", "base"],
    }  # fmt: skip


def test_the_mounts_of_a_container_with_services() -> None:
    paths = Paths(lxc=Path("/c"), run=Path("/run/x"), etc=Path("/etc/x"))
    stack = stack_of(paths, "web", Services(("web.service", "cron.service")))
    made = mount_plan.plan(paths, stack, "web", 100000, [])
    assert made.lines()[:3] == [
        "/run/x/base: /, read-only, ids 0-65535 as 100000-165535",
        "/run/x/mask: /run/x/mask, read-only, ids 0-65535 as 100000-165535",
        "/run/x/services: web.service, cron.service of the host, read-only",
    ]
    assert made.overlays[0].lower == ("/run/x/services", "/run/x/mask", "/run/x/base")
    assert stack_of(paths, "web").layers == (stack.top, *stack.standing)
