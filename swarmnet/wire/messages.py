"""What frames say: msgpack maps with exactly the declared keys, types and ranges.

A message never says who sent it: identity comes from the stream.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

import msgpack
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

from swarmnet.errors import MessageError
from swarmnet.wire.frame import CLAIM_BYTES, MAX_CLAIMS, Frame, Kind

PeerId = Annotated[str, StringConstraints(min_length=8, max_length=128, pattern=r"^[1-9A-Za-z]+$")]
Hex = Annotated[str, StringConstraints(max_length=64, pattern=r"^[0-9a-f]*$")]
Count = Annotated[int, Field(ge=0, lt=2**62)]
Work = Annotated[int, Field(ge=0, lt=2**32)]
Seconds = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Rate = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]
Phase = Literal["train", "consensus"]
Outcome = Literal["applied", "dropped"]
Answer = Literal["applied", "dropped", "unknown"]


class Message(BaseModel):
    """Base of all messages: frozen, strict types, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    kind: ClassVar[Kind]

    def frame(self) -> Frame:
        """What has its default value costs no bytes."""
        return Frame(self.kind, msgpack.packb(self.model_dump(exclude_defaults=True)))

    @classmethod
    def parse(cls, frame: Frame) -> Self:
        """Raises MessageError when the frame is of another kind or says something else."""
        if frame.kind is not cls.kind:
            raise MessageError(f"expected {cls.kind.name}, got {frame.kind.name}")
        try:
            return cls.model_validate(msgpack.unpackb(frame.body, use_list=False))
        except (ValidationError, ValueError, TypeError, msgpack.UnpackException) as error:
            raise MessageError(f"{cls.kind.name}: {_first_line(error)}") from error


State = Literal["syncing", "training", "paused", "consensus", "serving", "left"]


class Word(BaseModel):
    """What a peer says of itself: in its signed record, and over its own stream in a digest."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    incarnation: Count
    counter: Count
    state: State
    role: Annotated[str, StringConstraints(max_length=20)]
    tokens: Count
    elapsed_s: Seconds
    step: Count
    rate: Rate
    stage: Annotated[int, Field(ge=0, lt=256)] = 0
    serves: Rate = 0.0
    demand: Rate = 0.0
    settled_s: Seconds = 0.0
    since: Count = 0
    read: Count = 0
    committed: Count = 0


class Rumour(BaseModel):
    """What somebody heard of a third peer: its newest counter within its incarnation.

    It is not signed, so it tells that a peer lived, never what it does or did.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    peer: PeerId
    incarnation: Count
    counter: Count


class Hint(BaseModel):
    """A peer's own word, ``age_s`` seconds old, that it accepts offers ``opens_s`` after it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    peer: PeerId
    age_s: Seconds
    opens_s: Seconds = 0.0


MAX_RUMOURS = 24
"""Peers that one digest speaks of, the speaker included."""
MAX_HINTS = 16
Hints = Annotated[tuple[Hint, ...], Field(max_length=MAX_HINTS)]


class Digest(BaseModel):
    """Who is alive at which counter: the speaker in its own words, others by hearsay."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    mine: Word
    rumours: Annotated[tuple[Rumour, ...], Field(max_length=MAX_RUMOURS - 1)] = ()


class Hello(Message):
    """First frame of the first stream to a peer: which run I train, under which wire version."""

    kind = Kind.HELLO
    fingerprint: Hex
    wire: Count
    software: Annotated[str, StringConstraints(max_length=40)]


class Welcome(Message):
    """Same run, same wire: talk on."""

    kind = Kind.WELCOME
    software: Annotated[str, StringConstraints(max_length=40)]


class Refuse(Message):
    """Another run or another wire version; carries the run file so that the user sees why."""

    kind = Kind.REFUSE
    reason: Literal["run", "wire"]
    run_file: Annotated[bytes, Field(max_length=64 * 1024)]


class Dial(Message):
    """Can you open a connection to me, at the address from which you see me and this port?"""

    kind = Kind.DIAL
    port: Annotated[int, Field(ge=1024, le=65535)]


class Dialed(Message):
    """Answers a Dial: ``seen`` is the IP address that was tried; empty: nothing was tried."""

    kind = Kind.DIALED
    seen: Annotated[str, StringConstraints(max_length=64)] = ""
    reached: bool = False


class Offer(Message):
    """Let us exchange: my own round counter, what I would send, and what I know of others.

    ``index`` counts rounds of a scheduled matching and is 0 in training. ``layout`` hashes
    everything that both sides must agree on for the payload to make sense. ``work``: the inner
    steps behind the displacement that the payload holds. ``patience_s``: so long I wait for your
    window to open, once you said HOLD. ``farewell``: I leave; the payload is what nobody has of my
    work, and none comes back.
    """

    kind = Kind.OFFER
    round: Count
    phase: Phase
    index: Count
    layout: Hex
    nbytes: Count
    work: Work = 0
    patience_s: Seconds = 0.0
    farewell: bool = False
    digest: Digest | None = None
    hints: Hints = ()


class Accept(Message):
    """Yes: my payload follows, send yours. An heir sends none: ``nbytes`` is 0."""

    kind = Kind.ACCEPT
    round: Count
    nbytes: Count
    work: Work = 0
    digest: Digest | None = None
    hints: Hints = ()


DeclineReason = Literal[
    "busy",
    "early",
    "phase",
    "index",
    "calm",
    "layout",
    "syncing",
    "leaving",
    "paused",
    "applied",
    "dropped",
]


class Hold(Message):
    """Not yet, but within your patience, and with nobody before you: ACCEPT follows, or DECLINE."""

    kind = Kind.HOLD
    round: Count


class Decline(Message):
    """No, and when to ask again. ``applied``/``dropped`` answer an offer already decided.

    ``hints`` name peers that may be glad of a call, and when.
    """

    kind = Kind.DECLINE
    reason: DeclineReason
    retry_s: Seconds
    digest: Digest | None = None
    hints: Hints = ()


class Have(Message):
    """I hold your whole payload and it is sound: you may count on me to apply it."""

    kind = Kind.HAVE
    round: Count


class Ask(Message):
    """What became of these rounds that were left open: mine with you, or of a group?

    ``leader`` names who led a group; without it that is whoever is asked.
    """

    kind = Kind.ASK
    rounds: Annotated[tuple[Count, ...], Field(max_length=64)]
    leader: PeerId | None = None


class Tell(Message):
    """Answers an Ask, in its order. ``unknown``: ask again, or somebody else."""

    kind = Kind.TELL
    outcomes: Annotated[tuple[Answer, ...], Field(max_length=64)]


MAX_GROUP = 48
"""Members of one meeting: each is reached by one stream of every other."""
Seat = Annotated[int, Field(ge=0, lt=MAX_GROUP)]
Seats = Annotated[tuple[Seat, ...], Field(max_length=MAX_GROUP)]


def _whole_ids(claims: bytes) -> bytes:
    if len(claims) % CLAIM_BYTES:
        raise ValueError("claims that are no whole ids")
    return claims


Claims = Annotated[bytes, Field(max_length=MAX_CLAIMS * CLAIM_BYTES), AfterValidator(_whole_ids)]
"""Ids of samples, 8 bytes each, big-endian and ascending."""


class Call(Message):
    """A leader's invitation to a group. Fields as in Offer."""

    kind = Kind.CALL
    round: Count
    phase: Phase
    layout: Hex
    nbytes: Count
    digest: Digest | None = None


class Join(Message):
    """Yes: I keep myself free until the roster comes."""

    kind = Kind.JOIN
    round: Count
    digest: Digest | None = None


class Roster(Message):
    """Who takes part, in the order of their seats; the leader sits first."""

    kind = Kind.ROSTER
    round: Count
    members: Annotated[tuple[PeerId, ...], Field(min_length=2, max_length=MAX_GROUP)]


class Lane(Message):
    """First frame of a stream that carries one member's contribution to another."""

    kind = Kind.LANE
    leader: PeerId
    round: Count


class Claiming(Message):
    """A word that may name samples; where there are none it is as short as if it never could."""

    def frame(self) -> Frame:
        said = self.model_dump()
        if not said["claims"]:
            del said["claims"]
        return Frame(self.kind, msgpack.packb(said))


class Got(Claiming):
    """Whose contributions I hold whole; ``done`` when no more will come.

    ``work``: the inner steps behind my own contribution, or the tokens of a gradient. ``claims``:
    the samples in it; told once, with the first of these words.
    """

    kind = Kind.GOT
    holds: Seats
    work: Work
    done: bool
    claims: Claims = b""


class Decide(Claiming):
    """The leader's choice of who counts, and their works; no seats: it came to nothing.

    ``number`` is a round of the leader's own: what a member asks about later. ``claims``: the
    samples behind each contribution that weighs; empty where nobody claims any.
    """

    kind = Kind.DECIDE
    number: Count
    seats: Seats
    works: Annotated[tuple[Work, ...], Field(max_length=MAX_GROUP)]
    claims: Annotated[tuple[Claims, ...], Field(max_length=MAX_GROUP)] = ()


class Means(Message):
    """The encoded means of my parts follow, for this decision."""

    kind = Kind.MEANS
    number: Count


class Commit(Message):
    """Every member of this decision said HAVE: apply."""

    kind = Kind.COMMIT
    number: Count


class Beat(Message):
    """I am still here."""

    kind = Kind.BEAT


class Tally(Message):
    """What a peer of a stage has counted since the stage's last step.

    ``step`` and ``lineage`` say which steps its weights have behind them; ``committed``: the tokens
    in all of those. ``tokens``: those in its gradient sums.
    """

    kind = Kind.TALLY
    stage: Annotated[int, Field(ge=0, lt=256)]
    step: Count
    lineage: Hex
    committed: Count
    tokens: Work


class Get(Message):
    """What do you give? The answer is MANIFEST, or BUSY.

    ``step``: the mean gradient by which a stage came to this step.
    """

    kind = Kind.GET
    what: Literal["run", "state", "weights", "step"]
    step: Count = 0


class Manifest(Message):
    """What is given: its size, one hash per chunk, and a small map that describes the content."""

    kind = Kind.MANIFEST
    nbytes: Count
    chunks: tuple[Annotated[bytes, Field(min_length=32, max_length=32)], ...]
    describes: Annotated[bytes, Field(max_length=256 * 1024)]


MAX_WANTED = 64
"""Chunks that one word may ask for."""


class Want(Message):
    """Send these chunks, in this order."""

    kind = Kind.WANT
    chunks: Annotated[tuple[Count, ...], Field(min_length=1, max_length=MAX_WANTED)]


class Busy(Message):
    """Nothing now; ask again after ``retry_s``. ``syncing``: I have no sound state myself.

    ``gone``: I do not keep this step, any more or yet.
    """

    kind = Kind.BUSY
    reason: Literal["busy", "syncing", "gone"]
    retry_s: Seconds


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
