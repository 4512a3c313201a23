"""The script of an interpreter's command line. Each line is from, or made after, the interpreter's own manual."""

from __future__ import annotations

import shlex

import pytest

from lxcfleet.patch.stale.scripts import (
    DESCRIPTORS,
    GRAMMARS,
    MODULES,
    STDIN,
    file_names,
    kind_of,
    kinds_of,
    may_be_script,
    script_of,
)

S = "/srv/job"

WITH = [
    # bash(1): options, then the script; -o and -O take the next word, and so do --rcfile and --init-file
    f"bash -euo pipefail {S}", f"bash -o pipefail -e {S}", f"bash -eo pipefail -O extglob {S}", f"bash +O extglob {S}",
    f"bash +euo pipefail {S}", f"bash --rcfile /etc/rc {S}", f"bash --norc --posix -x {S} -c arg", f"bash -- {S}",
    f"bash - {S}", f"bash -l {S}", f"bash -oo errexit nounset {S}", f"dash -eu {S}", f"dash -o errexit {S}",
    f"zsh -o no_rcs -f {S}", f"zsh --emulate sh {S}", f"ksh -o posix {S}", f"sh {S} -s",
    # python3(1)
    f"python3 -Werror {S}", f"python3 -Wignore::DeprecationWarning:cmd {S}", f"python3 -W ignore {S}", f"python3 {S} -c x",
    f"python3 -X importtime {S}", f"python3 -Xdev -u {S}", f"python3 -bb -EsOO {S}",
    f"python3.11 -IP {S}",
    f"python3 --check-hash-based-pycs always {S}", f"python3 -uW default {S}", f"python3 -P -- {S}",
    # perlrun(1)
    f"perl -I/opt/lib {S}", f"perl -I /opt/lib -w {S}", f"perl -Mstrict {S}", f"perl -MList::Util=sum {S}", f"perl -wT {S}",
    f"perl -0777 -n {S}", f"perl -F: -an {S}", f"perl -i.orig -p {S}", f"perl -CSD {S}", f"perl -d:NYTProf {S}",
    f"perl -x/srv {S}", f"perl -mModule {S}", f"perl -l012 -n {S}", f"perl -V:e {S}", f"perl -t -- {S}",
    # ruby(1)
    f"ruby -r bundler/setup {S}", f"ruby -rset {S}", f"ruby -Ilib {S}", f"ruby -I lib -w {S}", f"ruby -C /srv {S}",
    f"ruby -W:no-deprecated {S}", f"ruby -W2 {S}", f"ruby -Eutf-8 {S}", f"ruby -E utf-8 {S}", f"ruby --encoding utf-8 {S}",
    f"ruby --disable gems {S}", f"ruby --disable=gems {S}", f"ruby -p -i.bak {S}", f"ruby -Ke {S}",
    # php(1)
    f"php -d memory_limit=1G {S}", f"php -dmemory_limit=1G {S}", f"php -c /etc/php.ini {S}", f"php -n -q {S}", f"php -f {S}",
    f"php -f{S}", f"php --file {S}", f"php --define foo=bar {S}", f"php -z ext.so {S}", f"php -S 0:80 -t /srv {S}",
    f"php -F {S}", f"php8.2 -d a=b -- {S}", f"php-cgi -b /run/s {S}", f"php --process-file {S}",
    # node(1)
    f"node -r dotenv/config {S}", f"node --require dotenv/config {S}", f"node --import tsx {S}", f"node --inspect {S}",
    f"node --max-old-space-size=4096 {S}", f"node --env-file .env {S}", f"node -C dev {S}", f"nodejs --title x {S}",
    f"node --no-warnings -- {S}", f"node {S} -e x", f"node --loader ts-node/esm {S}",
    # lua(1): -e is run before the script
    f"lua -e x=1 {S}", f"lua5.4 -l mod {S}", f"lua -lmod -E {S}", f"luajit -- {S}",
    # tclsh(1), guile(1)
    f"tclsh -encoding utf-8 {S}", f"tclsh8.6 {S}", f"guile -s {S} arg", f"guile -L /opt -e main -s {S}",
    f"guile-3.0 --no-auto-compile {S}",
    # java(1), dotnet(1)
    "java -jar /srv/app.jar", "java -Xmx1g -Dkey=value -jar /srv/app.jar --port 1", "java -cp /a:/b -jar /srv/app.jar",
    "java --add-opens java.base/java.lang=ALL-UNNAMED -jar /srv/app.jar", "java --enable-preview --source 21 /srv/Main.java",
    "dotnet /srv/app.dll", "dotnet exec --runtimeconfig /srv/rc.json /srv/app.dll",
    "dotnet --fx-version 8.0.1 /srv/app.dll arg",
    "dotnet --roll-forward Major /srv/app.dll",
    # tcsh(1), fish(1), gawk(1), mawk(1), sed(1), expect(1), R(1)
    f"tcsh -f {S}", f"csh -Dx=y {S}", f"fish -N -C 'set x y' {S}", f"fish --init-command x {S}", f"fish {S} -c x",
    f"awk -F : -v a=b -f {S} data", f"gawk --file={S} data", f"gawk -E {S}", f"mawk -W interactive -f {S}", f"awk -f{S}",
    f"gawk -i inplace --exec {S}", f"sed -n -i.bak -f {S} data", f"sed --file={S} data", f"expect -f {S}", f"expect -d {S} a",
    f"expect -c 'set x 1' {S}", f"R --no-echo --no-restore --file={S} --args a", f"R -f {S}", f"pypy3 -u {S}",
    # busybox: each of its applets
    f"busybox sh -e {S}", f"busybox awk -f {S}", f"/bin/busybox ash {S}",
    # the same with an equals sign
    f"php --file={S}",
]  # fmt: skip

WITHOUT = [
    "bash -c /srv/job", "bash -euc /srv/job", "dash -c 'x' /srv/job",
    "python3 -c pass /srv/job",
    "python3 -Wd -c x",
    "perl -e 1 /srv/job", "perl -wne 1 /srv/job", "perl -lE 1 f", "perl -I /opt -e 1 f", "perl -0777pe 1 f",
    "ruby -e 1 /srv/job", "ruby -rset -ne 1 f", "php -r 1 /srv/job", "php --run x f", "php -R x f", "php -B x f",
    "node -e 1 /srv/job", "node -pe 1", "node --eval 1 f", "node --eval=1 f", "node -p 1 f",
    "guile -c 1 f", "fish -c x f", "fish --command=x f", "tcsh -c x f", "awk '{print}' /srv/job",
    "awk -F: '{print $1}' /srv/x",
    "gawk -v a=b 1 f", "sed -n p /srv/job", "sed -e p /srv/job", "R -e 1", "R --no-save", "busybox sleep /srv/job",
    "busybox", "busybox sh -c x /srv/job", "busybox httpd -f /srv/job",
    "java Main /srv/x.jar", "java -cp /srv/x.jar Main", "java -m mod/Main f.java", "dotnet build", "dotnet --info",
]  # fmt: skip


READING = [
    "bash", "bash -i", "bash -s arg", "bash -o vi", "sh -eu", "dash -", "python3 -", "python3 -u", "perl -", "perl -w",
    "ruby -", "node -", "node -r x", "lua -", "php", "tcsh -s", "busybox sh", "bash /dev/stdin", "bash -",
]  # fmt: skip


@pytest.mark.parametrize("line", READING)
def test_a_script_may_be_the_standard_input(line: str) -> None:
    arguments = shlex.split(line)
    assert script_of(f"/usr/bin/{arguments[0]}", arguments, arguments[0]) == STDIN


@pytest.mark.parametrize("line", WITH)
def test_the_script_is_found_behind_options(line: str) -> None:
    arguments = shlex.split(line)
    assert script_of(f"/usr/bin/{arguments[0]}", arguments, arguments[0]) in (
        S, "/srv/app.jar", "/srv/app.dll", "/srv/Main.java",
    )  # fmt: skip


@pytest.mark.parametrize("line", WITHOUT)
def test_code_classes_and_modules_are_no_scripts(line: str) -> None:
    arguments = shlex.split(line)
    assert script_of(f"/usr/bin/{arguments[0]}", arguments, arguments[0]) is None


def test_the_kernel_names_a_process_after_its_script() -> None:
    """``#!/usr/bin/tool -x``: whatever the tool is."""
    long = "/srv/a-job-with-a-long-name"
    assert script_of("/usr/bin/tool", ["tool", "-x", long], "a-job-with-a-lo") == long
    assert script_of("/usr/bin/tool", ["tool", "/srv/job"], "job") == "/srv/job"
    assert script_of("/usr/bin/tool", ["tool", "/srv/other"], "tool") is None
    assert script_of("/usr/bin/busybox", ["/bin/sh", "/srv/job"], "job") == "/srv/job"
    assert script_of("/usr/bin/busybox", ["sh", "/srv/job"], "sh") == "/srv/job"
    assert script_of("/usr/bin/busybox", ["-sh"], "sh") == STDIN
    assert script_of("/usr/bin/busybox", [], "sh") is None
    assert may_be_script("/usr/bin/busybox", "busybox")
    assert may_be_script("/usr/bin/python3.11", "python3")
    assert not may_be_script("/usr/bin/sleep", "sleep")


@pytest.mark.parametrize(
    ("program", "kind"),
    [
        ("/usr/bin/python3.11", "python"), ("/usr/bin/perl", "perl"), ("/usr/bin/perl5.36.0", "perl"), ("/bin/bash", "sh"),
        ("/usr/bin/dash", "sh"), ("/usr/bin/ksh93", "sh"), ("/usr/bin/nodejs", "node"), ("/usr/bin/php8.2", "php"),
        ("/usr/lib/jvm/java-17-openjdk-amd64/bin/java", "java"), ("/usr/bin/lua5.4", "lua"), ("/usr/bin/guile-3.0", "guile"),
        ("/usr/bin/rubyfoo", None), ("/usr/bin/sshd", None), ("/usr/bin/ssh", None),
        ("/usr/bin/fish", "fish"), ("/usr/bin/mawk", "awk"), ("/usr/bin/tcsh", "csh"), ("/usr/bin/pypy3", "python"),
    ],
)  # fmt: skip
def test_interpreters_are_told_by_their_names(program: str, kind: str | None) -> None:
    assert kind_of(program) == kind
    assert kind is None or kind in GRAMMARS


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("python", "/usr/lib/python3/dist-packages/urllib3/response.py"), ("python", "/usr/lib/python3.11/json/decoder.py"),
        ("perl", "/usr/share/perl5/LWP.pm"), ("perl", "/usr/lib/x86_64-linux-gnu/perl5/5.36/DBI.pm"),
        ("ruby", "/usr/lib/ruby/vendor_ruby/rack.rb"), ("php", "/usr/share/php/Psr/Log/functions.php"),
        ("node", "/usr/share/nodejs/express/index.js"), ("java", "/usr/share/java/log4j.jar"),
    ],
)  # fmt: skip
def test_modules_are_told_by_their_places(kind: str, path: str) -> None:
    assert MODULES[kind].match(path)
    assert not MODULES[kind].match("/usr/share/doc/x")


def test_each_interpreter_of_modules_has_a_grammar() -> None:
    assert MODULES.keys() <= GRAMMARS.keys()


@pytest.mark.parametrize(
    ("program", "libraries", "kinds"),
    [
        ("/usr/bin/uwsgi-core", ["/usr/lib/x86_64-linux-gnu/libpython3.11.so.1.0", "/usr/lib/uwsgi/x.so"], ["python"]),
        ("/usr/sbin/snmpd", ["/usr/lib/x86_64-linux-gnu/libperl.so.5.36.0"], ["perl"]),
        ("/usr/sbin/apache2", ["/usr/lib/apache2/modules/libphp8.2.so"], ["php"]),
        ("/opt/server", ["/usr/lib/jvm/java-17-openjdk-amd64/lib/server/libjvm.so"], ["java"]),
        ("/usr/bin/node", ["/usr/lib/x86_64-linux-gnu/libnode.so.108"], ["node"]),
        ("/usr/bin/expect", ["/usr/lib/x86_64-linux-gnu/libtcl8.6.so"], ["tclsh"]),
        ("/usr/bin/bash", ["/usr/lib/x86_64-linux-gnu/libc.so.6", "/usr/lib/libpythonic.so"], []),
    ],
)
def test_an_interpreter_may_be_a_library(program: str, libraries: list[str], kinds: list[str]) -> None:
    assert kinds_of(program, libraries) == kinds


def test_a_module_may_be_one_of_the_directory_where_the_process_is() -> None:
    lines = {"python3 -m http.server /srv/job": "./http/server", "python3 -um app": "./app", "python3 -mapp": "./app"}
    for line, script in lines.items():
        arguments = shlex.split(line)
        assert script_of("/usr/bin/python3.11", arguments, "python3") == script
    assert [*file_names("./app", "/srv/")][:3] == ["/srv/./app", "/srv/./app/__main__.py", "/srv/./app.py"]
    assert [*file_names("job", "/srv/")][:3] == ["/srv/job", "/usr/local/sbin/job", "/usr/local/bin/job"]


def test_the_files_that_an_interpreter_has_open() -> None:
    names = (STDIN, "/dev/fd/63", "/proc/self/fd/3")
    assert [found[1] for name in names if (found := DESCRIPTORS.fullmatch(name))] == [None, "63", "3"]
    assert DESCRIPTORS.fullmatch("/dev/fd/63/x") is None
