"""Three-way merges: who changed an entry has it; where both did, the container's stays and it is told."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lxcfleet.base import merge
from lxcfleet.base.merge import merge_entries


def stanza(name: str, version: str, architecture: str = "amd64") -> str:
    return f"Package: {name}\nStatus: install ok installed\nArchitecture: {architecture}\nVersion: {version}\n\n"


def status(**versions: str) -> bytes:
    return "".join(stanza(name, version) for name, version in versions.items()).encode()


def versions(content: bytes) -> dict[str, str]:
    found = {}
    for part in content.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in part.splitlines())
        if fields:
            found[fields["Package"]] = fields["Version"]
    return found


def test_the_hosts_patches_arrive_and_local_packages_stay() -> None:
    merged = merge.packages(status(ssl="1", sh="1"), status(ssl="2", sh="1"), status(ssl="1", sh="1", nginx="5"))
    assert versions(merged.content) == {"ssl": "2", "sh": "1", "nginx": "5"}
    assert merged.conflicts == ()


def test_what_only_one_side_removed_is_gone() -> None:
    merged = merge.packages(status(a="1", b="1", c="1"), status(b="1", c="1"), status(a="1", c="1"))
    assert versions(merged.content) == {"c": "1"}


def test_a_package_that_both_changed_is_told_and_stays() -> None:
    merged = merge.packages(status(ssl="1"), status(ssl="2"), status(ssl="1+local"))
    assert versions(merged.content) == {"ssl": "1+local"}
    assert merged.conflicts == ("package ssl:amd64: 1+local here, 2 on the host",)


def test_removed_there_and_changed_here() -> None:
    merged = merge.packages(status(ssl="1"), b"", status(ssl="2"))
    assert versions(merged.content) == {"ssl": "2"}
    assert merged.conflicts == ("package ssl:amd64: 2 here, none on the host",)
    merged = merge.packages(status(ssl="1"), status(ssl="2"), b"")
    assert (merged.content, merged.conflicts) == (b"", ("package ssl:amd64: none here, 2 on the host",))


def test_architectures_are_packages_of_their_own() -> None:
    old = (stanza("c", "1") + stanza("c", "1", "i386")).encode()
    host = (stanza("c", "2") + stanza("c", "1", "i386")).encode()
    own = (stanza("c", "1") + stanza("c", "3", "i386")).encode()
    merged = merge.packages(old, host, own)
    assert merged.conflicts == ()
    assert merged.content == (stanza("c", "2") + stanza("c", "3", "i386")).encode()


def test_a_status_without_changes_stays_as_it_is() -> None:
    text = status(a="1", b="2")
    assert merge.packages(text, text, text).content == text


PASSWD = b"root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1::/:/usr/sbin/nologin\n"


def test_new_accounts_of_either_side() -> None:
    host = PASSWD + b"tss:x:105:110::/:/bin/false\n"
    own = PASSWD + b"app:x:998:998::/srv:/bin/sh\n"
    merged = merge.users(PASSWD, host, own)
    assert merged.content == own + b"tss:x:105:110::/:/bin/false\n"
    assert merged.conflicts == ()


def test_an_id_that_both_gave_away_is_told_and_not_given_twice() -> None:
    merged = merge.users(PASSWD, PASSWD + b"tss:x:998:998::/:/bin/false\n", PASSWD + b"app:x:998:998::/srv:/bin/sh\n")
    assert b"tss" not in merged.content
    assert merged.conflicts == ("user tss: new on the host with the id that app has here, and left out",)


def test_members_of_groups_of_both_sides() -> None:
    merged = merge.groups(b"adm:x:4:a,b\n", b"adm:x:4:a,b,host\n", b"adm:x:4:b,own\n")
    assert merged.content == b"adm:x:4:b,own,host\n"
    assert merged.conflicts == ()
    merged = merge.groups(b"adm:x:4:a\n", b"adm:x:5:a\n", b"adm:x:4:a,b\n")
    assert merged.content == b"adm:x:4:a,b\n"
    assert merged.conflicts == ("group adm: changed here and on the host",)


def test_a_password_that_was_set_here_stays() -> None:
    merged = merge.hashes(b"root:*::\n", b"root:*::\nnew:*::\n", b"root:$y$hash::\n")
    assert merged.content == b"root:$y$hash::\nnew:*::\n"
    assert merged.conflicts == ()


entries = st.dictionaries(st.sampled_from("abcd"), st.sampled_from([b"1", b"2", b"3"]))


@given(entries, entries, entries)
def test_nothing_is_invented_or_lost(old: dict[str, bytes], host: dict[str, bytes], own: dict[str, bytes]) -> None:
    result, conflicts = merge_entries(old, host, own, lambda *_: None)
    for name in "abcd":
        before, theirs, ours, got = (each.get(name) for each in (old, host, own, result))
        assert got in (theirs, ours)
        if theirs == before:
            assert got == ours
        elif ours == before:
            assert got == theirs
        assert (name in conflicts) == (len({theirs, before, ours}) == 3)
        if name in conflicts:
            assert got == ours


@given(entries, entries)
def test_without_changes_of_ones_own_one_has_the_hosts(old: dict[str, bytes], host: dict[str, bytes]) -> None:
    assert merge_entries(old, host, old, lambda *_: None) == (host, [])


@given(entries, entries, entries)
def test_merging_again_changes_nothing(old: dict[str, bytes], host: dict[str, bytes], own: dict[str, bytes]) -> None:
    """A crash after the file was written and before that was noted."""
    once, _ = merge_entries(old, host, own, lambda *_: None)
    assert merge_entries(old, host, once, lambda *_: None)[0] == once


@given(st.binary(max_size=80), st.binary(max_size=80), st.binary(max_size=80))
def test_damaged_files_do_not_stop_it(old: bytes, host: bytes, own: bytes) -> None:
    for each in merge.MERGES.values():
        each(old, host, own)
