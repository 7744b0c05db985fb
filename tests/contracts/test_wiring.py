"""What every wiring keeps: it never raises for want of peers, and it loses no peer for ever."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys

import pytest

from swarmnet import registry
from tests.wirings import built, drive, share

NAMES = registry.names("wiring")
PACE = {"a": 0.1, "b": 0.1, "c": 0.1, "d": 0.1}


@pytest.fixture(params=NAMES)
def wiring(request):
    return built(request.param)


def warmed(wiring, peers="abcd", rounds=40):
    """A wiring that knows its peers, at time 0."""
    wiring.serve(peers, 0.0)
    for _ in range(rounds):
        wiring.finished(wiring.pick(1, 0.0), 1, 0.1, 0.0)
    return wiring


def storm(name, seed):
    """Picks of a wiring under random reports."""
    wiring, source = built(name, seed), random.Random(seed)
    peers, now, picks, open_ = [f"peer{i}" for i in range(6)], 0.0, [], []
    for _ in range(600):
        now += source.expovariate(5.0)
        if source.random() < 0.05:
            wiring.serve(source.sample(peers, source.randint(0, 6)), now)
        size = source.choice([1, 2, 4])
        if source.random() < 0.6:
            picked = wiring.pick(size, now, source.sample(peers, 2))
            picks.append(picked)
            if picked is not None:
                open_.append((picked, size))
        elif open_:
            peer, size = open_.pop(source.randrange(len(open_)))
            report = source.choice(["finished", "finished", "late", "failed", "refused"])
            if report in ("finished", "late"):
                getattr(wiring, report)(peer, size, source.expovariate(2.0), now)
            elif report == "failed":
                wiring.failed(peer, now)
            else:
                wiring.refused(peer, source.random(), now)
        assert wiring.patience_s(source.choice(peers), size) > 0
        assert (woken := wiring.next_at(now)) is None or woken > now
    return picks


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(5))
def test_the_same_calls_give_the_same_picks(name, seed):
    assert storm(name, seed) == storm(name, seed)


def test_nobody_to_pick_is_an_answer_and_not_an_error(wiring):
    assert wiring.pick(1, 0.0) is None
    assert wiring.next_at(0.0) is None
    wiring.serve([], 0.0)
    assert wiring.pick(1, 0.0, {"a"}) is None
    wiring.serve("a", 0.0)
    wiring.serve([], 0.0)
    assert wiring.pick(1, 0.0) is None
    assert wiring.patience_s("a", 1) > 0


def test_reports_about_peers_that_left_are_ignored(wiring):
    wiring.serve("ab", 0.0)
    wiring.serve("b", 0.0)
    wiring.finished("a", 1, 0.1, 0.0)
    wiring.late("a", 1, 3.0, 3.0)
    wiring.failed("a", 3.0)
    wiring.refused("a", 9.0, 3.0)
    assert {wiring.pick(1, 3.0) for _ in range(9)} == {"b"}


def test_everybody_that_serves_is_asked_before_long(wiring):
    warmed(wiring, "ab")
    wiring.serve("abcde", 0.0)
    picks = drive(wiring, dict.fromkeys("abcde", 0.1), until=30.0)
    assert {peer for _, peer in picks} == set("abcde")


def test_who_failed_this_microbatch_is_avoided_unless_nobody_else_is_left(wiring):
    warmed(wiring)
    assert {wiring.pick(1, 0.0, {"a", "c"}) for _ in range(20)} <= {"b", "d"}
    for peer in "bd":
        wiring.failed(peer, 0.0)
    assert wiring.pick(1, 0.0, {"a", "c"}) in ("a", "c")


def test_a_refusing_peer_is_left_alone_for_its_time_and_no_longer(wiring):
    warmed(wiring, "ab")
    wiring.refused("a", 1.0, 0.0)
    for _ in range(20):
        wiring.finished(wiring.pick(1, 0.9), 1, 0.1, 0.9)
    wiring.refused("b", 60.0, 0.9)
    assert wiring.pick(1, 0.9) is None
    assert wiring.next_at(0.9) == pytest.approx(1.0)
    assert wiring.pick(1, 1.0) == "a"


def test_bans_grow_and_end(wiring):
    """As long as somebody else of the stage may be asked again, if only later."""
    wiring.serve("ab", 0.0)
    wiring.refused("b", 1e9, 0.0)
    now, lengths = 0.0, []
    for _ in range(6):
        assert wiring.pick(1, now) == "a"
        wiring.failed("a", now)
        assert wiring.pick(1, now) is None
        lengths.append(wiring.next_at(now) - now)
        now += lengths[-1]
    assert all(later > 1.1 * earlier for earlier, later in itertools.pairwise(lengths))
    for _ in range(9):
        assert wiring.pick(1, now) == "a"
        wiring.failed("a", now)
        now = wiring.next_at(now)
    assert now < 6 * 60 + 9 * 80


@pytest.mark.parametrize("peers", ["a", "ab"])
def test_a_stage_of_which_all_are_banned_is_tried_every_few_seconds(wiring, peers):
    wiring.serve(peers, 0.0)
    now, pauses, asked = 0.0, [], set()
    while now < 300.0:
        if (peer := wiring.pick(1, now)) is None:
            pauses.append(wiring.next_at(now) - now)
            now += pauses[-1]
        else:
            asked.add(peer)
            wiring.failed(peer, now)
    assert asked == set(peers)
    assert 0.0 < max(pauses) <= 6.25


def test_several_microbatches_lost_at_once_are_one_fault(wiring):
    warmed(wiring, "a")
    for _ in range(5):
        wiring.pick(1, 0.0)
    for _ in range(4):
        wiring.late("a", 1, 2.0, 2.0)
    first = wiring.next_at(2.0)
    assert first < 2.0 + 3.0
    wiring.late("a", 1, first + 1.0, first + 1.0)
    assert wiring.pick(1, first + 1.0) == "a"


def test_after_a_ban_one_pick_at_a_time_until_a_result_is_back(wiring):
    warmed(wiring, "a")
    wiring.failed("a", 0.0)
    now = wiring.next_at(0.0)
    assert wiring.pick(1, now) == "a"
    assert wiring.pick(1, now) is None
    assert wiring.next_at(now) > now
    wiring.finished("a", 1, 0.1, now + 0.1)
    assert wiring.pick(1, now + 0.1) == "a"


def test_a_probe_that_nobody_reports_on_does_not_lock_the_peer_for_ever(wiring):
    warmed(wiring, "a")
    wiring.failed("a", 0.0)
    now = wiring.next_at(0.0)
    assert wiring.pick(1, now) == "a"
    assert wiring.pick(1, wiring.next_at(now)) == "a"


def test_a_ban_outlives_a_peers_absence(wiring):
    warmed(wiring, "ab")
    wiring.failed("a", 0.0)
    wiring.serve("b", 0.1)
    wiring.serve("ab", 0.2)
    assert {wiring.pick(1, 0.3) for _ in range(9)} == {"b"}


def test_a_newcomer_is_not_flooded(wiring):
    warmed(wiring, "ab")
    wiring.serve("abc", 0.0)
    assert [wiring.pick(1, 0.0) for _ in range(30)].count("c") <= 1
    wiring.finished("c", 1, 0.1, 0.1)
    assert [wiring.pick(1, 0.1) for _ in range(30)].count("c") <= 2


def test_a_hung_peer_loses_its_share_and_recovers_after_it_heals(wiring):
    wiring.serve(PACE, 0.0)
    picks = drive(wiring, PACE, 400.0, hung=lambda peer, now: peer == "b" and 20 <= now < 120)
    assert 0.15 < share(picks, "b", 10, 20) < 0.4
    assert share(picks, "b", 30, 120) < 0.01
    assert share(picks, "b", 300, 400) > 0.15


def test_patience_follows_the_peers_own_past(wiring):
    wiring.serve("ab", 0.0)
    stranger = wiring.patience_s("a", 1)
    for _ in range(30):
        wiring.finished("a", 1, 0.01, 0.0)
        wiring.finished("b", 1, 5.0, 0.0)
    assert wiring.patience_s("a", 1) < stranger
    assert wiring.patience_s("a", 1) < wiring.patience_s("b", 1)
    assert wiring.patience_s("b", 1) >= 4 * 5.0 - 1e-9
    assert wiring.patience_s("b", 4) > wiring.patience_s("b", 1)


def test_wirings_need_no_torch():
    modules = ", ".join(f"swarmnet.wiring.{name}" for name in NAMES)
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
