"""Finds the script that an interpreter was started for, by its command line. Pure.

The table ``GRAMMARS`` has a grammar of the options of each interpreter, taken from its manual. The script comes after the
options. But some options have code instead of a script, others name the script, and a word after an option may be the
option's value.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

_COMM = 15
"""The kernel keeps so many bytes of a name."""


@dataclass(frozen=True)
class Grammar:
    """The options of one interpreter. A letter is an option of one dash, and a word may have several letters."""

    code: str = ""
    """Options with code: there is no script."""
    stdin: str = ""
    """Options with the meaning that the script is the standard input."""
    value: str = ""
    """Options with a value: the rest of the word, or the next word."""
    rest: str = ""
    """Options whose value is the rest of the word, if there is any."""
    next: str = ""
    """Options whose value is the next word, whatever follows them in theirs: shells' ``-euo pipefail``."""
    file: str = ""
    """Options whose value (as for ``value``) is the script."""
    module: str = ""
    """Options whose value is a module, with dots; it may be one of the directory where the process is."""
    values: frozenset[str] = frozenset()
    """Whole words that are followed by a value."""
    files: frozenset[str] = frozenset()
    """Whole words that are followed by the script."""
    codes: frozenset[str] = frozenset()
    """Whole words that have code."""
    whole: bool = False
    """Whether options of one dash are whole words."""
    dash_ends: bool = False
    """Whether a single dash ends the options; else it stands for the standard input."""
    plus: bool = False
    """Whether options may begin with a plus."""
    verbs: frozenset[str] = frozenset()
    """Words that may stand among the options and mean nothing here."""
    only: str = ""
    """The end of every script's name; a word with another end is no script."""
    inline: bool = False
    """Whether the word after the options is code, unless an option names a script."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SHELL = Grammar(code="c", stdin="s", next="oO", values=_words("--rcfile --init-file --emulate"), dash_ends=True, plus=True)

GRAMMARS: dict[str, Grammar] = {
    "sh": _SHELL,
    "csh": Grammar(code="c", stdin="st", rest="D"),
    "fish": Grammar(
        code="c", value="CdDfop", codes=_words("--command"),
        values=_words("--init-command --debug --debug-output --debug-stack-frames --features --profile --profile-startup"),
    ),
    "awk": Grammar(
        value="FveilW", file="fE", files=_words("--file --exec"), inline=True,
        values=_words("--field-separator --assign --source --include --load"),
    ),
    "sed": Grammar(
        value="el", rest="i", file="f", files=_words("--file"), inline=True, values=_words("--expression --line-length"),
    ),
    "python": Grammar(code="c", module="m", value="WXQ", values=_words("--check-hash-based-pycs")),
    "perl": Grammar(code="eE", value="I", rest="FimMxCDV"),
    "ruby": Grammar(
        code="e", value="CEIrX", rest="FixKW",
        values=_words("--encoding --external-encoding --internal-encoding --enable --disable --dump --backtrace-limit"),
    ),
    "php": Grammar(
        code="rBRE", value="cdztSb", file="fF", files=_words("--file --process-file"),
        values=_words("--php-ini --define --zend-extension --docroot --server --bindpath"),
        codes=_words("--run --process-code --process-begin --process-end"),
    ),
    "node": Grammar(
        code="ep", value="rC", codes=_words("--eval --print --run"),
        values=_words(
            "--require --import --loader --experimental-loader --conditions --env-file --env-file-if-exists --input-type"
            " --max-http-header-size --icu-data-dir --openssl-config --redirect-warnings --report-dir --report-directory"
            " --report-filename --title --tls-keylog --trace-event-categories --unhandled-rejections --diagnostic-dir"
            " --dns-result-order --disable-warning --heapsnapshot-signal --watch-path --test-name-pattern"
            " --test-reporter --test-reporter-destination --cpu-prof-dir --cpu-prof-name --heap-prof-dir"
            " --heap-prof-name --localstorage-file --secure-heap --secure-heap-min --inspect-port --debug-port"
        ),
    ),
    "lua": Grammar(value="el"),
    "tclsh": Grammar(whole=True, values=_words("-encoding")),
    "expect": Grammar(value="cD", file="fb"),
    "R": Grammar(
        whole=True, files=_words("-f --file"), codes=_words("-e"), inline=True, values=_words("-g --gui -d --debugger"),
    ),
    "guile": Grammar(
        whole=True, code="", codes=_words("-c"), files=_words("-s"),
        values=_words("-L -C -l -x -e -p --language --listen"),
    ),
    "java": Grammar(
        whole=True, files=_words("-jar"), codes=_words("-m --module"), only=".java",
        values=_words(
            "-cp -classpath --class-path -p --module-path --upgrade-module-path --add-modules --limit-modules"
            " --enable-native-access -d --describe-module --add-reads --add-exports --add-opens --patch-module --source"
        ),
    ),
    "dotnet": Grammar(
        whole=True, only=".dll", verbs=_words("exec"),
        values=_words(
            "--additionalprobingpath --additional-deps --depsfile --runtimeconfig --fx-version --roll-forward"
            " --roll-forward-on-no-candidate-fx"
        ),
    ),
}  # fmt: skip
"""By kind of interpreter: bash(1), dash(1), zsh(1), python3(1), perlrun(1), ruby(1), php(1), node(1), lua(1), tclsh(1),
guile(1), java(1), dotnet(1), tcsh(1), fish(1), gawk(1), mawk(1), sed(1), expect(1), R(1)."""

_KINDS = {
    "nodejs": "node", "luajit": "lua", "php-cgi": "php", "pypy": "python", "tcsh": "csh", "tcl": "tclsh", "jvm": "java",
    "gawk": "awk", "mawk": "awk", "nawk": "awk", "original-awk": "awk",
}  # fmt: skip
_SHELLS = re.compile(r"(?:ba|da|k|mk|lk|pdk|z|a|ya|po|hu)?sh[0-9.]*")
_NAME = re.compile(
    r"(python|pypy|perl|ruby|php-cgi|php|luajit|lua|tclsh|guile|nodejs|node|java|dotnet|t?csh|fish|[gmn]?awk|original-awk|sed"
    r"|expect|R)[0-9.-]*"
)
_LIBRARY = re.compile(r"lib(python|perl|ruby|php|luajit|lua|tcl|guile|node|jvm|R)[0-9.-]*\.so[0-9.]*")
"""Libraries with an interpreter, which servers have within them: uwsgi, snmpd, apache2."""
_BOXES = re.compile(r"(?:busy|toy)box(?:-static)?")
"""Programs that are many: the first word of the command line, or the second one, says which."""

SEARCHED = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin")
"""Directories where interpreters look for a script whose name has no slash: bash, and others with -S."""
STDIN = "/dev/stdin"
DESCRIPTORS = re.compile(r"/dev/stdin|(?:/dev/fd|/proc/self/fd)/([0-9]{1,9})")
"""Names of files that the interpreter has open."""

MODULES = {
    "python": re.compile(r"/usr/lib/(?:python|pypy)[0-9.]*/|/usr/lib/[^/]+/python"),
    "perl": re.compile(r"/usr/share/perl|/usr/lib/[^/]+/perl|/etc/perl/"),
    "ruby": re.compile(r"/usr/lib/ruby/|/usr/share/rubygems|/usr/share/ruby|/usr/lib/[^/]+/ruby"),
    "php": re.compile(r"/usr/share/php|/usr/lib/php/"),
    "node": re.compile(r"/usr/share/nodejs/|/usr/lib/nodejs/|/usr/lib/[^/]+/nodejs/|/usr/share/javascript/"),
    "lua": re.compile(r"/usr/share/lua|/usr/lib/[^/]+/lua"),
    "tclsh": re.compile(r"/usr/share/tcltk/|/usr/lib/tcltk/|/usr/lib/[^/]+/tcl"),
    "guile": re.compile(r"/usr/share/guile/|/usr/lib/[^/]+/guile/"),
    "java": re.compile(r"/usr/share/java/|/usr/share/maven-repo/|/usr/lib/jvm/"),
    "dotnet": re.compile(r"/usr/share/dotnet/|/usr/lib/dotnet/"),
    "R": re.compile(r"/usr/lib/R/(?:site-)?library/"),
}
"""The directories where the distribution has modules that an interpreter reads at run time, without mapping them."""


@functools.lru_cache(1024)
def kind_of(program: str) -> str | None:
    """The kind of interpreter that the program is; None: it is none. Remembered, as many processes run the same program."""
    name = os.path.basename(program)
    if _SHELLS.fullmatch(name):
        return "sh"
    found = _NAME.fullmatch(name)
    return None if found is None else _KINDS.get(found[1], found[1])


def kinds_of(program: str, libraries: Iterable[str]) -> list[str]:
    """The kinds of interpreters that a process has, whose modules it may have read: as its program, or as a library."""
    found = {kind_of(program), *map(_kind_of_library, libraries)}
    return sorted(kind for kind in found if kind in MODULES)


@functools.lru_cache(4096)
def _kind_of_library(path: str) -> str | None:
    found = _LIBRARY.fullmatch(os.path.basename(path))
    return None if found is None else _KINDS.get(found[1], found[1])


@functools.lru_cache(1024)
def may_be_script(program: str, comm: str) -> bool:
    """Whether a process may run a script. A process named after its program runs none, unless that is an interpreter."""
    name = os.path.basename(program)
    other = os.fsencode(name)[:_COMM] != os.fsencode(comm)
    return other or kind_of(program) is not None or _BOXES.fullmatch(name) is not None


def script_of(program: str, arguments: Sequence[str], comm: str) -> str | None:
    """The script of a process, as its command line has it; None if it runs none.

    The kernel starts a script as ``INTERPRETER [OPTION] SCRIPT …`` and names the process after the script. People
    start ``INTERPRETER [OPTION…] SCRIPT …``. What is read from an open file has one of the names ``DESCRIPTORS``.
    """
    for word in arguments[1:3]:
        name = os.path.basename(word)
        if name and "/" in word and name.encode("utf-8", "surrogateescape")[:_COMM] == os.fsencode(comm):
            return word
    name = os.path.basename(program)
    if _BOXES.fullmatch(name):
        if arguments and _BOXES.fullmatch(os.path.basename(arguments[0])):
            arguments = arguments[1:]
        name = os.path.basename(arguments[0]).lstrip("-") if arguments else ""
    kind = kind_of(name)
    return None if kind is None else _script(GRAMMARS[kind], arguments[1:])


def _script(grammar: Grammar, arguments: Sequence[str]) -> str | None:
    words = iter(arguments)
    for word in words:
        if word == "--" or (word == "-" and grammar.dash_ends):
            return _only(grammar, next(words, None))
        name, equals, value = word.partition("=")
        if word == "-" or name in grammar.codes:
            return _none(grammar) if word == "-" else None
        if word in grammar.verbs:
            continue
        if name in grammar.files:
            return value if equals else _next(words)
        if not (word.startswith("-") or (grammar.plus and word.startswith("+"))):
            return _only(grammar, word)
        if word in grammar.values:
            next(words, None)
        elif not word.startswith("--") and not grammar.whole:
            outcome = _letters(grammar, word[1:])
            for _ in range(outcome.words):
                after = next(words, None)
                if outcome.file is not None:
                    return outcome.named(after)
            if outcome.file is not None or outcome.code:
                return outcome.named(outcome.file)
    return _none(grammar)


def _next(words: Iterator[str]) -> str | None:
    return next(words, None)


def _none(grammar: Grammar) -> str | None:
    """The script of a command line that names none."""
    return None if grammar.only or grammar.inline else STDIN


def _only(grammar: Grammar, word: str | None) -> str | None:
    """The script, unless the word is another one before it, a class or code: ``dotnet exec APP.dll``, ``java Main``."""
    if word is None:
        return _none(grammar)
    return word if word and not grammar.inline and word.endswith(grammar.only) else None


def file_names(script: str, above: str) -> Iterator[str]:
    """The names that a script may have which is asked for as ``script``, the likeliest first: a directory or a file with an
    end that goes without saying, or one in the path of programs. ``above``: the directory where the name begins."""
    whole = f"{above}{script.removeprefix('/')}"
    yield whole
    if "/" not in script:
        yield from (f"{directory}/{script}" for directory in SEARCHED)
    yield from (f"{whole}{end}" for end in ("/__main__.py", ".py", "/index.js", ".js", ".mjs", ".cjs"))


@dataclass(frozen=True)
class _Outcome:
    words: int = 0
    """The number of following words that belong to the options."""
    file: str | None = None
    """The script that the options name; empty: it is the next word."""
    code: bool = False
    module: bool = False

    def named(self, word: str | None) -> str | None:
        """The script, if that is ``word``."""
        return word and f"./{word.replace('.', '/')}" if self.module else word


def _letters(grammar: Grammar, letters: str) -> _Outcome:
    """The meaning of a word of options."""
    words = 0
    for at, letter in enumerate(letters):
        rest = letters[at + 1 :]
        if letter in grammar.code:
            return _Outcome(code=True)
        if letter in grammar.stdin:
            return _Outcome(file=STDIN)
        if letter in grammar.file + grammar.module:
            return _Outcome(words + (not rest), rest, module=letter in grammar.module)
        if letter in grammar.value:
            return _Outcome(words + (not rest))
        if letter in grammar.rest or letter in ":=":
            return _Outcome(words)
        words += letter in grammar.next
    return _Outcome(words)
