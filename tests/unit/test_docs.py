"""The documents agree with the program."""

from __future__ import annotations

import re
import runpy
import shlex
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from lxcfleet.cli.main import cli
from lxcfleet.cli.session import Session
from lxcfleet.errors import InvalidInput
from lxcfleet.spec.files import fleet_file
from lxcfleet.spec.files.fleet_sources import Sources
from lxcfleet.spec.files.settings import Config, MetricsSettings, NetworkSettings, describe, parse
from lxcfleet.spec.policies.rollout import RolloutSettings
from lxcfleet.spec.policies.windows import PatchSettings
from lxcfleet.spec.reading.rows import rows_of

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = (ROOT / "etc/lxcfleet.yaml").read_text(encoding="utf-8")


def test_the_reference_is_up_to_date() -> None:
    """If not: ``make docs``."""
    page = runpy.run_path(str(ROOT / "docs/reference.py"))["page"]
    assert (ROOT / "docs/reference.md").read_text(encoding="utf-8") == page()


def test_the_page_about_the_api_is_up_to_date() -> None:
    """If not: ``make docs``."""
    page = runpy.run_path(str(ROOT / "docs/api.py"))["page"]
    assert (ROOT / "docs/api.md").read_text(encoding="utf-8") == page() + "\n"


def test_the_schemas_are_up_to_date() -> None:
    """If not: ``make docs``."""
    texts = runpy.run_path(str(ROOT / "docs/schema.py"))["texts"]()
    assert texts == {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs/schema").iterdir()}


def test_the_ansible_module_has_all_fields() -> None:
    """If not: ``make docs``."""
    made = runpy.run_path(str(ROOT / "docs/ansible_fields.py"))
    text = made["MODULE"].read_text(encoding="utf-8")
    assert made["page"](text) == text


def test_the_sample_changes_nothing() -> None:
    assert parse(SAMPLE.encode(), "sample") == Config()


def test_the_sample_has_all_settings_with_their_defaults() -> None:
    settings = re.sub(r"^#(?!#| yaml-language-server)", "", SAMPLE, flags=re.MULTILINE)
    assert parse(settings.encode(), "sample") == Config()
    parts = (Config, NetworkSettings, MetricsSettings, RolloutSettings, PatchSettings)
    for key in (key for part in parts for key in rows_of(part)):
        assert re.search(rf"^\s*{key}:", settings, re.MULTILINE), key


SHAPES = ("reference.md", "api.md", "architecture.md")
"""Pages with usage lines or drawings, not with commands."""
OPERATORS = frozenset("|&;<>()")


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command of lxcfleet's in the blocks of a page, up to a shell's operator."""
    blocks = [*re.findall(r"```[a-z]*\n(.*?)```", text, re.DOTALL), *re.findall(r"(?:^    .*\n)+", text, re.MULTILINE)]
    for line in re.findall(r"^ *(?:[$#] )?(lxcfleet .*)$", re.sub(r"\\\n\s*", " ", "\n".join(blocks)), re.MULTILINE):
        lexer = shlex.shlex(line, posix=True, punctuation_chars="".join(OPERATORS))
        lexer.whitespace_split = True
        words = list(lexer)
        end = next((number for number, word in enumerate(words) if word and {*word} <= OPERATORS), len(words))
        if "$" not in words[:end]:  # $(…) has stood there
            yield words[1:end]


def test_each_command_in_the_documents_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("build", "root", "shop-1.5.tar.xz"):
        (tmp_path / name).mkdir()
    pages = [ROOT / "README.md", *(page for page in (ROOT / "docs").glob("*.md") if page.name not in SHAPES)]
    found = [words for page in pages for words in commands(page.read_text(encoding="utf-8"))]
    assert len(found) > 200
    for words in found:
        if "-n" in words and ("-p" in words or "--publish" in words):
            assert {"-l", "--label"} & {*words}, f"{words}: several can share a port only with a label in common"
        understood(words)


def understood(words: list[str]) -> None:
    """Have click read the words as it would, and call nothing."""
    command: click.Command = cli
    context = cli.make_context("lxcfleet", [*words], obj=Session())
    while isinstance(command, click.Group):
        rest = [*context.protected_args, *context.args]
        assert rest, words
        name, sub, rest = command.resolve_command(context, rest)
        assert sub is not None, words
        try:
            context, command = sub.make_context(name or "", rest, parent=context), sub
        except click.ClickException as error:
            raise AssertionError(f"{words}: {error.format_message()}") from error


def all_commands(command: click.Command = cli, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Each verb with the groups that it is in, and the command."""
    yield " ".join(path), command
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            below = command.get_command(click.Context(command), name)
            assert below is not None
            yield from all_commands(below, (*path, name))


def test_each_example_in_a_help_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The man page has them, too."""
    monkeypatch.chdir(tmp_path)
    for name in ("build", "root", "shop-1.5.tar.xz"):
        (tmp_path / name).mkdir()
    count = 0
    for _, command in all_commands():
        for line in re.findall(r"^ *(?:[$#] )?(lxcfleet .*)$", command.help or "", re.MULTILINE):
            for words in commands(f"    {re.split('   +', line)[0]}\n"):  # what it does stands beside it
                understood(words)
                count += 1
    assert count > 200


def test_the_words_that_an_option_takes_are_plain() -> None:
    """click from 8.2 on takes the names of an enumeration's members, such as MOUNT, in place of their values."""
    for name, command in all_commands():
        for parameter in command.params:
            if isinstance(parameter.type, click.Choice):
                assert {type(each) for each in parameter.type.choices} == {str}, (name, parameter.name)


PLACES = ("ansible", "debian", "demo", "etc", "systemd", "vagrant")
CALLED = (
    r"`lxcfleet ([a-z][^`\n|]*)`", r"C\(lxcfleet ([a-z][^)\n]*)\)", r"^Exec\w+=\S*/lxcfleet ([a-z].*)$",
    r"validate: lxcfleet (.*)$", r"(?:sudo|timeout \d+) lxcfleet ([a-z][^|&;\n]*)", r"\"\$lxcfleet\" ([a-z][^|&;)\n]*)",
)  # fmt: skip
"""How files name a verb, or call it."""


def texts_of_verbs() -> Iterator[str]:
    """What stands after `lxcfleet` in sentences, units, scripts and messages."""
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "docs").glob("*.8")]
    for file in (*pages, *(ROOT / "lxcfleet").rglob("*.py")):
        yield from re.findall(CALLED[0], file.read_text(encoding="utf-8"))
    for file in (file for place in PLACES for file in (ROOT / place).rglob("*")):
        if file.is_file() and file.suffix != ".pyc":
            for form in CALLED:
                yield from re.findall(form, file.read_text(encoding="utf-8"), re.MULTILINE)


def test_each_verb_that_a_message_or_a_sentence_names_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its options: whoever reads a hint types it. Values are left out of it, as many are placeholders."""
    monkeypatch.chdir(tmp_path)
    texts = {*texts_of_verbs()}
    assert len(texts) > 100
    wrong = []
    for text in sorted(texts):
        try:
            understood(shlex.split(re.sub(r"{[^{}]*}", "1", text).replace("'", "").replace(", ", " ")))
        except click.NoSuchOption as error:
            wrong.append(f"{text}: {error.format_message()}")
        except click.UsageError as error:
            wrong += [f"{text}: {error.message}"] if "No such command" in error.message else []
        except AssertionError as error:
            wrong += [str(error)] if "No such option" in str(error) else []
        except (click.exceptions.Exit, InvalidInput):
            pass  # it shows a help, or has NAME for a name
    assert wrong == []


OTHERS_YAML = {"ansible.md", "mask.md"}
"""Pages whose YAML is Ansible's, or the mask's rules."""


def yaml_of(page: Path) -> Iterator[str]:
    """The YAML in the blocks of a page."""
    text = page.read_text(encoding="utf-8")
    yield from re.findall(r"```yaml\n([\s\S]*?)```", text)
    for block in re.findall(r"(?:^    .*\n)+", re.sub(r"```[\s\S]*?```", "", text), re.MULTILINE):
        if re.match(r"    [a-z_]+:( *#.*| *{.*)?\n", block):
            yield textwrap.dedent(block)


def readable(text: str) -> Iterator[str]:
    """The reasons why a text is no settings, no profile, no fleet file and no part of one; nothing, if it is one of them."""
    inner = textwrap.indent(text, "    ")
    head = "" if "lxcfleet: 1" in text else "lxcfleet: 1\nfleet: shop\n"
    files = {"common.env": "MODE=test\n"}
    readers: tuple[Callable[[], object], ...] = (
        lambda: parse(text.encode(), "settings"),
        lambda: parse(f"profiles:\n  p:\n{inner}".encode(), "profile"),
        lambda: fleet_file.parse(Sources(head + text, "fleet", files), Config()),
    )
    reasons = []
    for reader in readers:
        try:
            reader()
        except InvalidInput as error:
            reasons.append(error.why or error.message)
        else:
            return
    yield from reasons


def test_yaml_in_the_documents_is_read() -> None:
    pages = [page for page in (ROOT / "docs").glob("*.md") if page.name not in {*SHAPES, *OTHERS_YAML}]
    found = [(page.name, text, [*readable(text)]) for page in pages for text in yaml_of(page)]
    assert len(found) > 15
    assert [each for each in found if each[2]] == []


def slug(head: str) -> str:
    """The anchor that a headline gets."""
    return re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-")


def test_anchors_of_links_in_the_documents_are_headlines() -> None:
    pages = {page.name: page.read_text(encoding="utf-8") for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))}
    heads = {name: {slug(head) for head in re.findall(r"^#+ (.*)$", text, re.MULTILINE)} for name, text in pages.items()}
    for name, text in pages.items():
        for target, anchor in re.findall(r"\]\(([^)#:\s]*)#([^)]+)\)", text):
            assert anchor in heads.get(Path(target or name).name, ()), (name, target, anchor)


def test_links_in_the_documents_lead_somewhere() -> None:
    for document in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), (document, target)


def test_the_map_has_each_room_and_each_place_that_it_names_exists() -> None:
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    rooms = {str(file.parent.relative_to(ROOT / "lxcfleet")) for file in (ROOT / "lxcfleet").rglob("__init__.py")} - {"."}
    told = set(re.findall(r"^\| `([\w/]+)` \|", page, re.MULTILINE))
    assert told == rooms
    tests = {f"tests/{kind}" for kind in ("unit", "contract", "system", "vm", "ansible")}
    named = set(re.findall(r"\b((?:[\w-]+/)+[\w-]+\.py)\b", page))
    places = [ROOT, ROOT / "lxcfleet"]
    assert len(named) > 30
    assert not [name for name in named | tests if not any((place / name).exists() for place in places)]


def test_shown_settings_are_read_as_the_same() -> None:
    assert parse(describe(Config()).encode(), "described") == Config()


def test_every_test_that_the_security_page_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs/security.md").read_text(encoding="utf-8")))
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(named) > 25
    assert not {name for name in named if f"def {name}(" not in sources}


def test_every_row_of_what_was_tried_names_its_test() -> None:
    page = (ROOT / "docs/security.md").read_text(encoding="utf-8")
    tried = re.search(r"^## What was tried$.*^## What is not kept apart$", page, re.M | re.S)
    assert tried is not None
    heads = ("| attempt ", "| what ")
    rows = [line for line in tried[0].splitlines() if line.startswith("| ") and not line.startswith(heads)]
    assert len(rows) >= 50
    assert [row for row in rows if not re.search(r"`(tests/\w+/)?test_\w+(\.py)?`", row)] == []
    files = set(re.findall(r"`(tests/[\w/]+\.py)`", tried[0]))
    assert not [file for file in files if not (ROOT / file).exists()]


def test_every_attempt_is_on_the_security_page() -> None:
    page = (ROOT / "docs/security.md").read_text(encoding="utf-8")
    source = (ROOT / "tests/system/test_confinement.py").read_text(encoding="utf-8")
    missing = [name for name in re.findall(r"^def (test_\w+)", source, re.M) if f"`{name}`" not in page]
    assert missing == ["test_info_tells_how_a_container_is_confined"]
