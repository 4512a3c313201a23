"""Finds the script that an interpreter was started for, by its command line. Pure.

The table ``GRAMMARS`` has a grammar of the options of each interpreter, taken from its manual. The script comes after the
options. But some options have code instead of a script, others name the script, and a word after an option may be the
option's value.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

_COMM = 15
"""The kernel keeps so many bytes of a name."""


@dataclass(frozen=True)
class Grammar:
    """The options of one interpreter. A letter is an option of one dash, and a word may have several letters."""

    code: str = ""
    """Options with code, or with the meaning that it comes from elsewhere: there is no script."""
    value: str = ""
    """Options with a value: the rest of the word, or the next word."""
    rest: str = ""
    """Options whose value is the rest of the word, if there is any."""
    next: str = ""
    """Options whose value is the next word, whatever follows them in theirs: shells' ``-euo pipefail``."""
    file: str = ""
    """Options whose value (as for ``value``) is the script."""
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


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SHELL = Grammar(code="cs", next="oO", values=_words("--rcfile --init-file --emulate"), dash_ends=True, plus=True)

GRAMMARS: dict[str, Grammar] = {
    "sh": _SHELL,
    "python": Grammar(code="cm", value="WXQ", values=_words("--check-hash-based-pycs")),
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
guile(1), java(1), dotnet(1)."""

_KINDS = {"nodejs": "node", "luajit": "lua", "php-cgi": "php"}
_SHELLS = re.compile(r"(?:ba|da|k|mk|lk|pdk|z|a|ya|po)?sh[0-9.]*")
_NAME = re.compile(r"(python|perl|ruby|php-cgi|php|luajit|lua|tclsh|guile|nodejs|node|java|dotnet)[0-9.-]*")

MODULES = {
    "python": re.compile(r"/usr/lib/python[0-9.]*/|/usr/lib/[^/]+/python"),
    "perl": re.compile(r"/usr/share/perl|/usr/lib/[^/]+/perl|/etc/perl/"),
    "ruby": re.compile(r"/usr/lib/ruby/|/usr/share/rubygems|/usr/share/ruby|/usr/lib/[^/]+/ruby"),
    "php": re.compile(r"/usr/share/php|/usr/lib/php/"),
    "node": re.compile(r"/usr/share/nodejs/|/usr/lib/nodejs/|/usr/lib/[^/]+/nodejs/|/usr/share/javascript/"),
    "lua": re.compile(r"/usr/share/lua|/usr/lib/[^/]+/lua"),
    "tclsh": re.compile(r"/usr/share/tcltk/|/usr/lib/tcltk/|/usr/lib/[^/]+/tcl"),
    "guile": re.compile(r"/usr/share/guile/|/usr/lib/[^/]+/guile/"),
    "java": re.compile(r"/usr/share/java/|/usr/share/maven-repo/|/usr/lib/jvm/"),
    "dotnet": re.compile(r"/usr/share/dotnet/|/usr/lib/dotnet/"),
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


@functools.lru_cache(1024)
def may_be_script(program: str, comm: str) -> bool:
    """Whether a process may run a script. A process named after its program runs none, unless that is an interpreter."""
    name = os.path.basename(program)
    return os.fsencode(name)[:_COMM] != os.fsencode(comm) or kind_of(program) is not None


def script_of(program: str, arguments: Sequence[str], comm: str) -> str | None:
    """The script of a process, as its command line has it; None if it runs none.

    The kernel starts a script as ``INTERPRETER [OPTION] SCRIPT …`` and names the process after the script. People
    start ``INTERPRETER [OPTION…] SCRIPT …``.
    """
    for word in arguments[1:3]:
        name = os.path.basename(word)
        if name and "/" in word and name.encode("utf-8", "surrogateescape")[:_COMM] == os.fsencode(comm):
            return word
    kind = kind_of(program)
    return None if kind is None else _script(GRAMMARS[kind], arguments[1:])


def _script(grammar: Grammar, arguments: Sequence[str]) -> str | None:
    words = iter(arguments)
    for word in words:
        if word == "--" or (word == "-" and grammar.dash_ends):
            return _only(grammar, next(words, None))
        if word == "-" or word in grammar.codes:
            return None
        if word in grammar.verbs:
            continue
        if word in grammar.files:
            return next(words, None)
        if not (word.startswith("-") or (grammar.plus and word.startswith("+"))):
            return _only(grammar, word)
        if word in grammar.values:
            next(words, None)
        elif not word.startswith("--") and not grammar.whole:
            outcome = _letters(grammar, word[1:])
            for _ in range(outcome.words):
                after = next(words, None)
                if outcome.file is not None:
                    return after
            if outcome.file is not None or outcome.code:
                return outcome.file
    return None


def _only(grammar: Grammar, word: str | None) -> str | None:
    """The script, unless the word is another one before the script or a class: ``dotnet exec APP.dll``, ``java Main``."""
    return word if word and (not grammar.only or word.endswith(grammar.only)) else None


@dataclass(frozen=True)
class _Outcome:
    words: int = 0
    """The number of following words that belong to the options."""
    file: str | None = None
    """The script that the options name; empty: it is the next word."""
    code: bool = False


def _letters(grammar: Grammar, letters: str) -> _Outcome:
    """The meaning of a word of options."""
    words = 0
    for at, letter in enumerate(letters):
        rest = letters[at + 1 :]
        if letter in grammar.code:
            return _Outcome(code=True)
        if letter in grammar.file:
            return _Outcome(words + (not rest), rest)
        if letter in grammar.value:
            return _Outcome(words + (not rest))
        if letter in grammar.rest or letter in ":=":
            return _Outcome(words)
        words += letter in grammar.next
    return _Outcome(words)
