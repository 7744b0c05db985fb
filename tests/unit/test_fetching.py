"""Which chunk of whom: whole states out of slow, lying and lost donors, in virtual time."""

from __future__ import annotations

import heapq
import random

import pytest

from swarmnet.net.fetching import AHEAD, CEILING_S, FIRST_S, FLOOR_S, MAX_REST_S, Fetching
from swarmnet.net.pacing import Pace

N = 60


def version(number, chunks=N, same=0):
    """Hashes of a state; its first ``same`` chunks are those of every other version."""
    return [b"%d %d" % (0 if c < same else number, c) for c in range(chunks)]


NOTHING = [b""] * N


class World:
    """Donors that bring chunks at their own pace, a joiner, and a clock that jumps.

    ``donors``: name -> (hashes, version, seconds per chunk).
    """

    def __init__(self, donors, held=NOTHING, *, alike=False):
        self.donors = dict(donors)
        self.now = 0.0
        self.fetching = Fetching(held, 0.0, alike=alike)
        self.got = {}
        self.dies_at = {}
        self.lies = {}
        self.freezes_at = {}
        self._events = []
        self._free = {}
        self._due = {}

    def run(self, until_s=1000.0):
        """Until all is there, or nothing more happens."""
        while not self.fetching.done and self.now < until_s:
            for donor in self.donors:
                gone = self.dies_at.get(donor, 1e9) <= self.now
                if not gone and self.fetching.may_ask(donor, self.now):
                    hashes, number, _ = self.donors[donor]
                    if self.fetching.offered(donor, hashes, number, self.now):
                        self._free[donor] = self._due[donor] = self.now
            for donor in self.fetching.giving:
                self._ask(donor)
            self._step()

    def _ask(self, donor):
        for chunk in self.fetching.next(donor, self.now):
            start = max(self._free[donor], self.now)
            self._free[donor] = start + self.donors[donor][2]
            heapq.heappush(self._events, (self._free[donor], donor, chunk))

    def _step(self):
        at, donor, chunk = self._events[0] if self._events else (1e9, "", -1)
        watched = [
            (max(self._due[d] + self.fetching.deadline_s(d), self.now), d)
            for d in self.fetching.giving
            if self.dies_at.get(d, 1e9) <= self.now or self.freezes_at.get(d, 1e9) <= self.now
        ]
        if self._gone(donor, at):
            heapq.heappop(self._events)
            return
        late = min(watched, default=(1e9, ""))
        tick = self.now + 0.5
        if late[0] <= min(at, tick):
            self.now = late[0]
            self.fetching.lost(late[1], self.now)
            self._events = [e for e in self._events if e[1] != late[1]]
            heapq.heapify(self._events)
        elif at <= tick:
            heapq.heappop(self._events)
            self.now = at
            self._arrive(donor, chunk)
        else:
            self.now = tick

    def _gone(self, donor, at):
        return bool(donor) and (
            donor not in self.fetching.giving
            or self.dies_at.get(donor, 1e9) <= at
            or self.freezes_at.get(donor, 1e9) <= at
        )

    def _arrive(self, donor, chunk):
        self._due[donor] = self.now
        if not self.fetching.claim(donor, chunk, self.now):
            return
        if chunk in self.lies.get(donor, ()):
            self.fetching.ban(donor, "a lie")
            self._events = [e for e in self._events if e[1] != donor]
            heapq.heapify(self._events)
            return
        self.fetching.placed(donor, chunk, self.now)
        self.got[chunk] = self.donors[donor][0][chunk]


def test_a_fast_donor_brings_more_and_the_time_is_that_of_all_together():
    world = World({"fast": (version(9), 9, 0.1), "slow": (version(8), 8, 0.4)})
    world.run()
    brought = world.fetching.brought
    assert brought["fast"] + brought["slow"] == N
    assert 3 < brought["fast"] / brought["slow"] < 5
    assert world.now < 1.2 * N / (1 / 0.1 + 1 / 0.4)
    assert world.fetching.lead == "fast"


def test_no_more_than_a_few_chunks_are_under_way_at_one_donor():
    fetching = Fetching(NOTHING, 0.0, alike=False)
    assert fetching.offered("a", version(1), 1, 0.0)
    assert fetching.next("a", 0.0) == list(range(AHEAD))
    assert fetching.next("a", 0.0) == []
    assert fetching.claim("a", 0, 0.1)
    fetching.placed("a", 0, 0.1)
    assert fetching.next("a", 0.1) == [AHEAD]


def test_what_a_lost_donor_had_to_bring_goes_to_the_others_and_what_it_brought_stays():
    world = World({"a": (version(9), 9, 0.1), "b": (version(9), 9, 0.1)})
    world.dies_at["a"] = 1.05
    world.run()
    assert world.fetching.done
    assert world.fetching.brought["a"] == 10
    assert world.fetching.brought["b"] == N - 10
    assert world.now < N * 0.1 + FLOOR_S


def test_a_frozen_donor_is_noticed_by_its_own_pace_and_its_chunks_are_asked_of_others_before():
    world = World({"a": (version(9), 9, 0.1), "b": (version(9), 9, 0.1)})
    world.freezes_at["a"] = 2.05
    world.run()
    assert world.fetching.done
    assert world.now < 2.0 + FLOOR_S, "before the deadline tells that it is frozen"


def test_deadlines_follow_what_a_donor_did_before():
    fetching = Fetching(NOTHING, 0.0, alike=False)
    fetching.offered("a", version(1), 1, 0.0)
    assert fetching.deadline_s("a") == FIRST_S
    for index, now in enumerate((1.0, 2.0, 3.0, 4.0, 5.0)):
        fetching.next("a", now - 1.0)
        fetching.claim("a", index, now)
        fetching.placed("a", index, now)
    assert fetching.deadline_s("a") == 4.0
    for index, now in enumerate((25.0, 45.0, 65.0, 85.0, 105.0, 125.0), start=5):
        fetching.claim("a", index, now)
        fetching.placed("a", index, now)
    assert fetching.deadline_s("a") == CEILING_S


def test_a_liar_is_banned_and_nothing_of_it_is_asked_again():
    world = World({"a": (version(9), 9, 0.05), "b": (version(9), 9, 0.1)})
    world.lies["a"] = set(range(7, N))
    world.run()
    assert world.fetching.done
    assert world.fetching.banned == {"a": "a lie"}
    assert not world.fetching.may_ask("a", world.now + 1e6)


@pytest.mark.parametrize("alike", [False, True])
def test_what_a_liar_brought_before_is_fetched_again_and_its_numbers_are_forgotten(alike):
    fetching = Fetching(NOTHING, 0.0, alike=alike)
    fetching.offered("a", version(90), 90, 0.0)
    fetching.offered("b", version(89), 89, 0.0)
    for chunk in fetching.next("a", 0.0):
        fetching.claim("a", chunk, 1.0)
        fetching.placed("a", chunk, 1.0)
    assert (fetching.lead, fetching.left) == ("a", N - AHEAD)
    fetching.ban("a", "a lie")
    if alike:
        fetching.offered("b", version(89), 89, 1.0)
    assert (fetching.lead, fetching.left) == ("b", N)
    assert not fetching.done
    assert fetching.next("b", 1.0)[0] == 0


@pytest.mark.parametrize("alike", [False, True])
def test_what_an_earlier_life_took_counts_where_states_are_mixed(alike):
    fetching = Fetching(version(80), 0.0, alike=alike, had={0: "a", 1: "b"})
    assert not fetching.done
    fetching.offered("c", version(90), 90, 0.0)
    assert fetching.left == (N if alike else N - 2)
    assert fetching.next("c", 0.0)[0] == (0 if alike else 2)


def test_a_state_that_came_whole_needs_only_a_donors_numbers():
    fetching = Fetching(version(80), 0.0, alike=False, had=dict.fromkeys(range(N), "a"))
    assert not fetching.done
    fetching.offered("c", version(90), 90, 0.0)
    assert fetching.done
    assert fetching.lead == "c"


def test_what_a_liar_brought_in_an_earlier_life_is_fetched_again():
    fetching = Fetching(version(80), 0.0, alike=False, had={0: "a", 1: "b"})
    fetching.offered("c", version(90), 90, 0.0)
    fetching.ban("a", "a lie")
    assert fetching.left == N - 1
    assert fetching.next("c", 0.0)[0] == 0


def test_a_busy_donor_is_asked_again_when_it_said():
    fetching = Fetching(NOTHING, 0.0, alike=False)
    fetching.rest("a", 3.0, 0.0)
    assert not fetching.may_ask("a", 2.9)
    assert fetching.may_ask("a", 3.0)
    fetching.rest("a", 1e9, 3.0)
    assert fetching.may_ask("a", 3.0 + MAX_REST_S)


def test_a_donor_that_is_lost_again_and_again_is_left_alone_for_longer():
    fetching, now, pauses = Fetching(NOTHING, 0.0, alike=False), 0.0, []
    for _ in range(6):
        fetching.lost("a", now)
        began = now
        while not fetching.may_ask("a", now):
            now += 0.5
        pauses.append(now - began)
    assert pauses == [1.0, 2.0, 4.0, 8.0, MAX_REST_S, MAX_REST_S]


def test_only_what_differs_from_what_is_held_is_asked_for():
    held = version(5)
    theirs = held[:40] + version(9)[40:]
    for alike in (False, True):
        world = World({"a": (theirs, 9, 0.1)}, held, alike=alike)
        world.run()
        assert sorted(world.got) == list(range(40, N))


def test_who_holds_everything_is_done_with_the_first_manifest():
    world = World({"a": (version(9), 9, 0.1)}, version(9), alike=True)
    assert not world.fetching.done
    world.run()
    assert world.fetching.done
    assert world.got == {}


def test_peers_that_are_alike_share_one_version_and_others_bring_what_is_the_same():
    donors = {
        "a": (version(9, same=30), 9, 0.1),
        "twin": (version(9, same=30), 9, 0.1),
        "later": (version(11, same=30), 11, 0.1),
        "apart": (version(12), 12, 0.01),
    }
    world = World(donors, alike=True)
    world.run()
    assert world.fetching.lead == "a"
    assert [world.got[c] for c in range(N)] == version(9, same=30)
    assert world.fetching.brought["later"] > 0
    assert world.fetching.brought["apart"] == 0


def test_when_nobody_is_left_of_a_version_the_next_one_keeps_what_is_the_same():
    donors = {"a": (version(9, same=30), 9, 0.1), "b": (version(11, same=30), 11, 0.1)}
    world = World(donors, alike=True)
    world.dies_at["a"] = 4.05
    world.run()
    assert world.fetching.done
    assert world.fetching.lead == "b"
    assert [world.got[c] for c in range(N)] == version(11, same=30)


def test_a_donor_that_was_hardly_part_of_the_run_gives_nothing_to_a_mixed_state():
    world = World({"a": (version(90), 90, 0.1), "new": (version(3), 3, 0.01)})
    world.run()
    assert world.fetching.brought == {"a": N}


def test_two_donors_never_write_the_same_chunk_at_the_same_time():
    fetching = Fetching([b""], 0.0, alike=False)
    for donor in "ab":
        fetching.offered(donor, version(1, 1), 1, 0.0)
    assert fetching.next("a", 0.0) == [0]
    assert fetching.claim("a", 0, 1.0)
    assert not fetching.claim("b", 0, 1.0)
    fetching.ban("a", "its bytes were wrong after all")
    assert fetching.next("b", 1.0) == [0]
    assert fetching.claim("b", 0, 2.0)
    fetching.placed("b", 0, 2.0)
    assert fetching.done


@pytest.mark.parametrize("alike", [False, True])
@pytest.mark.parametrize("seed", range(25))
def test_as_long_as_one_honest_donor_lives_the_state_becomes_whole(seed, alike):
    chance = random.Random(seed)
    donors = {}
    for index in range(chance.randint(2, 6)):
        number = chance.choice((9, 10, 11))
        same = chance.choice((0, 20, 60))
        donors[f"d{index}"] = (version(number, same=same), number, 10 ** chance.uniform(-2, 0))
    world = World(donors, alike=alike)
    for donor in list(donors)[1:]:
        fate = chance.choice(("dies", "freezes", "lies", "lives"))
        if fate == "dies":
            world.dies_at[donor] = chance.uniform(0, 5)
        elif fate == "freezes":
            world.freezes_at[donor] = chance.uniform(0, 5)
        elif fate == "lies":
            world.lies[donor] = {chance.randrange(N)}
    world.run()
    assert world.fetching.done
    lead = world.fetching.lead
    if alike:
        assert [world.got[c] for c in range(N)] == donors[lead][0]
    assert all(world.got[c] in {hashes[c] for hashes, _, _ in donors.values()} for c in range(N))


def test_a_pace_is_shared_by_all_who_ask():
    pace = Pace(100.0)
    assert pace.wait_s(50, 0.0) == 0.0
    assert pace.wait_s(50, 0.0) == 0.5
    assert pace.wait_s(100, 0.25) == 0.75
    assert pace.wait_s(10, 10.0) == 0.0


def test_a_share_of_the_machine_becomes_bytes_per_second():
    assert Pace.of(0.05, 2.0).bytes_per_s * 2.3 == pytest.approx(0.1 * 2**30)
