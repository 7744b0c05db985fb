"""Draws the tables of swarmnet/exchange/states.py into ARCHITECTURE.md and docs/failures.md.

python -m docs.states
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from swarmnet.exchange.states import (
    ACCEPTOR,
    ENDS,
    HEIR,
    LEAVER,
    OFFERER,
    Do,
    Event,
    Say,
    State,
    Table,
)

ROOT = Path(__file__).parents[1]
SIDES = {"offerer": OFFERER, "acceptor": ACCEPTOR, "leaver": LEAVER, "heir": HEIR}

WORDS = {
    Say.OFFER: "say OFFER",
    Say.ACCEPT: "say ACCEPT",
    Say.HAVE: "say HAVE",
    Do.SEND_PAYLOAD: "send payload",
    Do.VERIFY: "check payload",
    Do.APPLY: "apply",
    Do.CLOSE: "close",
    Do.AWAIT_CLOSE: "wait for the close",
}
ARRIVES = {
    Say.OFFER: (Event.START,),
    Say.ACCEPT: (Event.ACCEPT,),
    Say.HAVE: (Event.HAVE,),
    Do.SEND_PAYLOAD: (Event.PART, Event.LAST_PART),
}
"""What the partner sees of an action, in order."""
OWN = (Event.VERIFIED, Event.GRANTED)
"""Facts that come without a frame. (A refusing ledger needs a second stream or a question.)"""

AFTERWARDS = {
    ("offerer", State.FAILED): "the same snapshot is offered to the next candidate",
    ("offerer", State.PENDING): "own part now; the correction is kept and asked for once a window",
    ("acceptor", State.FAILED): "the round is `dropped` in the ledger; the snapshot is free again",
    ("leaver", State.FAILED): "the next neighbour is asked",
    ("leaver", State.PENDING): "asks once; without an answer it parts with its work all the same",
    ("heir", State.FAILED): "the round is `dropped` in the ledger",
}
CUT = {
    (State.FAILED, State.FAILED): "nobody applies",
    (State.FAILED, State.NEW): "nobody applies",
    (State.PENDING, State.FAILED): "open: `dropped`",
    (State.PENDING, State.APPLIED): "open: `applied`",
}
"""By where the loss of the stream takes offerer and acceptor."""


def main() -> None:
    for page in PAGES:
        page.write_text(refreshed(page), encoding="utf-8")


def refreshed(page: Path) -> str:
    """The text of ``page`` with every part between markers drawn anew."""
    text = page.read_text(encoding="utf-8")
    for name, draw in PAGES[page].items():
        start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        head, _, rest = text.partition(start)
        text = "\n".join((head + start, *draw(), end + rest.partition(end)[2]))
    return text


def diagrams() -> Iterator[str]:
    """One mermaid diagram for each side."""
    for side, table in SIDES.items():
        yield from ("", f"The {side}:", "", "```mermaid", *diagram(table), "```")
    yield ""


def diagram(table: Table) -> Iterator[str]:
    yield "stateDiagram-v2"
    if any(state is State.DECIDING for state, _ in table):
        yield f"    state {State.DECIDING.value} <<choice>>"
    yield f"    [*] --> {State.NEW.value}"
    for (state, event), row in table.items():
        label = " / ".join((event.value, ", ".join(WORDS[do] for do in row.actions)))
        yield f"    {state.value} --> {row.to.value} : {label.removesuffix(' / ')}"
    for end in ENDS:
        if any(row.to is end for row in table.values()):
            yield f"    {end.value} --> [*]"


def by_state() -> Iterator[str]:
    """What each side of a meeting becomes when its stream is lost, state by state."""
    yield from ("", "| side | state | it waits for | stream lost: it is | and then |")
    yield "|---|---|---|---|---|"
    for side, table in SIDES.items():
        for state in dict.fromkeys(state for state, _ in table):
            lost = table.get((state, Event.LOST))
            if lost is not None:
                others = [e.value for s, e in table if s is state and e is not Event.LOST]
                cells = (side, state.value, ", ".join(others), lost.to.value)
                yield f"| {' | '.join(cells)} | {AFTERWARDS[side, lost.to]} |"
    yield ""


def by_pair() -> Iterator[str]:
    """What a cut leaves behind for every pair of states that one stream can hold."""
    met = pairs()
    rows = [state for state in State if any(state is offerer for offerer, _ in met)]
    columns = [state for state in State if any(state is acceptor for _, acceptor in met)]
    yield from ("", f"| offerer, acceptor | {' | '.join(s.value for s in columns)} |")
    yield "|---|" + "---|" * len(columns)
    for offerer in rows:
        cells = [cut(offerer, a) if (offerer, a) in met else "" for a in columns]
        yield f"| {offerer.value} | {' | '.join(cells)} |"
    yield ""


def cut(offerer: State, acceptor: State) -> str:
    return CUT[after_loss(OFFERER, offerer), after_loss(ACCEPTOR, acceptor)]


def after_loss(table: Table, state: State) -> State:
    """An end stays what it is; an acceptor that never saw an offer has nothing to lose."""
    if state in ENDS or (table is ACCEPTOR and state is State.NEW):
        return state
    return table[state, Event.LOST].to


def pairs() -> set[tuple[State, State]]:
    """(offerer, acceptor) for all moments of an accepted meeting at which its stream is open."""
    Moment = tuple[State, State, tuple[Event, ...], tuple[Event, ...]]
    at_once: Moment = (State.OFFERED, State.NEW, (), (Event.START,))
    held: Moment = (State.OFFERED, State.NEW, (Event.HOLD,), (Event.START,))
    queue, seen = [at_once, held], {at_once, held}
    while queue:
        offerer, acceptor, to_offerer, to_acceptor = queue.pop()
        found = [
            (state, acceptor, inbox, to_acceptor + said)
            for state, inbox, said in moves(OFFERER, offerer, to_offerer)
        ] + [
            (offerer, state, to_offerer + said, inbox)
            for state, inbox, said in moves(ACCEPTOR, acceptor, to_acceptor)
        ]
        queue += [moment for moment in found if moment not in seen]
        seen.update(found)
    return {(o, a) for o, a, *_ in seen if o not in ENDS and a is not State.DECIDING}


def moves(
    table: Table, state: State, inbox: tuple[Event, ...]
) -> Iterator[tuple[State, tuple[Event, ...], tuple[Event, ...]]]:
    """Next state, what is left to read, and what the partner gets to read."""
    frame = inbox[:1]
    for event in (*frame, *OWN):
        if row := table.get((state, event)):
            said = tuple(seen for do in row.actions for seen in ARRIVES.get(do, ()))
            yield row.to, inbox[1:] if event in frame else inbox, said


Draw = Callable[[], Iterator[str]]
PAGES: dict[Path, dict[str, Draw]] = {
    ROOT / "ARCHITECTURE.md": {"states": diagrams},
    ROOT / "docs" / "failures.md": {"by state": by_state, "by pair": by_pair},
}

if __name__ == "__main__":
    main()
