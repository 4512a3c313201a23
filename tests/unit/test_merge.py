"""Three-way merges: an entry is taken from the side that changed it. If both did, the container's stays and that is told."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lxcfleet.base.merge import records
from lxcfleet.base.merge.records import merge_entries


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
    merged = records.packages(status(ssl="1", sh="1"), status(ssl="2", sh="1"), status(ssl="1", sh="1", nginx="5"))
    assert versions(merged.content) == {"ssl": "2", "sh": "1", "nginx": "5"}
    assert merged.conflicts == ()


def test_an_entry_that_only_one_side_removed_is_gone() -> None:
    merged = records.packages(status(a="1", b="1", c="1"), status(b="1", c="1"), status(a="1", c="1"))
    assert versions(merged.content) == {"c": "1"}


def test_a_package_that_both_sides_changed_is_told_and_stays() -> None:
    merged = records.packages(status(ssl="1"), status(ssl="2"), status(ssl="1+local"))
    assert versions(merged.content) == {"ssl": "1+local"}
    assert merged.conflicts == ("package ssl:amd64: 1+local here, 2 on the host",)


def test_a_package_that_the_host_removed_and_the_container_changed() -> None:
    merged = records.packages(status(ssl="1"), b"", status(ssl="2"))
    assert versions(merged.content) == {"ssl": "2"}
    assert merged.conflicts == ("package ssl:amd64: 2 here, none on the host",)
    merged = records.packages(status(ssl="1"), status(ssl="2"), b"")
    assert (merged.content, merged.conflicts) == (b"", ("package ssl:amd64: none here, 2 on the host",))


def test_architectures_are_packages_of_their_own() -> None:
    old = (stanza("c", "1") + stanza("c", "1", "i386")).encode()
    host = (stanza("c", "2") + stanza("c", "1", "i386")).encode()
    own = (stanza("c", "1") + stanza("c", "3", "i386")).encode()
    merged = records.packages(old, host, own)
    assert merged.conflicts == ()
    assert merged.content == (stanza("c", "2") + stanza("c", "3", "i386")).encode()


def test_a_status_without_changes_stays_as_it_is() -> None:
    text = status(a="1", b="2")
    assert records.packages(text, text, text).content == text


PASSWD = b"root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1::/:/usr/sbin/nologin\n"


def test_new_accounts_of_either_side() -> None:
    host = PASSWD + b"tss:x:105:110::/:/bin/false\n"
    own = PASSWD + b"app:x:998:998::/srv:/bin/sh\n"
    merged = records.users(PASSWD, host, own)
    assert merged.content == own + b"tss:x:105:110::/:/bin/false\n"
    assert merged.conflicts == ()


def test_an_id_that_both_sides_gave_away_is_told_and_not_given_twice() -> None:
    merged = records.users(PASSWD, PASSWD + b"tss:x:998:998::/:/bin/false\n", PASSWD + b"app:x:998:998::/srv:/bin/sh\n")
    assert b"tss" not in merged.content
    assert merged.conflicts == ("user tss: new on the host with the id that app has here, and left out",)


def test_members_of_groups_of_both_sides() -> None:
    merged = records.groups(b"adm:x:4:a,b\n", b"adm:x:4:a,b,host\n", b"adm:x:4:b,own\n")
    assert merged.content == b"adm:x:4:b,own,host\n"
    assert merged.conflicts == ()
    merged = records.groups(b"adm:x:4:a\n", b"adm:x:5:a\n", b"adm:x:4:a,b\n")
    assert merged.content == b"adm:x:4:a,b\n"
    assert merged.conflicts == ("group adm: changed here and on the host",)


def test_a_password_that_was_set_in_the_container_stays() -> None:
    merged = records.hashes(b"root:*::\n", b"root:*::\nnew:*::\n", b"root:$y$hash::\n")
    assert merged.content == b"root:$y$hash::\nnew:*::\n"
    assert merged.conflicts == ()


def test_an_id_that_the_host_gave_to_an_old_account_is_not_given_twice() -> None:
    old = PASSWD + b"tss:x:105:110::/:/bin/false\n"
    own = old + b"app:x:998:998::/srv:/bin/sh\n"
    merged = records.users(old, PASSWD + b"tss:x:998:110::/:/bin/false\n", own)
    assert merged.content == own
    assert merged.conflicts == ("user tss: changed on the host, to the id that app has here, and left as it is",)


GROUPS = b"root:x:0:\nadm:x:4:\n"
APP = b"app:x:1000:1000::/srv:/bin/sh\n"


def test_a_user_whose_group_is_left_out_is_left_out() -> None:
    """Otherwise the user would get the rights of the container's group with that id."""
    old = {records.PASSWD: PASSWD, records.GROUP: GROUPS}
    host = {records.PASSWD: PASSWD + b"foo:x:998:998::/:/bin/false\n", records.GROUP: GROUPS + b"foo:x:998:\n"}
    own = {records.PASSWD: PASSWD + APP, records.GROUP: GROUPS + b"secretreaders:x:998:app\n"}
    merged, conflicts = records.merge(old, host, own)
    assert merged == own
    assert conflicts == [
        "user foo: new on the host with the group id that secretreaders has here, and left out",
        "group foo: new on the host with the id that secretreaders has here, and left out",
    ]
    assert records.merge(old, host, merged) == (merged, conflicts)  # as after a crash before the new base was noted
    # At the next merge the group is not new any more, and stays away. Users that join it later do so, too.
    later = {**host, records.PASSWD: host[records.PASSWD] + b"bar:x:997:998::/:/bin/false\n"}
    users, conflicts = records.merge(host, later, own)
    assert users == {records.PASSWD: own[records.PASSWD]}
    assert conflicts == ["user bar: new on the host with the group id that secretreaders has here, and left out"]


def test_a_user_stays_in_its_group_if_the_hosts_is_left_out() -> None:
    old = {records.PASSWD: PASSWD + b"foo:x:997:997::/:/bin/false\n", records.GROUP: GROUPS + b"foo:x:997:\n"}
    host = {records.PASSWD: PASSWD + b"foo:x:997:998::/:/bin/false\n", records.GROUP: GROUPS + b"foo:x:998:\n"}
    own = {records.PASSWD: old[records.PASSWD] + APP, records.GROUP: old[records.GROUP] + b"secretreaders:x:998:app\n"}
    merged, conflicts = records.merge(old, host, own)
    assert merged == own
    assert conflicts == [
        "user foo: changed on the host, to the group id that secretreaders has here, and left as it is",
        "group foo: changed on the host, to the id that secretreaders has here, and left as it is",
    ]


def test_a_user_whose_group_is_missing_in_the_container_is_left_out() -> None:
    """Another group may get that id there."""
    old = {records.PASSWD: PASSWD, records.GROUP: GROUPS}
    host = {records.PASSWD: PASSWD + b"foo:x:998:4::/:/bin/false\n", records.GROUP: GROUPS}
    own = {records.PASSWD: PASSWD + APP, records.GROUP: b"root:x:0:\n"}
    merged, conflicts = records.merge(old, host, own)
    assert merged == {records.PASSWD: own[records.PASSWD]}
    assert conflicts == ["user foo: new on the host with the group adm, which is not here, and left out"]


def test_users_whose_groups_are_the_same_arrive() -> None:
    old = {records.PASSWD: PASSWD, records.GROUP: GROUPS}
    new = b"foo:x:998:998::/:/bin/false\nbar:x:997:4::/:/bin/false\nodd:x:996:12345::/:/bin/false\n"
    host = {records.PASSWD: PASSWD + new, records.GROUP: GROUPS + b"foo:x:998:\n"}
    own = {records.PASSWD: PASSWD + APP}
    for each in (own, {**own, records.GROUP: GROUPS + b"app:x:1000:\n"}):
        merged, conflicts = records.merge(old, host, each)
        assert (merged[records.PASSWD], conflicts) == (PASSWD + APP + new, [])


def test_a_container_with_groups_only_is_told() -> None:
    """The container has the host's passwd, so there is no file of its own from which users could be left out."""
    old = {records.PASSWD: PASSWD, records.GROUP: GROUPS}
    host = {records.PASSWD: PASSWD + b"foo:x:998:998::/:/bin/false\n", records.GROUP: GROUPS + b"foo:x:998:\n"}
    own = {records.GROUP: GROUPS + b"secretreaders:x:998:\n"}
    merged, conflicts = records.merge(old, host, own)
    assert merged == own
    assert conflicts[1:] == ["user foo: new on the host with the group id that secretreaders has here"]
    assert records.merge(host, {**host, records.GROUP: host[records.GROUP] + b"more:x:900:\n"}, own)[1] == []


def test_a_file_that_the_host_has_not_changed_stays_as_it_is() -> None:
    odd = b"\n# a comment\nroot:x:0:0:root:/root:/bin/bash\n\n"
    old, host = {records.PASSWD: PASSWD, records.GROUP: GROUPS}, {records.PASSWD: PASSWD, records.GROUP: GROUPS + b"x:x:5:\n"}
    merged, conflicts = records.merge(old, host, {records.PASSWD: odd, records.GROUP: GROUPS})
    assert (merged, conflicts) == ({records.GROUP: host[records.GROUP]}, [])


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
def test_a_container_without_changes_of_its_own_gets_the_hosts_files(old: dict[str, bytes], host: dict[str, bytes]) -> None:
    assert merge_entries(old, host, old, lambda *_: None) == (host, [])


@given(entries, entries, entries)
def test_merging_again_changes_nothing(old: dict[str, bytes], host: dict[str, bytes], own: dict[str, bytes]) -> None:
    """This happens after a crash between the write of the file and the note of the new base."""
    once, _ = merge_entries(old, host, own, lambda *_: None)
    assert merge_entries(old, host, once, lambda *_: None)[0] == once


@given(entries, entries, entries)
def test_to_another_base_and_back_again(old: dict[str, bytes], new: dict[str, bytes], own: dict[str, bytes]) -> None:
    """A patch, a rollback, the patch again: whoever has no conflict has what he had, and the third time is as the first."""

    def moved(before: dict[str, bytes], after: dict[str, bytes], mine: dict[str, bytes]) -> tuple[dict[str, bytes], set[str]]:
        result, conflicts = merge_entries(before, after, mine, lambda *_: None)
        return result, {*conflicts}

    there, conflicts = moved(old, new, own)
    back, more = moved(new, old, there)
    again, yet_more = moved(old, new, back)
    for name in "abcd":
        if name not in conflicts | more | yet_more:
            # What was the same on the other base by chance counts as the base's from then on.
            if own.get(name) != new.get(name) or own.get(name) == old.get(name):
                assert back.get(name) == own.get(name)
            assert again.get(name) == there.get(name)
        if name in conflicts:
            assert own.get(name) == there.get(name)


def test_packages_and_accounts_of_a_containers_own_survive_both_directions() -> None:
    old = {
        records.STATUS: status(ssl="1", gone="1"), records.PASSWD: PASSWD, records.GROUP: GROUPS,
        "/etc/shadow": b"root:*:1::::::\n",
    }  # fmt: skip
    new = {
        records.STATUS: status(ssl="2", fresh="1"), records.PASSWD: PASSWD + b"tss:x:105:110::/:/bin/false\n",
        records.GROUP: GROUPS + b"tss:x:110:\n", "/etc/shadow": b"root:*:1::::::\ntss:!:2::::::\n",
    }  # fmt: skip
    own = {
        records.STATUS: status(ssl="1", gone="1", nginx="5"), records.PASSWD: PASSWD + b"app:x:998:998::/srv:/bin/sh\n",
        records.GROUP: GROUPS + b"app:x:998:\n", "/etc/shadow": b"root:*:1::::::\napp:secret:3::::::\n",
    }  # fmt: skip
    there, conflicts = records.merge(old, new, own)
    back, more = records.merge(new, old, there)
    again, yet_more = records.merge(old, new, back)
    assert (conflicts, more, yet_more) == ([], [], [])
    assert versions(there[records.STATUS]) == {"ssl": "2", "nginx": "5", "fresh": "1"}
    assert {path: sorted(text.split(b"\n")) for path, text in back.items()} == {
        path: sorted(text.split(b"\n")) for path, text in own.items()
    }
    assert {path: sorted(text.split(b"\n")) for path, text in again.items()} == {
        path: sorted(text.split(b"\n")) for path, text in there.items()
    }


@given(st.binary(max_size=80), st.binary(max_size=80), st.binary(max_size=80))
def test_damaged_files_do_not_stop_the_merge(old: bytes, host: bytes, own: bytes) -> None:
    for each in records.MERGES.values():
        each(old, host, own)


accounts = st.dictionaries(st.sampled_from("abcd"), st.tuples(st.integers(1, 4), st.integers(1, 4)))
named = st.dictionaries(st.sampled_from("abcd"), st.integers(1, 4))
Side = tuple[dict[str, tuple[int, int]], dict[str, int]]
sides = st.tuples(accounts, named)


def files(side: Side) -> records.Files:
    users, groups = side
    return {
        records.PASSWD: "".join(f"{name}:x:{uid}:{gid}::/:/bin/sh\n" for name, (uid, gid) in users.items()).encode(),
        records.GROUP: "".join(f"{name}:x:{gid}:\n" for name, gid in groups.items()).encode(),
    }


@given(sides, sides, sides)
def test_the_hosts_users_are_in_no_group_of_the_containers(old: Side, host: Side, own: Side) -> None:
    seen = {**files(own), **records.merge(files(old), files(host), files(own))[0]}
    groups = [line.split(":") for line in seen[records.GROUP].decode().splitlines()]
    for line in seen[records.PASSWD].decode().splitlines():
        name, _, _, gid = line.split(":")[:4]
        if name not in own[0] or int(gid) != own[0][name][1]:
            here = {group[0] for group in groups if group[2] == gid}
            there = {group for group, number in host[1].items() if number == int(gid)}
            assert here & there or not here | there
