"""A storm is a pure function of a file and a seed; the ward hits whom it may and heals in time."""

from __future__ import annotations

from itertools import islice

import pytest

from peers.configs_folder import shipped
from peers.storm.plan import KINDS, SHIPPED, load, parse, plan, turnover
from peers.storm.ward import Ward
from swarmnet.errors import ConfigError

STORMS = sorted(path.stem for path in shipped("storms", "gentle").parent.glob("*.toml"))


def some(storm, seed=1, count=300):
    return list(islice(plan(storm, seed), count))


def ward(text, names=6, seed=1):
    storm = parse(text.encode(), "test")
    made = Ward(storm, plan(storm, seed))
    for number in range(names):
        made.reserve(f"worker-{number}")
        made.enter(f"worker-{number}")
        made.trains(f"worker-{number}")
    return made


def played(made, until_s=600.0, step_s=0.5):
    """(time, act) of everything until then; whoever is started trains by the next tick."""
    found = []
    for tick in range(int(until_s / step_s)):
        acts = made.due(step_s * tick)
        found += [(step_s * tick, act) for act in acts]
        for name in (act.enters for act in acts if act.enters):
            made.enter(name)
            made.trains(name)
    return found


@pytest.mark.parametrize("name", STORMS)
def test_the_same_seed_brings_the_same_storm_and_another_one_another(name):
    storm = load(name)
    assert some(storm) == some(storm)
    assert some(storm) != some(storm, seed=2)
    times = [fault.at for fault in some(storm)]
    assert times == sorted(times)


def test_each_kind_has_its_mean_whatever_else_happens():
    storm = load("storm32")
    means = {"kill": 60, "freeze": 240, "partition": 300}
    faults = some(storm, count=6000)
    for kind, every_s in means.items():
        count = sum(fault.kind == kind for fault in faults)
        assert count * every_s == pytest.approx(faults[-1].at, rel=0.08)
    alone = parse(b"[kill]\nevery_s = 60\nfor_s = [0.5, 2]", "test")
    kills = [(f.at, f.draw) for f in faults if f.kind == "kill"]
    assert [(f.at, f.draw) for f in some(alone, count=50)] == kills[:50]


def test_kills_and_joins_by_the_clock_come_at_regular_times():
    faults = some(turnover(15, 20), count=9)
    assert [(f.kind, f.at) for f in faults if f.kind == "kill"][:3] == [
        ("kill", 15), ("kill", 30), ("kill", 45),
    ]  # fmt: skip
    assert [f.at for f in faults if f.kind == "join"][:2] == [20, 40]
    assert all(f.seconds == 0 for f in faults)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "nothing happens"),
        ("[kil]\nevery_s = 1", "kil"),
        ("[kill]\nevery_s = 0", "kill.every_s"),
        ("[kill]\nevery_s = 10\nthen = 'stays'", "kill.then"),
        ("[freeze]\nevery_s = 10", "freeze.for_s"),
        ("[freeze]\nevery_s = 10\nfor_s = [9, 3]", "shorter"),
        ("[partition]\nevery_s = 10\nfor_s = 3\nshare = 1", "partition.share"),
        ("[kill", "not TOML"),
        ("a" * 100_000, "larger"),
    ],
)
def test_a_bad_storm_file_is_one_line(text, says):
    with pytest.raises(ConfigError, match=says) as error:
        parse(text.encode(), "bad.toml")
    assert len(str(error.value).splitlines()) == 1


def test_a_storm_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing-of-the-kind: no such file.*gentle"):
        load("nothing-of-the-kind")
    with pytest.raises(ConfigError):
        load(str(tmp_path))


def test_the_killed_return_and_nobody_is_hit_twice_at_once():
    text = "[kill]\nevery_s = 5\nfor_s = [1, 9]\n[freeze]\nevery_s = 5\nfor_s = [1, 9]"
    hurt = {}
    for time, act in played(ward(text)):
        [name] = act.subjects
        if act.over:
            assert hurt.pop(name) is act.fault
            assert act.enters == (name if act.fault.kind == "kill" else "")
        else:
            assert name not in hurt
            hurt[name] = act.fault
            assert act.fault.at <= time
        assert len(hurt) <= 4, "fewer than two are well"


def test_as_many_are_killed_as_may_be_and_newcomers_have_new_names():
    made = ward("[kill]\nevery_s = 1\nthen = 'gone'\n[join]\nevery_s = 50", names=4)
    acts = [act for _, act in played(made, 200)]
    entered = [act.enters for act in acts if act.enters]
    assert entered == [f"worker-{4 + n}" for n in range(len(entered))]
    killed = [act.subjects[0] for act in acts if act.fault.kind == "kill"]
    assert len(killed) == len(set(killed)) == 2 + len(entered)
    assert made.dead == set(killed)
    assert made.skipped > 0


def test_the_last_that_have_a_state_are_spared_whoever_else_has_been_started():
    made = ward("[kill]\nevery_s = 1\nthen = 'gone'", names=3)
    for number in range(3, 9):
        made.enter(f"worker-{number}")
    killed = {act.subjects[0] for n in range(300) for act in made.due(n)}
    assert len({"worker-0", "worker-1", "worker-2"} - killed) == 2
    assert killed.issuperset(f"worker-{number}" for number in range(3, 9))


def test_who_has_not_said_that_it_is_up_is_not_hit():
    """A kill and a join may fall on the same moment, before the newcomer's process is there."""
    made = ward("[kill]\nevery_s = 5\nthen = 'gone'\n[join]\nevery_s = 1", names=3)
    acts = [act for n in range(300) for act in made.due(n)]
    newcomers = {act.enters for act in acts if act.enters}
    assert not newcomers & {name for act in acts if not act.enters for name in act.subjects}
    dead = made.dead
    for name in dead:
        made.enter(name)
        made.trains(name)
    assert made.dead == dead, "what it said before it was killed"


def test_the_replaced_stay_dead_and_the_returned_do_not():
    text = "[kill]\nevery_s = 20\nfor_s = 2\nthen = '{}'\nlaw = 'regular'"
    for then, dead in (("replaced", 1), ("returns", 0)):
        made = ward(text.format(then))
        [(_, _), (_, back)] = played(made, 30)
        assert back.enters == ("worker-6" if dead else back.subjects[0])
        assert (len(made.dead), made.away) == (dead, frozenset())


def test_a_wall_has_somebody_on_either_side_and_only_one_stands():
    text = "[partition]\nevery_s = 5\nfor_s = 12\nshare = 0.5"
    standing = 0
    for _, act in played(ward(text)):
        standing += -1 if act.over else 1
        assert standing in (0, 1)
        assert len(act.subjects) == 3
    assert not [act for _, act in played(ward(text, names=1))]


def test_a_storm_that_is_over_heals_everything():
    text = "[kill]\nevery_s = 9\nfor_s = 500\n[freeze]\nevery_s = 9\nfor_s = 500"
    made = ward(text)
    begun = [act for _, act in played(made, 100)]
    assert sorted(a.subjects for a in made.heal()) == sorted(a.subjects for a in begun)
    assert made.heal() == []
    assert not made.away


def test_who_dies_of_a_limit_is_started_again_and_who_dies_of_nothing_is_not():
    made = ward("[memory_limit]\nevery_s = 5\nfor_s = 100\nlaw = 'regular'")
    [(_, act)] = played(made, 7)
    [name] = act.subjects
    back = made.died(name)
    assert (back.over, back.enters) == (True, name)
    assert made.died(name) is None


def test_who_has_finished_is_left_alone():
    made = ward("[freeze]\nevery_s = 5\nfor_s = 30\nlaw = 'regular'", names=6)
    [(_, act)] = played(made, 7)
    made.leave(act.subjects[0])
    assert made.heal() == []
    assert all(later.subjects != act.subjects for _, later in played(made))


def test_every_kind_is_shipped_somewhere():
    assert set(KINDS) == set(load("everything").troubles)


def test_what_a_user_is_told_of_is_what_there_is():
    assert sorted(SHIPPED) == STORMS
