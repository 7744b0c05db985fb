"""Groups over the simulated network: exact means, and what a lost member costs."""

import asyncio

import numpy as np
import pytest

from swarmnet.errors import LinkError
from swarmnet.exchange.attend import TOPIC
from swarmnet.exchange.pair import End
from swarmnet.exchange.questions import TOPIC as ASK
from swarmnet.sim import clock
from swarmnet.sim.network import Link
from swarmnet.wire import Frame, Kind
from swarmnet.wire.messages import Ask, Call, Commit, Decide, Decline, Lane, Roster, Tell
from tests.unit.groups import NAMES, PART, Company, check_mean


def run(main):
    return clock.run(main)


@pytest.mark.parametrize("n", [2, 3, 4, 5, 8, 16])
@pytest.mark.parametrize("values", [1, 5, 23, 100])
def test_everybody_holds_the_exact_mean(n, values):
    async def main():
        company = await Company(n, values, seed=n).open()
        assert await company.meet() is End.APPLIED
        await company.settle()
        company.judge()
        assert company.ends() == {End.APPLIED: n}
        check_mean(company)
        assert {len(p.minutes[-1].works) for p in company.peers} == {n}

    run(main())


# ---- who takes part ---------------------------------------------------------------------------


def test_works_reach_the_arithmetic_unchanged_and_weigh():
    async def main():
        for n in (3, 5):
            works = [1, 2**32 - 1, 7, 0, 100][:n]
            company = await Company(n, works=works).open()
            assert await company.meet() is End.APPLIED
            await company.settle()
            told = dict(zip(company.names, works, strict=True))
            assert all(peer.subject.blended == [told] for peer in company.peers)
            check_mean(company)

    run(main())


def test_a_call_closes_at_the_quorum_without_who_declines():
    async def main():
        company = await Company(5).open()
        company.peers[4].busy = True
        began = clock.now()
        assert await company.meet(quorum=3, patience_s=50) is End.APPLIED
        assert clock.now() - began < 1
        await company.settle()
        company.judge()
        check_mean(company)
        assert company.ends() == {End.APPLIED: 4, None: 1}

    run(main())


def test_alternates_fill_the_seats_of_those_who_decline():
    async def main():
        company = await Company(6).open()
        for i in (1, 2):
            company.peers[i].busy = True
        others = company.names[1:]
        assert await company.peers[0].lead(others, size=3) is End.APPLIED
        assert [bool(p.minutes) for p in company.peers] == [True, False, False, True, True, False]

    run(main())


def test_at_its_deadline_a_call_closes_with_who_is_there():
    async def main():
        company = await Company(4).open()
        company.peers[2].busy = True
        company.network.freeze(NAMES[3], 100.0)
        began = clock.now()
        assert await company.meet(patience_s=3.0) is End.APPLIED
        assert 3 < clock.now() - began < 4
        check_mean(company)
        await asyncio.sleep(100)
        await company.settle()
        company.judge()
        assert company.ends() == {End.APPLIED: 2, None: 2}

    run(main())


def test_a_call_that_nobody_follows_comes_to_nothing():
    async def main():
        company = await Company(4).open()
        for peer in company.peers[1:]:
            peer.busy = True
        assert await company.meet(patience_s=2.0) is End.DECLINED
        assert company.ends() == {None: 4}
        await company.settle()
        company.judge()

    run(main())


def test_who_is_asked_again_joins_once_its_window_opens():
    async def main():
        company = await Company(3).open()
        company.peers[1].busy = True
        meeting = company.peers[0].lead(company.names[1:], patience_s=10)
        await asyncio.sleep(2)
        company.peers[1].busy = False
        assert await meeting is End.APPLIED
        assert len(company.peers[2].minutes[0].works) == 3

    run(main())


# ---- leaders that cross -----------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 4, 6])
@pytest.mark.parametrize("lag_s", [0.0, 0.005, 0.02, 0.035, 0.05])
def test_two_leaders_at_once_hold_one_meeting_and_nobody_waits(n, lag_s):
    async def main():
        for first, second in ((0, 1), (1, 0)):
            company = await Company(n).open()
            began = clock.now()
            one = asyncio.create_task(company.meet(first))
            await asyncio.sleep(lag_s)
            two = asyncio.create_task(company.meet(second))
            ends = await asyncio.gather(one, two)
            assert clock.now() - began < 3
            assert End.APPLIED in ends
            await company.settle()
            company.judge()
            assert all(p.minutes[0].end is End.APPLIED for p in company.peers)

    run(main())


def test_when_all_lead_at_once_nobody_is_stuck():
    async def main():
        for seed in range(5):
            company = await Company(8, seed=seed).open()
            await asyncio.gather(*(company.meet(i, patience_s=2.0) for i in range(8)))
            await company.settle()
            company.judge()
            assert sum(bool(peer.applied()) for peer in company.peers) >= 6

    run(main())


# ---- what is not believed ---------------------------------------------------------------------


def unsound(peer):
    def encode(snapshot, part):
        return memoryview(np.full_like(snapshot[peer.subject.span(part)], np.nan).tobytes())

    peer.subject.encode = encode


@pytest.mark.parametrize("n", [3, 4, 6, 9])
def test_an_unsound_contribution_is_removed_and_the_others_go_on(n):
    async def main():
        company = await Company(n, values=40).open()
        unsound(company.peers[2])
        assert await company.meet() is End.APPLIED
        await company.settle()
        company.judge()
        check_mean(company)
        assert company.ends() == {End.APPLIED: n - 1, End.FAILED: 1}
        assert NAMES[2] in company.peers[0].minutes[-1].removed

    run(main())


@pytest.mark.parametrize("n", [3, 5])
@pytest.mark.parametrize("size", [0, 1, 8, 32])
def test_a_part_of_the_wrong_size_removes_its_sender(n, size):
    async def main():
        company = await Company(n).open()
        company.peers[1].subject.encode = lambda snapshot, part: memoryview(bytes(size))
        assert await company.meet() is End.APPLIED
        await company.settle()
        company.judge()
        check_mean(company)
        assert company.peers[1].end is End.FAILED

    run(main())


def test_a_false_mean_removes_its_owner():
    async def main():
        company = await Company(6, values=40).open()
        blend = company.peers[3].subject.blend

        def lying(*arguments):
            made = blend(*arguments)
            fuse = made.fuse
            made.fuse = lambda *a: memoryview(bytes(fuse(*a))[:-8] + b"\xff" * 8)
            made.adopt = lambda *a: None
            return made

        company.peers[3].subject.blend = lying
        assert await company.meet() is End.APPLIED
        await company.settle()
        company.judge()
        check_mean(company)
        assert company.peers[3].end is End.FAILED

    run(main())


def lane_frame(leader=NAMES[0], round_=(1 << 24) + 2):
    return Lane(leader=leader, round=round_).frame()


@pytest.mark.parametrize(
    "frame",
    [lane_frame(), lane_frame(round_=5), lane_frame(leader=NAMES[5]), Frame(Kind.PART, b"1")],
)
def test_a_lane_of_a_stranger_is_closed(frame):
    async def main():
        slow = Link(0.3, 1e4)
        company = await Company(3, link=lambda a, b: slow).open()
        meeting = company.peers[0].lead(company.names[1:])
        stranger = company.network.transport("peerStranger")
        for _ in range(8):
            await asyncio.sleep(0.3)
            stream = await stranger.open(NAMES[1], TOPIC, 5)
            await stream.send(frame, 5)
            await stream.close()
        assert await meeting is End.APPLIED
        await company.settle()
        company.judge()
        assert company.ends() == {End.APPLIED: 3}

    run(main())


def test_a_second_lane_of_a_member_is_closed():
    async def main():
        slow = Link(0.3, 1e4)
        company = await Company(3, link=lambda a, b: slow).open()
        meeting = company.peers[0].lead(company.names[1:])
        door = company.peers[2].tools.transport
        await asyncio.sleep(2.4)
        stream = await door.open(NAMES[1], TOPIC, 5)
        await stream.send(lane_frame(), 5)
        await stream.send(Frame(Kind.PART, np.zeros(3).tobytes()), 5)
        assert await meeting is End.APPLIED
        await stream.close()
        await company.settle()
        company.judge()
        check_mean(company)

    run(main())


def call(round_=9):
    return Call(round=round_, phase="train", layout="ab", nbytes=184).frame()


@pytest.mark.parametrize(
    "words",
    [
        [],
        [Roster(round=8, members=("peerStranger", NAMES[1])).frame()],
        [Roster(round=9, members=(NAMES[1], "peerStranger")).frame()],
        [Roster(round=9, members=("peerStranger", NAMES[2])).frame()],
        [Roster(round=9, members=("peerStranger", NAMES[1], NAMES[1])).frame()],
        [Roster(round=9, members=("peerStranger", NAMES[1])).frame(), Commit(number=3).frame()],
        [
            Roster(round=9, members=("peerStranger", NAMES[1])).frame(),
            Decide(number=3, seats=(0, 1), works=(1,)).frame(),
        ],
        [
            Roster(round=9, members=("peerStranger", NAMES[1])).frame(),
            Decide(number=3, seats=(1, 7), works=(1, 1)).frame(),
        ],
        [
            Roster(round=9, members=("peerStranger", NAMES[1])).frame(),
            Decide(number=3, seats=(0, 1), works=(1, 1)).frame(),
            Commit(number=3).frame(),
        ],
        [Frame(Kind.ROSTER, b"\xc1")],
        [Frame(Kind.PART, b"1")],
    ],
)
def test_a_faulty_leader_changes_nothing(words):
    async def main():
        company = await Company(3).open()
        stream = await company.network.transport("peerStranger").open(NAMES[1], TOPIC, 5)
        await stream.send(call(), 5)
        assert (await stream.receive(5)).kind is Kind.JOIN
        for word in words:
            await stream.send(word, 5)
        await asyncio.sleep(40)
        await stream.close()
        assert company.peers[1].circle.free
        assert not company.peers[1].applied()
        assert await company.meet() is End.APPLIED
        await company.settle()
        company.judge()
        check_mean(company)

    run(main())


def test_a_joined_peer_declines_other_calls_and_its_leader_may_vanish():
    async def main():
        company = await Company(3).open()
        door = company.network.transport("peerStranger")
        stream = await door.open(NAMES[1], TOPIC, 5)
        await stream.send(call(), 5)
        await stream.receive(5)
        again = await door.open(NAMES[1], TOPIC, 5)
        await again.send(call(10), 5)
        assert Decline.parse(await again.receive(5)).reason == "busy"
        await again.close()
        await stream.close()
        await asyncio.sleep(1)
        assert company.peers[1].circle.free

    run(main())


# ---- questions --------------------------------------------------------------------------------


async def ask(company, asker, asked, number, leader=None):
    stream = await company.network.transport(asker).open(asked, ASK, 5)
    await stream.send(Ask(rounds=(number,), leader=leader).frame(), 5)
    answer = Tell.parse(await stream.receive(5)).outcomes
    await stream.close()
    return answer[0]


def test_only_members_can_drop_an_open_decision_by_asking():
    async def main():
        for asker, outcome in ((NAMES[2], "dropped"), ("peerStranger", "unknown")):
            slow = Link(0.3, 1e4)
            company = await Company(3, link=lambda a, b, slow=slow: slow).open()
            chief = company.peers[0]
            meeting = chief.lead(company.names[1:])
            for _ in range(100):
                await asyncio.sleep(0.05)
                leading = chief.circle._leading
                if leading.machine is not None and leading.machine.number is not None:
                    break
            answer = chief.circle.answer(asker, NAMES[0], leading.machine.number)
            assert answer == outcome
            assert await meeting is End.APPLIED
            await company.settle()
            company.judge()
            members = 2 if outcome == "dropped" else 3
            assert len(chief.minutes[-1].works) == members

    run(main())


def test_witnesses_answer_for_what_they_applied_and_for_nothing_else():
    async def main():
        company = await Company(3).open()
        await company.meet()
        number = company.peers[0].minutes[-1].number
        assert await ask(company, NAMES[2], NAMES[1], number, NAMES[0]) == "applied"
        assert await ask(company, NAMES[2], NAMES[1], number + 1, NAMES[0]) == "unknown"
        assert await ask(company, NAMES[2], NAMES[0], number) == "applied"
        assert await ask(company, NAMES[2], NAMES[0], number + 1) == "unknown"
        assert await ask(company, NAMES[2], NAMES[0], number - 1) == "dropped"
        assert await company.meet() is End.APPLIED

    run(main())


def test_a_leader_without_a_snapshot_removes_itself_at_once():
    async def main():
        company = await Company(4).open()

        def take():
            raise LinkError("no snapshot to exchange")

        company.peers[0].take = take
        began = clock.now()
        assert await company.meet() is End.FAILED
        assert clock.now() - began < 1
        await company.settle()
        company.judge()
        assert company.ends() == {End.FAILED: 1, End.APPLIED: 3}
        check_mean(company)

    run(main())


def test_an_error_of_ours_is_raised_and_leaves_all_free():
    async def main():
        for broken in (0, 2):
            company = await Company(5).open()

            def blend(*arguments):
                raise ZeroDivisionError

            company.peers[broken].subject.blend = blend
            meeting = company.meet()
            if broken == 0:
                with pytest.raises(ZeroDivisionError):
                    await meeting
            else:
                assert await meeting is End.APPLIED
            await company.settle()
            assert all(isinstance(bug, ZeroDivisionError) for bug in company.network.bugs)
            assert len(company.network.bugs) == 1
            company.network.bugs.clear()
            company.judge()
            check_mean(company)

    run(main())


# ---- memory -----------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [4, 9])
def test_a_member_holds_at_most_three_payloads_or_one_and_its_means(n):
    """Direct: those of the others. Butterfly: everybody's share of my parts."""

    async def main():
        company = await Company(n, values=PART * 90).open()
        payload = company.peers[0].subject.nbytes
        held = []

        async def watch():
            while True:
                for peer in company.peers:
                    sitting = peer.circle._sitting
                    machine = sitting and sitting.attendance and sitting.attendance._machine
                    if machine:
                        parts = machine.contributions.values()
                        held.append(sum(len(part) for peer_ in parts for part in peer_))
                await asyncio.sleep(0.001)

        watching = asyncio.create_task(watch())
        assert await company.meet() is End.APPLIED
        watching.cancel()
        assert max(held) == (3 * payload if n == 4 else (n - 1) * payload // n)

    run(main())


def test_nothing_is_left_of_a_thousand_meetings():
    async def main():
        company = await Company(3, values=3).open()
        for _ in range(1000):
            assert await company.meet() is End.APPLIED
        for peer in company.peers:
            peer.minutes.clear()
        await company.settle()
        company.judge()
        assert len(asyncio.all_tasks()) == 1

    run(main())
