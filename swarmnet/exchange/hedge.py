"""A second offer when the partner of the first is clearly late: whoever accepts first is met.

Nothing of a payload leaves before the race is over, and the snapshot is taken by the winner
alone. The loser's stream is closed before our HAVE, so by the rules of ``pair`` its partner drops
the round, or it never hears of it: exactly one meeting goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, TypeVar


class Call(Protocol):
    """An offer under way."""

    async def ask(self) -> bool:
        """Open the stream, offer, hear the answer. True: accepted, and the rest waits for us.

        Never raises LinkError or PeerFault. False, and a cancelled call, have closed everything.
        """
        ...

    async def withdraw(self) -> None:
        """Close a call that was accepted and will not be used. Never raises."""
        ...


CallT = TypeVar("CallT", bound=Call)


async def first_to_accept(
    first: CallT, wait_s: float, alternate: Callable[[], CallT | None]
) -> CallT | None:
    """The accepted call to go on with; None when nobody accepts.

    After ``wait_s`` seconds without an answer ``alternate`` gives the second call, or None when
    there is nobody else to ask; an answer before that, yes or no, ends the race at once. When
    this returns or is cancelled no other call is open.
    """
    tasks = {asyncio.create_task(first.ask()): first}
    try:
        await asyncio.wait(tasks, timeout=wait_s)
        if not any(task.done() for task in tasks) and (second := alternate()) is not None:
            tasks[asyncio.create_task(second.ask())] = second
        winner = await _accepted(tasks)
        await _close(tasks, keep=winner)
    except BaseException:
        await _close(tasks, keep=None)
        raise
    return winner


async def _accepted(tasks: dict[asyncio.Task[bool], CallT]) -> CallT | None:
    """The first call that is accepted; of two at the same moment the one that was made first."""
    pending = set(tasks)
    while pending:
        _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task, call in tasks.items():
            if task.done() and task.result():
                return call
    return None


async def _close(tasks: dict[asyncio.Task[bool], CallT], keep: CallT | None) -> None:
    """Cancel what is still asked, withdraw what was accepted too late; a call's bug is raised."""
    for task in tasks:
        if not task.cancelling():  # a second time would disturb it while it closes
            task.cancel()
    await asyncio.wait(tasks)
    ended = {call: task for task, call in tasks.items() if not task.cancelled()}
    for call, task in ended.items():
        if call is not keep and task.exception() is None and task.result():
            await call.withdraw()
    for task in ended.values():
        task.result()
