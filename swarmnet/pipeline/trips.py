"""A trainer's trips: a pure machine from receipts, losses and the clock to letters.

Rules
-----
1. A trip is complete when every stage has counted its sample, and *settled* when every stage has
   committed a step that holds it. Until then the trainer keeps the token ids, which are all that a
   repair needs; nothing that a stage computed is kept here.
2. A peer that is late, lost, busy or sends nonsense is replaced by another pick of the wiring, and
   the trip goes on with a new attempt from the last stage that still holds its output. Stages that
   have counted are not asked to count again; a peer that has the sample answers from its cache.
3. A peer that may have counted is asked to let go before another one is picked. What it holds
   already counts, and it stays. One that does not answer is left after a moment.
4. A sample that a stage dropped, or that a dead peer took with it, is sent again with a mask of
   that stage alone. Claims in the stage's commits keep a wrong suspicion from counting twice.
5. Without a peer at some stage trips wait; nothing new begins, so memory stays bounded.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence

from swarmnet.pipeline.acts import Say
from swarmnet.pipeline.flow import Flow
from swarmnet.pipeline.trip import Finished, Ledger, Letting, Load, Trip
from swarmnet.wire.letters import (
    MAX_SAMPLES,
    Fates,
    Forget,
    Forward,
    Inquire,
    Receipt,
    Resume,
    mask_bytes,
)
from swarmnet.wiring import Wiring

SERIES_BITS, COUNT_BITS = 40, 23
"""Of a sample's id. A series is drawn for this trainer and start alone: a stage takes what two
trainers name alike for one sample, and a thousand trainers do so once in two million runs."""
OVERDUE_STEPS = 2
"""A sample that was counted is part of one of the next two steps, or somebody is asked."""
ASK_AGAIN_S = 2.0
QUIET_S = 10.0
"""A sample of which nothing is heard for so long is asked for, even if its stage does not step."""
LET_GO_S = 1.0
"""So long the answer of a peer is waited for that is about to be replaced; then it is."""
CUT_OFF_S = 0.5
"""So long somebody is waited for who was lost, or serves the stage no more, as far as is known."""
MAX_DOUBLINGS = 6


class TripBook:
    """All trips of one trainer. ``wirings`` has one for each stage."""

    def __init__(self, me: str, life: int, wirings: Sequence[Wiring], flow: Flow) -> None:
        """``life``: another at every start of the process, so that no sample is named twice."""
        self.me = me
        self.flow = flow
        self.ledger = Ledger()
        self.steps: dict[int, int] = {}
        self.finished: list[Finished] = []
        """For the caller to take."""
        self._life = life
        self._wirings = wirings
        self._trips: dict[int, Trip] = {}
        self._open: set[int] = set()
        """Not yet counted everywhere: these fill the window."""
        self._live: list[frozenset[str]] = [frozenset() for _ in wirings]
        self._cut_off: set[str] = set()
        """Our line to them broke, and nothing has come from them since."""

    # ---- what the caller asks ---------------------------------------------------------------

    @property
    def stages(self) -> int:
        return len(self._wirings)

    @property
    def under_way(self) -> int:
        return len(self._open)

    @property
    def unsettled(self) -> int:
        return len(self._trips) - len(self._open)

    def name(self, number: int) -> int:
        """The id of the sample that was begun as the ``number``-th."""
        series, count = divmod(number, 1 << COUNT_BITS)
        digest = hashlib.sha256(f"{self.me} {self._life} {series}".encode()).digest()
        return int.from_bytes(digest[: SERIES_BITS // 8], "big") << COUNT_BITS | count

    def room(self) -> bool:
        """Whether another trip may begin."""
        full = len(self._trips) >= self.flow.most_unsettled
        parked = any(self._trips[sample].parked for sample in self._open)
        return self.under_way < self.flow.window and not full and not parked

    def is_open(self, sample: int) -> bool:
        """Whether it is still to be counted somewhere."""
        return sample in self._open

    def unserved(self) -> list[int]:
        """Stages that nobody serves."""
        return [stage for stage, live in enumerate(self._live) if not live]

    def next_at(self, now: float) -> float:
        """When ``tick`` has something to do, unless something is heard before."""
        ends = [self._deadline(trip) for trip in self._opened() if not trip.parked]
        if any(trip.parked for trip in self._opened()):
            ends += [at for wiring in self._wirings if (at := wiring.next_at(now)) is not None]
        return min(ends, default=math.inf)

    # ---- what happens -----------------------------------------------------------------------

    def serve(self, live: Mapping[int, Sequence[str]], now: float) -> list[Say]:
        """Who serves which stage from now on."""
        for stage, wiring in enumerate(self._wirings):
            wiring.serve(live.get(stage, ()), now)
            self._live[stage] = frozenset(live.get(stage, ()))
        self._cut_off &= frozenset[str]().union(*self._live)
        self.flow.serve(sum(map(len, self._live)))
        return self._unpark(now)

    def begin(self, load: Load, now: float) -> list[Say]:
        """A new sample; ask ``room`` before."""
        sample = self.name(self.ledger.begun)
        self.ledger.begun += 1
        trip = Trip(sample, load, now, [None] * self.stages)
        self._trips[sample] = trip
        self._open.add(sample)
        return self._embark(trip, now)

    def on_receipt(self, peer: str, receipt: Receipt, now: float) -> list[Say]:
        """Raises nothing: a receipt that fits no trip is out of date."""
        self._cut_off.discard(peer)
        trip = self._trips.get(receipt.sample)
        stage = receipt.stage
        if trip is None or stage >= self.stages:
            return []
        says_of_next = receipt.what == "unreached"
        speaker = stage - 1 if says_of_next else stage
        if speaker < 0 or trip.route[speaker] != peer:
            return []
        if receipt.what == "counted":
            return self._counted(trip, peer, receipt, now)
        out_of_date = receipt.attempt != trip.attempt or trip.still
        if out_of_date or trip.sample not in self._open:
            return []
        trip.at = now
        if receipt.what == "forwarded":
            self._forwarded(trip, receipt, now)
            return []
        if receipt.what == "answered":
            self._answered(trip, peer, stage, now)
            # Dropped between its backward and its sums: it counts on request.
            return self._recount(trip, stage, "void", now) if stage in trip.mask() else []
        return self._mend(trip, stage, receipt, now)

    def on_fates(self, peer: str, fates: Fates, now: float) -> list[Say]:
        """Commits and losses of a stage, told by one of its peers."""
        self._cut_off.discard(peer)
        stage = fates.stage
        if stage >= self.stages:
            return []
        self.steps[stage] = max(fates.step, self.steps.get(stage, 0))
        acts: list[Say] = []
        for sample, fate in zip(fates.samples, fates.fates, strict=False):
            trip = self._trips.get(sample)
            if trip is None:
                continue
            holder = trip.counted.get(stage, ("", 0))[0]
            letting = trip.letting
            asked = letting is not None and (letting.stage, letting.peer) == (stage, peer)
            if asked and fate != "void":
                kept = fate in ("held", "committed")
                if kept and stage not in trip.counted:
                    trip.counted[stage] = (peer, fates.step)
                acts += self._complete(trip, now) or self._replace(trip, now, kept=kept)
            if fate == "committed" and trip.sample in self._trips:
                acts += self._settle(trip, stage, now)
            elif fate == "void" and peer == (holder or trip.route[stage]):
                acts += self._recount(trip, stage, "void", now)
            elif fate == "unknown" and stage in trip.counted and self._gone(trip, stage, peer):
                acts += self._recount(trip, stage, "died", now)
        return acts

    def on_lost(self, peer: str, now: float) -> list[Say]:
        """Our own line to ``peer`` broke."""
        acts: list[Say] = []
        self._cut_off.add(peer)
        for wiring, live in zip(self._wirings, self._live, strict=True):
            if peer in live:
                wiring.failed(peer, now)
        for trip in self._opened():
            stage = self._suspect(trip)
            if trip.letting is not None and trip.letting.peer == peer:
                acts += self._replace(trip, now)
            elif not trip.still and trip.route[stage] == peer:
                acts += self._let_go(trip, stage, "lost", now)
        return acts

    def tick(self, now: float) -> list[Say]:
        """Deadlines, bans that ended, and samples that no commit has named for too long."""
        acts: list[Say] = self._unpark(now)
        for trip in self._opened():
            if trip.parked or now < self._deadline(trip):
                continue
            if trip.letting is not None:
                acts += self._replace(trip, now)
                continue
            stage = self._suspect(trip)
            peer = trip.route[stage]
            if peer is not None and self._within_reach(stage, peer):
                trip.open_picks.discard(stage)
                self._wirings[stage].late(peer, trip.load.rows, now - trip.at, now)
            trip.late += 1
            acts += self._let_go(trip, stage, "late", now)
        return acts + self._inquire(now)

    # ---- attempts ---------------------------------------------------------------------------

    def _embark(self, trip: Trip, now: float) -> list[Say]:
        """A new attempt; parked where some stage has nobody to pick."""
        for stage, wiring in enumerate(self._wirings):
            avoid = trip.avoid.get(stage, set())
            kept = trip.route[stage]
            if kept is not None and kept in self._live[stage] and kept not in avoid:
                continue
            self._leave(trip, stage, now, blame=False)
            picked = trip.route[stage] = wiring.pick(trip.load.rows, now, avoid)
            if picked is None:
                trip.parked = True
                return []
            trip.open_picks.add(stage)
            trip.met.add(picked)
        trip.parked = False
        trip.attempt += 1
        self.ledger.attempts += 1
        trip.at = now
        trip.answered = {}
        return [self._departure(trip, now)]

    def _departure(self, trip: Trip, now: float) -> Say:
        """From the last stage that still holds its output, or from the ids."""
        route = tuple(peer or "" for peer in trip.route)
        held = 0
        while held in trip.forwarded and held < self.stages - 1:
            held += 1
        trip.forwarded = {stage: trip.forwarded[stage] for stage in range(held)}
        trip.came = {held: now}
        mask = mask_bytes(trip.mask())
        if held:
            resume = Resume(
                sample=trip.sample, attempt=trip.attempt, stage=held - 1, route=route, mask=mask
            )
            return Say(route[held - 1], resume)
        forward = Forward(
            sample=trip.sample,
            attempt=trip.attempt,
            stage=0,
            trainer=self.me,
            route=route,
            mask=mask,
            rows=trip.load.rows,
            length=trip.load.length,
            steps=tuple(self.steps.get(stage, 0) for stage in range(self.stages)),
            nbytes=len(trip.load.ids),
        )
        return Say(route[0], forward, (trip.load.ids,))

    def _mend(self, trip: Trip, stage: int, receipt: Receipt, now: float) -> list[Say]:
        """The peer of ``stage`` is busy, unreached, or was sent nonsense by the one before."""
        what = receipt.what
        stage += what == "soured"
        peer = trip.route[stage] if stage < self.stages else None
        if what == "unknown":
            trip.forwarded = {}
            return self._again(trip, None, what, now)
        if peer is not None and what == "busy":
            trip.open_picks.discard(stage)
            self._wirings[stage].refused(peer, receipt.retry_s, now)
        elif peer is not None and what == "unreached":
            self._failed(trip, stage, peer, now)
            return self._let_go(trip, stage, what, now)
        elif peer is not None and what == "soured":
            self._failed(trip, stage, peer, now)
        elif what == "refused":
            culprit = trip.route[stage - 1] if stage else None
            if culprit is not None:
                self._failed(trip, stage - 1, culprit, now)
            return self._again(trip, stage - 1 if stage else stage, what, now)
        return self._again(trip, stage if peer is not None else None, what, now)

    def _let_go(self, trip: Trip, stage: int, cause: str, now: float) -> list[Say]:
        """Before another attempt without the peer of ``stage``: it must not count any more."""
        self.ledger.causes[cause] += 1
        passed = stage > 0 and len(self._live[stage]) == 1 and len(self._live[stage - 1]) > 1
        if passed:
            stage -= 1  # there is nobody else: try whether another one reaches it
        peer = trip.route[stage]
        if peer is None:
            return self._embark(trip, now)
        trip.letting = Letting(stage, peer, now + LET_GO_S, passed)
        return [Say(peer, Inquire(samples=(trip.sample,), let_go=True))]

    def _replace(self, trip: Trip, now: float, *, kept: bool = False) -> list[Say]:
        """It answered, or will not. ``kept``: it had counted, so it stays on the route."""
        letting, trip.letting = trip.letting, None
        if letting is None:
            return []  # complete meanwhile
        if not kept or letting.passed:
            self._leave(trip, letting.stage, now)
        return self._embark(trip, now)

    def _again(self, trip: Trip, stage: int | None, cause: str, now: float) -> list[Say]:
        """Another attempt without the peer of ``stage``, which has not begun with the sample."""
        self.ledger.causes[cause] += 1
        if stage is not None:
            self._leave(trip, stage, now)
        return self._embark(trip, now)

    def _failed(self, trip: Trip, stage: int, peer: str, now: float) -> None:
        trip.open_picks.discard(stage)
        self._wirings[stage].failed(peer, now)

    def _leave(self, trip: Trip, stage: int, now: float, *, blame: bool = True) -> None:
        """The trip goes on without the peer of ``stage``, which is avoided if it is to blame."""
        peer, trip.route[stage] = trip.route[stage], None
        trip.forwarded = {s: at for s, at in trip.forwarded.items() if s < stage}
        if peer is not None and stage in trip.open_picks:
            trip.open_picks.discard(stage)
            self._wirings[stage].refused(peer, 0.0, now)
        if peer is not None and blame:
            avoid = trip.avoid.get(stage, set()) | {peer}
            # With nobody else to turn to, whoever failed before is as good as the rest.
            trip.avoid[stage] = avoid if self._live[stage] - avoid else {peer}

    def _recount(self, trip: Trip, stage: int, cause: str, now: float) -> list[Say]:
        """``stage`` has lost the sample, counted or about to be: it must hear the new mask."""
        if stage in trip.settled:
            return []
        trip.counted.pop(stage, None)
        # From the one before it: whoever counted elsewhere has its answer in store.
        trip.forwarded = {s: at for s, at in trip.forwarded.items() if s < stage}
        if trip.sample in self._open:
            return [] if trip.still else self._again(trip, None, cause, now)
        self._open.add(trip.sample)
        self.ledger.whole -= 1
        return self._again(trip, None, cause, now)

    def _unpark(self, now: float) -> list[Say]:
        acts: list[Say] = []
        for trip in self._opened():
            if trip.parked:
                acts += self._embark(trip, now)
        return acts

    # ---- receipts ---------------------------------------------------------------------------

    def _forwarded(self, trip: Trip, receipt: Receipt, now: float) -> None:
        trip.forwarded.setdefault(receipt.stage, now)
        trip.came.setdefault(receipt.stage + 1, now)
        if receipt.stage == self.stages - 1 and receipt.tokens:
            trip.loss = receipt.loss
        self.flow.waited(receipt.stage, receipt.waited_s, receipt.busy_s)

    def _counted(self, trip: Trip, peer: str, receipt: Receipt, now: float) -> list[Say]:
        stage = receipt.stage
        if stage in trip.counted or stage in trip.settled:
            return []
        trip.counted[stage] = (peer, receipt.version)
        if receipt.attempt == trip.attempt:
            trip.at = now
            self._answered(trip, peer, stage, now)
        return self._complete(trip, now)

    def _answered(self, trip: Trip, peer: str, stage: int, now: float) -> None:
        """Measured are seconds from the way to ``peer`` until its output, and until its answer."""
        if stage in trip.open_picks and stage in trip.came and stage in trip.forwarded:
            trip.open_picks.discard(stage)
            forwarded = trip.forwarded[stage]
            gradient = trip.answered.get(stage + 1, forwarded)
            seconds = forwarded - trip.came[stage] + max(0.0, now - gradient)
            self._wirings[stage].finished(peer, trip.load.rows, max(seconds, 1e-6), now)
        trip.answered.setdefault(stage, now)
        trip.forwarded.setdefault(stage, now)

    def _complete(self, trip: Trip, now: float) -> list[Say]:
        """If every stage has counted it: whatever is still on its way is for nothing."""
        if trip.mask() or trip.sample not in self._open:
            return []
        self._open.discard(trip.sample)
        trip.parked, trip.letting = False, None
        self.ledger.whole += 1
        trip.late, trip.avoid = 0, {}
        for stage in trip.open_picks:
            if (peer := trip.route[stage]) is not None:
                self._wirings[stage].refused(peer, 0.0, now)
        trip.open_picks.clear()
        if trip.loss is not None:
            tokens = trip.load.rows * trip.load.length
            done = Finished(trip.sample, trip.loss / tokens, tokens, now - trip.began)
            self.finished.append(done)
            trip.loss = None
        if trip.attempt == 0:
            self.flow.completed(now - trip.began)
        return self._close(trip)

    # ---- commits ----------------------------------------------------------------------------

    def _settle(self, trip: Trip, stage: int, now: float) -> list[Say]:
        trip.settled.add(stage)
        if trip.sample in self._open:
            return self._complete(trip, now)  # its receipt was lost, its commit was not
        return self._close(trip)

    def _close(self, trip: Trip) -> list[Say]:
        if len(trip.settled) < self.stages:
            return []
        del self._trips[trip.sample]
        self.ledger.whole -= 1
        self.ledger.settled += 1
        # Those out of reach forget by themselves.
        live = frozenset[str]().union(*self._live)
        reached = sorted(trip.met & live)
        return [Say(peer, Forget(samples=(trip.sample,))) for peer in reached]

    def farewell(self) -> list[Say]:
        """This trainer goes: whoever keeps something of its samples for it may let go of that."""
        live = frozenset[str]().union(*self._live)
        kept: dict[str, list[int]] = {}
        for trip in self._trips.values():
            for peer in sorted(trip.met & live):
                kept.setdefault(peer, []).append(trip.sample)
        return [
            Say(peer, Forget(samples=tuple(samples[start : start + MAX_SAMPLES])))
            for peer, samples in kept.items()
            for start in range(0, len(samples), MAX_SAMPLES)
        ]

    def _inquire(self, now: float) -> list[Say]:
        """Ask about samples whose stage has moved on without a word of them."""
        asked: dict[str, list[int]] = {}
        for trip in self._trips.values():
            if now < trip.asked_at + ASK_AGAIN_S:
                continue
            quiet = now >= max(trip.at, trip.asked_at) + QUIET_S
            for stage, (peer, version) in trip.counted.items():
                overdue = self.steps.get(stage, 0) >= version + OVERDUE_STEPS
                suspect = overdue or quiet or not self._within_reach(stage, peer)
                if stage in trip.settled or not suspect:
                    continue
                witness = self._witness(stage, peer)
                if witness is not None:
                    trip.asked_at = now
                    asked.setdefault(witness, []).append(trip.sample)
        return [
            Say(peer, Inquire(samples=tuple(samples[start : start + MAX_SAMPLES])))
            for peer, samples in asked.items()
            for start in range(0, len(samples), MAX_SAMPLES)
        ]

    def _witness(self, stage: int, holder: str) -> str | None:
        if holder in self._live[stage]:
            return holder
        return min(self._live[stage], default=None)

    def _gone(self, trip: Trip, stage: int, witness: str) -> bool:
        """Whether "unknown", said by ``witness``, means that the sample is lost."""
        holder = trip.counted[stage][0]
        return witness == holder or holder not in self._live[stage]

    # ---- inside -----------------------------------------------------------------------------

    def _opened(self) -> list[Trip]:
        return [self._trips[sample] for sample in sorted(self._open)]

    def _suspect(self, trip: Trip) -> int:
        """The stage whose sign is missing: forward from the front, then backward from the end."""
        for stage in range(self.stages):
            if stage not in trip.forwarded:
                return stage
        mask = trip.mask()
        for stage in reversed(range(self.stages)):
            if stage in mask or (stage not in trip.answered and stage > min(mask, default=0)):
                return stage
        return 0

    def _within_reach(self, stage: int, peer: str) -> bool:
        return peer in self._live[stage] and peer not in self._cut_off

    def _deadline(self, trip: Trip) -> float:
        if trip.letting is not None:
            return trip.letting.until
        stage = self._suspect(trip)
        peer = trip.route[stage]
        if peer is None:
            return math.inf
        if not self._within_reach(stage, peer):
            return trip.at + CUT_OFF_S
        patience_s = self._wirings[stage].patience_s(peer, trip.load.rows)
        return trip.at + patience_s * 2.0 ** min(trip.late, MAX_DOUBLINGS)
