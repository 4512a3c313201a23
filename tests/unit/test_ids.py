"""Uid ranges: which ones may be handed out, and that none is handed out twice."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxcfleet.capacity.ids import IdPool, Ids, installer_line, overlaps, parse_idmaps, parse_subids
from lxcfleet.errors import InvalidInput, NoCapacity
from lxcfleet.spec.reading.terms import RANGE_SIZE

FIRST = 0x70000000
USUAL = f"root:{FIRST}:{0x10000000}\n"
PASSWD = "root:x:0:0:root:/root:/bin/bash\nann:x:1000:1000::/home/ann:/bin/bash\n"
GROUP = "root:x:0:\nann:x:1000:\n"


def root(first: int, ranges: int) -> str:
    return f"root:{first}:{ranges * RANGE_SIZE}\n"


def test_lines_are_parsed_as_newuidmap_does() -> None:
    text = (
        "# note\n\nann:100000:65536\n0:300000:10\n"
        "bad:1:\nbad:x:1\nbad:1:2:3\n:1:1\nzero:5:0\nlate:4294967290:100\n"
    )
    lines = parse_subids(text)
    assert [(line.owner, line.ids, line.root) for line in lines] == [
        ("ann", Ids(100000, 165536), False),
        ("0", Ids(300000, 300010), True),
    ]


def test_digits_of_other_scripts_are_not_numbers() -> None:
    assert parse_subids("ann:١٠٠:١\n") == ()


def test_idmaps_of_foreign_containers_are_read() -> None:
    config = (
        "lxc.uts.name = x\nlxc.idmap = u 0 100000 65536\n  lxc.idmap=g 0 200000 1000\n"
        "lxc.id_map = u 5 300000 1\n# lxc.idmap = u 0 400000 65536\nlxc.idmap = x 0 5 5\n"
        "lxc.idmap = u 0 600000 0\n"
    )
    assert parse_idmaps(config) == (Ids(100000, 165536), Ids(200000, 201000), Ids(300000, 300001))


def test_the_lowest_free_range_goes_first_and_comes_back() -> None:
    pool = IdPool(root(FIRST, 3), root(FIRST, 3))
    assert pool.free == 3
    taken = [pool.take() for _ in range(3)]
    assert taken == [FIRST, FIRST + RANGE_SIZE, FIRST + 2 * RANGE_SIZE]
    assert pool.free == 0
    pool.give_back(taken[1])
    assert (pool.free, pool.take()) == (1, taken[1])


def test_the_installers_line_has_room_for_4095() -> None:
    assert IdPool(USUAL, USUAL, PASSWD, GROUP).free == 4095


def test_a_range_needs_both_files() -> None:
    pool = IdPool(root(1 << 20, 4), root((1 << 20) + 2 * RANGE_SIZE, 4))
    assert pool.free == 2
    assert pool.take() == (1 << 20) + 2 * RANGE_SIZE


def test_lines_that_touch_count_as_one() -> None:
    text = f"root:{1 << 20}:{RANGE_SIZE // 2}\n0:{(1 << 20) + RANGE_SIZE // 2}:{RANGE_SIZE // 2}\n"
    assert IdPool(text, root(1 << 20, 1)).free == 1


def test_an_empty_pool_says_what_there_is_and_what_to_do() -> None:
    with pytest.raises(NoCapacity) as caught:
        IdPool("ann:100000:65536\n", "").take()
    assert "root has no ids in both /etc/subuid and /etc/subgid" in caught.value.why
    assert "doctor --fix" in caught.value.hint
    pool = IdPool(root(FIRST, 1), root(FIRST, 1))
    pool.take()
    with pytest.raises(NoCapacity) as caught:
        pool.take()
    assert "65536 ids" in caught.value.why
    assert "have 1 ranges" in caught.value.why


def test_other_users_lines_accounts_and_containers_are_left_alone() -> None:
    lines = root(FIRST, 8)
    foreign = f"lxc.idmap = u 0 {FIRST + 5 * RANGE_SIZE} {RANGE_SIZE}\n"
    passwd = f"{PASSWD}sss:x:{FIRST + 6 * RANGE_SIZE + 7}:1::/:/bin/sh\n"
    group = f"{GROUP}domain:x:{FIRST + 7 * RANGE_SIZE}:\n"
    mine = [FIRST + 4 * RANGE_SIZE]
    subgid = lines + f"ann:{FIRST}:{2 * RANGE_SIZE}\n"
    pool = IdPool(lines, subgid, passwd, group, own=mine, foreign=[foreign])
    # 0 and 1 are ann's, 4 a container's, 5 a foreign container's, 6 and 7 hold accounts.
    assert [pool.take() for _ in range(pool.free)] == [FIRST + 2 * RANGE_SIZE, FIRST + 3 * RANGE_SIZE]


def test_overlaps_are_told_in_words() -> None:
    problems = overlaps(
        root(100000, 1) + "ann:120000:65536\n", root(100000, 1), f"{PASSWD}app:x:100001:1::/:/bin/sh", GROUP
    )
    assert problems == (
        "/etc/subuid: root's ids 100000–165535 overlap with ann's 120000–185535",
        "/etc/subuid: root's ids 100000–165535 hold app's own id 100001 (/etc/passwd)",
    )
    assert overlaps(USUAL, USUAL, PASSWD, GROUP) == ()


def test_a_range_comes_back_only_once() -> None:
    pool = IdPool(USUAL, USUAL)
    first = pool.take()
    pool.give_back(first)
    with pytest.raises(InvalidInput, match="not taken"):
        pool.give_back(first)


def test_a_range_that_two_specs_name_is_free_when_both_are_gone() -> None:
    pool = IdPool(root(FIRST, 1), root(FIRST, 1), own=[FIRST, FIRST])
    pool.give_back(FIRST)
    assert pool.free == 0
    pool.give_back(FIRST)
    assert pool.free == 1


def test_a_range_that_root_lost_does_not_return_to_the_pool() -> None:
    pool = IdPool(root(FIRST, 1), root(FIRST, 1), own=[5 * RANGE_SIZE])
    pool.give_back(5 * RANGE_SIZE)
    assert pool.free == 1


def test_claiming_takes_every_range_that_the_claim_touches() -> None:
    pool = IdPool(root(FIRST, 4), root(FIRST, 4))
    pool.claim(FIRST + RANGE_SIZE // 2)
    assert pool.free == 2
    with pytest.raises(InvalidInput, match="overlap"):
        pool.claim(FIRST)
    with pytest.raises(InvalidInput, match="not root's"):
        pool.claim(FIRST + 3 * RANGE_SIZE + 1)


def test_the_installer_adds_its_line_only_where_root_has_no_room() -> None:
    assert installer_line("", "", PASSWD, GROUP) == USUAL.strip()
    assert installer_line("ann:100000:65536\n", "ann:100000:65536\n", PASSWD, GROUP) == USUAL.strip()
    assert installer_line(root(100000, 1), root(100000, 1), PASSWD, GROUP) == USUAL.strip()
    assert installer_line(USUAL, USUAL, PASSWD, GROUP) is None
    wide = "root:1000000:1000000000\n"
    assert installer_line(wide, wide, PASSWD, GROUP) is None
    assert installer_line(USUAL, "", PASSWD, GROUP) == USUAL.strip(), "one of the files lacks it"


def test_the_installer_avoids_the_ids_of_others() -> None:
    ann = f"ann:{FIRST + 100}:65536\n"
    line = installer_line(ann, "", PASSWD, GROUP)
    assert line is not None
    (mine,) = parse_subids(line)
    assert mine.root
    assert not mine.ids.overlaps(Ids(FIRST + 100, FIRST + 100 + 65536))
    assert mine.ids.first % RANGE_SIZE == 0
    assert IdPool(ann + line, line).free > 3000


def test_the_installer_goes_below_when_all_above_is_taken() -> None:
    line = installer_line(f"ann:{FIRST}:{1 << 28}\n", "", PASSWD, GROUP)
    assert line is not None
    (mine,) = parse_subids(line)
    assert 600100000 < mine.ids.first < mine.ids.end <= FIRST
    assert mine.ids.end - mine.ids.first == 1 << 28


def test_the_installer_gives_up_with_numbers() -> None:
    with pytest.raises(NoCapacity) as caught:
        installer_line("ann:100000:4294800000\n", "", PASSWD, GROUP)
    assert "16777216 ids" in caught.value.why
    assert "by hand" in caught.value.hint


lines_of_ids = st.lists(
    st.tuples(
        st.sampled_from(["root", "0", "ann", "bob"]),
        st.integers(0, 40 * RANGE_SIZE),
        st.integers(1, 20 * RANGE_SIZE),
    ),
    max_size=6,
).map(lambda rows: "".join(f"{owner}:{first}:{count}\n" for owner, first, count in rows))
starts = st.lists(st.integers(0, 60 * RANGE_SIZE), max_size=5)


def inside(ids: Ids, text: str) -> bool:
    """Whether each id is in one of root's lines; this counts, unlike the product's code."""
    mine = [line.ids for line in parse_subids(text) if line.root]
    edges = sorted({ids.first, ids.end, *(e for i in mine for e in i if ids.first < e < ids.end)})
    return all(any(i.first <= a and b <= i.end for i in mine) for a, b in itertools.pairwise(edges))


@given(subuid=lines_of_ids, subgid=lines_of_ids, own=starts, accounts=starts, foreign=starts)
def test_no_range_of_anybody_else_is_ever_handed_out(
    subuid: str, subgid: str, own: list[int], accounts: list[int], foreign: list[int]
) -> None:
    passwd = "".join(f"user{n}:x:{uid}:0::/:/bin/sh\n" for n, uid in enumerate(accounts))
    configs = [f"lxc.idmap = u 0 {first} {RANGE_SIZE}\n" for first in foreign]
    pool = IdPool(subuid, subgid, passwd, "", own=own, foreign=configs)
    got = [Ids(first, first + RANGE_SIZE) for first in (pool.take() for _ in range(pool.free))]
    with pytest.raises(NoCapacity):
        pool.take()
    others = [Ids(first, first + RANGE_SIZE) for first in (*own, *foreign)]
    others += [line.ids for text in (subuid, subgid) for line in parse_subids(text) if not line.root]
    for number, ids in enumerate(got):
        assert inside(ids, subuid)
        assert inside(ids, subgid)
        assert not any(ids.overlaps(other) for other in (*others, *got[:number]))
        assert not any(ids.first <= uid < ids.end for uid in accounts)


@given(own=starts, steps=st.lists(st.integers(-8, 8), max_size=40))
def test_taking_and_giving_back_in_any_order_keeps_ranges_apart(own: list[int], steps: list[int]) -> None:
    lines = root(2 * RANGE_SIZE, 10)
    pool = IdPool(lines, lines, own=own)
    held = list(own)
    for step in steps:
        if step >= 0 and pool.free:
            first = pool.take()
            mine = Ids(first, first + RANGE_SIZE)
            assert not any(mine.overlaps(Ids(other, other + RANGE_SIZE)) for other in held)
            held.append(first)
        elif step < 0 and held:
            pool.give_back(held.pop(step % len(held)))


@given(subuid=lines_of_ids, subgid=lines_of_ids, accounts=starts)
def test_after_the_installers_line_there_is_room(subuid: str, subgid: str, accounts: list[int]) -> None:
    passwd = "".join(f"user{n}:x:{uid}:0::/:/bin/sh\n" for n, uid in enumerate(accounts))
    line = installer_line(subuid, subgid, passwd)
    added = f"{line}\n" if line is not None else ""
    assert IdPool(subuid + added, subgid + added, passwd).free >= 256
    assert installer_line(subuid + added, subgid + added, passwd) is None
