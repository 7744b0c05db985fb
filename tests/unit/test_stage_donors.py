"""Whom a stage joiner asks for its mates' steps, and what it makes of the answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from peers import stagedonors
from peers.stagedonors import Found, StageDonors
from peers.take import Taken
from swarmnet.errors import DonorBusy, LinkError, NotKept, PayloadError, UnreachableError

PARAMETERS = 10
STATE = 120
Answer = Callable[[int], Any]


class Side:
    """A stage side that is at ``step``; a step is its number, and only the next one follows."""

    parameters = PARAMETERS

    def __init__(self, mates: list[str], step: int = 0, *, placed: bool = False) -> None:
        self.mates, self.placed = mates, placed
        self.served = SimpleNamespace(past=SimpleNamespace(step=step), follow=self.follow)
        self.on = False

    def donors(self) -> list[str]:
        return list(self.mates)

    def draft(self) -> dict[str, Any]:
        return {}

    def check(self, facts: Any) -> None:
        return

    async def place(self, portrait: Any, newest: int | None) -> None:
        self.served.past.step, self.placed = portrait, True

    async def follow(self, step: int) -> None:
        if step != self.served.past.step + 1:
            raise PayloadError("a step that does not follow")
        self.served.past.step = step

    async def go_on(self) -> None:
        self.on = True


def keeps(first: int, last: int) -> Answer:
    def answer(step: int) -> int:
        if not first <= step <= last:
            raise NotKept("gone")
        return step

    return answer


def fails(error: Exception) -> Answer:
    def answer(step: int) -> int:
        raise error

    return answer


def fetch(
    side: Side, answers: dict[str, Answer], state: int | None = None, *, alike: bool = True
) -> tuple[Found | None, list[tuple[str, int]]]:
    """What was found, and who was asked for which step. ``state``: the step of a copied one."""
    asked = []

    async def take_step(_: Any, mate: str, step: int, numel: int) -> Any:
        asked.append((mate, step))
        return answers[mate](step)

    async def take_state(*_: Any) -> Taken:
        if state is None:
            raise UnreachableError("nobody")
        return Taken(state, ("copied",), STATE)  # type: ignore[arg-type]

    async def main() -> Found | None:
        station = SimpleNamespace(log=SimpleNamespace(emit=lambda event: None))
        link = SimpleNamespace(node=None)
        donors = StageDonors(station, link, alike=alike)  # type: ignore[arg-type]
        return await donors.fetch(side)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stagedonors, "take_step", take_step)
        patch.setattr(stagedonors, "take_state", take_state)
        return asyncio.run(main()), asked


def test_a_copy_and_the_steps_since() -> None:
    side = Side(["a"])
    found, _ = fetch(side, {"a": keeps(6, 9)}, state=5)
    assert found == Found(("copied", "a"), STATE + 4 * 4 * PARAMETERS, 4)
    assert side.served.past.step == 9
    assert side.on


def test_a_step_that_was_missed_needs_no_copy() -> None:
    side = Side(["a"], 7, placed=True)
    found, _ = fetch(side, {"a": keeps(8, 8)})
    assert found == Found(("a",), 4 * PARAMETERS, 1)


def test_nobody_keeps_it_and_nobody_gives_a_state() -> None:
    side = Side(["a"], 7, placed=True)
    assert fetch(side, {"a": keeps(20, 30)})[0] is None
    assert not side.on


def test_who_gave_the_last_step_is_asked_first_for_the_next() -> None:
    answers = {"a": keeps(0, 0), "b": keeps(1, 9)}
    _, asked = fetch(Side(["a", "b"], placed=True), answers)
    assert asked[0] == ("a", 1)
    assert [mate for mate, step in asked if 2 <= step <= 9] == ["b"] * 8


@pytest.mark.parametrize(
    "bad", [fails(PayloadError("nonsense")), lambda step: step + 5, fails(LinkError("hung"))]
)
def test_one_bad_mate_keeps_nobody_from_following(bad: Answer) -> None:
    side = Side(["bad", "good"], placed=True)
    found, asked = fetch(side, {"bad": bad, "good": keeps(1, 5)})
    assert found is not None
    assert side.served.past.step == 5
    assert [step for mate, step in asked if mate == "bad"] in ([1], [1, 6])


def test_a_busy_mate_is_asked_again_but_not_for_ever() -> None:
    answers = iter([DonorBusy("busy", 0.001), DonorBusy("busy", 0.001), None])

    def busy(step: int) -> int:
        error = next(answers, NotKept("gone"))
        if error is not None:
            raise error
        return step

    side = Side(["a"], placed=True)
    found, _ = fetch(side, {"a": busy})
    assert found is not None
    assert found.steps == 1
    _, asked = fetch(Side(["a"], placed=True), {"a": fails(DonorBusy("busy", 0.001))})
    assert len(asked) == stagedonors.TRIES


def test_replicas_of_a_stage_are_never_followed() -> None:
    side = Side(["a"], placed=True)
    found, asked = fetch(side, {"a": keeps(1, 9)}, state=5, alike=False)
    assert (found, asked) == (Found(("copied",), STATE), [])
