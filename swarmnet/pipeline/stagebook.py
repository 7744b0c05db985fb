"""What a stage peer knows of each sample: a pure machine from letters and results to letters.

Rules
-----
1. A sample is known by its id. A letter that comes twice is answered from what is kept; it is
   computed and counted once. Letters of an older attempt than the newest known are ignored.
2. The output is kept until the trainer forgets the sample, so that it can be sent on to another
   peer when the next one was lost; the answer likewise for the stage before.
3. A sample counts here once its weight gradient is in the sums, and only if the mask says so and
   no earlier commit holds it. That is settled when its backward begins; from then on it is *held*.
4. Gradients are never refused, forwards are when too many wait: so a full pipeline drains.
5. Backward goes before forward, and weight gradients wait until nothing else does, or until many
   of them wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from swarmnet.errors import MessageError
from swarmnet.pipeline.acts import Act, Drop, Say
from swarmnet.pipeline.record import Phase, Place, Record, Task
from swarmnet.pipeline.works import NOTHING, Answer, Entry, Exit, Gradient
from swarmnet.wire.letters import (
    MAX_SAMPLES,
    Backward,
    Fate,
    Fates,
    Forget,
    Forward,
    Inquire,
    News,
    Receipt,
    Resume,
    mask_stages,
)

LATEST_W = 8
"""Weight gradients that may wait while other work goes first: each keeps its activations."""
RETRY_FLOOR_S = 0.05
CLOSED_S = 2.0
MAX_REMEMBERED = 4096
"""Records of samples that a trainer never forgot: the oldest answered ones go first."""
ABANDONED_S = 120.0
"""A gradient that is awaited for longer makes room for a new sample. Should it come after all, the
trainer finds out that nobody has the sample, and sends it again."""
FORGOTTEN_S = 900.0
"""Nobody resumes a trip after so long: answered samples go, whether a trainer said so or not."""


class StageBook:
    """One stage peer's samples. Times are the caller's seconds."""

    def __init__(self, place: Place, committed: Callable[[int], bool]) -> None:
        """``committed``: whether a step of this stage, as far as remembered, holds a sample."""
        self.place = place
        self.held: dict[int, int] = {}
        """Samples in the sums, or on their way there for certain, with their tokens."""
        self.steps: dict[int, int] = {}
        """Newest step heard of, by stage; this peer's own is the caller's to set."""
        self.work_s = 0.05
        """What a forward takes, smoothed: for retry times."""
        self.closed = False
        """No new sample is taken: this peer is about to leave the stage."""
        self.behind = False
        """Nor while the state of a mate is awaited: whatever counts now will be dropped."""
        self.asked = self.served = 0
        """Sequences that came to the door, refused or not, and those that were answered."""
        self._committed = committed
        self._records: dict[int, Record] = {}
        self._in: dict[Phase, dict[int, None]] = {phase: {} for phase in Phase}

    # ---- letters ----------------------------------------------------------------------------

    def on_forward(self, peer: str, letter: Forward, payload: memoryview, now: float) -> list[Act]:
        """Raises MessageError at what ``peer`` cannot say to this stage."""
        self._check_sender(peer, letter)
        self._hear_steps(letter.steps)
        known = self._records.get(letter.sample)
        if known is not None:
            if letter.trainer != known.letter.trainer or letter.attempt < known.attempt:
                return []
            known.letter = letter
            return self._again(known, letter)
        self.asked += letter.rows
        acts = self._make_room(now)
        waiting = len(self._in[Phase.WAITING])
        full = waiting >= self.place.max_waiting or self._unanswered() >= self.place.max_held
        if self.closed or self.behind or full:
            retry_s = max(RETRY_FLOOR_S, self.work_s * waiting / 2) if full else CLOSED_S
            return [*acts, self._receipt(letter, "busy", retry_s=retry_s)]
        ids = 4 * letter.rows * (letter.length + 1)
        if len(payload) < ids or (self.place.stage == 0) != (len(payload) == ids):
            return [*acts, self._receipt(letter, "refused")]
        entry = Entry(letter.sample, letter.rows, letter.length, payload[:ids], payload[ids:])
        mask = mask_stages(letter.mask)
        record = Record(letter, entry, now, letter.route, letter.attempt, mask)
        self._records[letter.sample] = record
        self._in[Phase.WAITING][letter.sample] = None
        return acts

    def on_resume(self, peer: str, letter: Resume) -> list[Act]:
        """The trainer has found another way from here on."""
        record = self._records.get(letter.sample)
        if record is None or peer != record.letter.trainer:
            receipt = Receipt(
                sample=letter.sample, attempt=letter.attempt, stage=letter.stage, what="unknown"
            )
            return [Say(peer, receipt)]
        if letter.attempt < record.attempt:
            return []
        self._check_route(letter.route)
        return self._again(record, letter)

    def on_backward(
        self, peer: str, letter: Backward, payload: memoryview, now: float
    ) -> list[Act]:
        """Raises MessageError when ``peer`` is not who got the output."""
        self._hear_steps(letter.steps)
        record = self._records.get(letter.sample)
        if record is None or letter.attempt < record.attempt:
            return []
        if letter.stage != self.place.stage or peer != record.receiver(self.place):
            raise MessageError("a gradient from who got no output")
        record.attempt, record.awaits = letter.attempt, False
        if record.answer is not None:
            return self._answer(record)
        if record.phase is Phase.SENT:
            record.gradient, record.since = payload, now
            self._move(record, Phase.GOT)
        return []

    def on_forget(self, peer: str, letter: Forget) -> list[Act]:
        acts: list[Act] = []
        for sample in letter.samples:
            record = self._records.get(sample)
            if record is not None and record.letter.trainer == peer:
                acts += self._forget(sample, record)
        return acts

    def on_inquire(self, peer: str, letter: Inquire, step: int) -> list[Act]:
        """The answer, and what follows from letting go."""
        fates = tuple(self._fate(sample) for sample in letter.samples)
        answer = Fates(stage=self.place.stage, step=step, samples=letter.samples, fates=fates)
        let_go = self.on_forget(peer, Forget(samples=letter.samples)) if letter.let_go else []
        return [*let_go, Say(peer, answer)]

    def lost(self, peer: str) -> list[Act]:
        """The line to ``peer`` broke: outputs that it had got are on nobody's way."""
        return [
            self._receipt(record.letter, "unreached", stage=self.place.stage + 1)
            for record in self._records.values()
            if record.awaits and record.receiver(self.place) == peer
        ]

    # ---- work -------------------------------------------------------------------------------

    def next_task(self) -> tuple[Task, list[int]] | None:
        """What to compute now, and for which samples; they are marked as under way."""
        most, heavy = self.place.max_batch, len(self._in[Phase.HEAVY])
        turning = list(self._in[Phase.GOT])
        if turning and heavy < LATEST_W:
            return self._turn(turning[:most])
        waiting = self._of(Phase.WAITING)
        if waiting and heavy < LATEST_W:
            shape = _shape(waiting[0])
            alike = [record.letter.sample for record in waiting if _shape(record) == shape]
            return self._begin(Task.FORWARD, Phase.FORWARDING, alike[:most])
        return (Task.WEIGH, []) if heavy else None

    def record(self, sample: int) -> Record:
        return self._records[sample]

    def gradient(self, sample: int) -> Gradient:
        record = self._records[sample]
        counts = sample in self.held
        return Gradient(sample, record.handle, record.entry, record.gradient, counts)

    def forwarded(self, sample: int, done: Exit, now: float) -> list[Act]:
        record = self._records[sample]
        if record.forgotten:
            self._delete(record)
            return [Drop(done.handle)]
        record.handle, record.version, record.output = done.handle, done.version, done.output
        record.loss, record.tokens, record.since = done.loss, done.tokens, now
        self._move(record, Phase.GOT if self.place.last else Phase.SENT)
        self.work_s += 0.1 * (record.busy_s - self.work_s)
        receipt = self._receipt(record.letter, "forwarded", record)
        return [receipt, *self._onward(record)]

    def refused(self, sample: int) -> list[Act]:
        """What came cannot be: not finite, not of its size. The trainer knows who sent it."""
        record = self._records[sample]
        self._delete(record)
        self.held.pop(sample, None)
        dropped = [Drop(record.handle)] if record.handle is not None else []
        return [*dropped, self._receipt(record.letter, "refused", record)]

    def soured(self, sample: int) -> list[Act]:
        """The gradient that came cannot be: another one is waited for."""
        record = self._records[sample]
        self.held.pop(sample, None)
        record.gradient = NOTHING
        if record.forgotten:
            return self._free(record)
        self._move(record, Phase.SENT)
        return [self._receipt(record.letter, "soured", record)]

    def turned(self, sample: int, answer: Answer, now: float) -> list[Act]:
        record = self._records[sample]
        self.served += record.entry.rows
        if record.forgotten and sample not in self.held:
            self._delete(record)
            return []
        record.answer, record.handle = answer.payload, None
        record.gradient, record.since = NOTHING, now
        acts = self._answer(record)
        if sample in self.held:
            self._move(record, Phase.HEAVY)
            return acts
        self._move(record, Phase.ANSWERED)
        return [*acts, self._receipt(record.letter, "answered", record)]

    def weighed(self, samples: Iterable[int]) -> list[Act]:
        """Their weight gradients are in the sums: from now on they count."""
        acts: list[Act] = []
        for sample in samples:
            record = self._records.get(sample)
            if record is not None and record.phase is Phase.HEAVY:
                self._move(record, Phase.ANSWERED)
                acts.append(self._receipt(record.letter, "counted", record))
        return acts

    @property
    def load(self) -> tuple[int, int]:
        """(forwards that wait, samples not yet answered)."""
        return len(self._in[Phase.WAITING]), self._unanswered()

    # ---- steps ------------------------------------------------------------------------------

    def commit(self, samples: Iterable[int], step: int) -> list[Act]:
        """A step of this stage holds these; each trainer hears of its own."""
        known = [sample for sample in samples if sample in self._records]
        for sample in known:
            self.held.pop(sample, None)
        return self._tell(known, "committed", step)

    def void(self, samples: Iterable[int], step: int) -> list[Act]:
        """These were dropped from the sums, or from the way there: nothing of them counts."""
        known = [sample for sample in samples if sample in self._records]
        for sample in known:
            self.held.pop(sample, None)
            if self._records[sample].phase is Phase.HEAVY:
                self._move(self._records[sample], Phase.ANSWERED)
        return self._tell(known, "void", step)

    # ---- inside -----------------------------------------------------------------------------

    def _fate(self, sample: int) -> Fate:
        if self._committed(sample):
            return "committed"
        return "held" if sample in self.held else "unknown"

    def _of(self, phase: Phase) -> list[Record]:
        return [self._records[sample] for sample in self._in[phase]]

    def _move(self, record: Record, phase: Phase) -> None:
        sample = record.letter.sample
        del self._in[record.phase][sample]
        record.phase = phase
        self._in[phase][sample] = None

    def _delete(self, record: Record) -> None:
        sample = record.letter.sample
        del self._in[record.phase][sample], self._records[sample]

    def _unanswered(self) -> int:
        answered = len(self._in[Phase.ANSWERED]) + len(self._in[Phase.HEAVY])
        return len(self._records) - answered

    def _begin(self, task: Task, phase: Phase, samples: list[int]) -> tuple[Task, list[int]]:
        for sample in samples:
            self._move(self._records[sample], phase)
        return task, samples

    def _turn(self, samples: list[int]) -> tuple[Task, list[int]]:
        for sample in samples:
            record = self._records[sample]
            if self._counts(sample, record):
                self.held[sample] = record.tokens
        return self._begin(Task.BACKWARD, Phase.TURNING, samples)

    def _counts(self, sample: int, record: Record) -> bool:
        """Whether it shall count here and does not yet."""
        wanted = self.place.stage in record.mask
        return wanted and sample not in self.held and not self._committed(sample)

    def _again(self, record: Record, letter: Forward | Resume) -> list[Act]:
        """A newer attempt: another route perhaps, and a mask that may ask to count after all."""
        record.attempt, record.route = letter.attempt, letter.route
        record.mask, record.forgotten = mask_stages(letter.mask), False
        record.letter = record.letter.model_copy(
            update={"attempt": letter.attempt, "route": letter.route, "mask": letter.mask}
        )
        sample = letter.sample
        wants = self._counts(sample, record) and record.phase is Phase.ANSWERED
        if wants:  # it was answered without counting, or its sums were dropped: once more
            record.answer = None
            self._move(record, Phase.WAITING)
            return []
        if record.phase is Phase.SENT:
            return self._onward(record)
        if record.phase in (Phase.WAITING, Phase.FORWARDING):
            return []
        acts: list[Act] = []
        if record.phase is Phase.ANSWERED:
            counted = sample in self.held or self._committed(sample)
            acts = [self._receipt(record.letter, "counted" if counted else "answered", record)]
        if any(stage > self.place.stage for stage in record.mask):
            return [*acts, *self._onward(record)]
        return [*acts, *self._answer(record)]

    def _onward(self, record: Record) -> list[Act]:
        if self.place.last:
            return []
        record.awaits = True
        letter = record.letter.model_copy(
            update={
                "stage": self.place.stage + 1,
                "version": record.version,
                "steps": self._told_steps(),
                "nbytes": len(record.entry.ids) + len(record.output),
            }
        )
        return [Say(record.receiver(self.place), letter, (record.entry.ids, record.output))]

    def _answer(self, record: Record) -> list[Act]:
        if self.place.stage == 0 or record.answer is None:
            return []
        letter = Backward(
            sample=record.letter.sample,
            attempt=record.attempt,
            stage=self.place.stage - 1,
            version=record.letter.version,
            steps=self._told_steps(),
            nbytes=len(record.answer),
        )
        return [Say(record.route[self.place.stage - 1], letter, (record.answer,))]

    def _receipt(
        self,
        letter: Forward,
        what: News,
        record: Record | None = None,
        *,
        stage: int | None = None,
        retry_s: float = 0.0,
    ) -> Say:
        receipt = Receipt(
            sample=letter.sample,
            attempt=letter.attempt,
            stage=self.place.stage if stage is None else stage,
            what=what,
            version=record.version if record else 0,
            loss=record.loss if record else 0.0,
            tokens=record.tokens if record else 0,
            busy_s=record.busy_s if record else 0.0,
            waited_s=record.waited_s if record else 0.0,
            retry_s=retry_s,
        )
        return Say(letter.trainer, receipt)

    def _tell(self, samples: Iterable[int], fate: Fate, step: int) -> list[Act]:
        by_trainer: dict[str, list[int]] = {}
        for sample in samples:
            record = self._records.get(sample)
            if record is not None:
                by_trainer.setdefault(record.letter.trainer, []).append(sample)
        return [
            Say(trainer, self._fates(own[start : start + MAX_SAMPLES], fate, step))
            for trainer, own in by_trainer.items()
            for start in range(0, len(own), MAX_SAMPLES)
        ]

    def _fates(self, samples: Sequence[int], fate: Fate, step: int) -> Fates:
        fates = (fate,) * len(samples)
        return Fates(stage=self.place.stage, step=step, samples=tuple(samples), fates=fates)

    def _check_sender(self, peer: str, letter: Forward) -> None:
        self._check_route(letter.route)
        before = letter.trainer if self.place.stage == 0 else letter.route[self.place.stage - 1]
        if letter.stage != self.place.stage or peer not in (before, letter.trainer):
            raise MessageError("a microbatch that is not for this stage, or not from its sender")

    def _check_route(self, route: Sequence[str]) -> None:
        if len(route) != self.place.stages or route[self.place.stage] != self.place.me:
            raise MessageError("a route that does not lead here")

    def _hear_steps(self, steps: Sequence[int]) -> None:
        for stage, step in enumerate(steps[: self.place.stages]):
            self.steps[stage] = max(step, self.steps.get(stage, 0))

    def _told_steps(self) -> tuple[int, ...]:
        return tuple(self.steps.get(stage, 0) for stage in range(self.place.stages))

    def _forget(self, sample: int, record: Record) -> list[Act]:
        if sample in self.held:
            return []  # its trip goes on, with what is kept of it here
        if record.phase in (Phase.FORWARDING, Phase.TURNING):
            record.forgotten = True
            return []
        return self._free(record)

    def _free(self, record: Record) -> list[Act]:
        self._delete(record)
        return [Drop(record.handle)] if record.handle is not None else []

    def _make_room(self, now: float) -> list[Act]:
        """A trainer that died, or never got through to here again, forgets nothing."""
        acts: list[Act] = []
        done = (s for s in self._in[Phase.ANSWERED] if s not in self.held)
        oldest = self._records.get(next(done, -1))
        if oldest is not None:
            old = now > oldest.since + FORGOTTEN_S
            if old or len(self._records) >= MAX_REMEMBERED:
                acts += self._free(oldest)
        if self._unanswered() >= self.place.max_held:
            oldest = self._records.get(next(iter(self._in[Phase.SENT]), -1))
            if oldest is not None and now > oldest.since + ABANDONED_S:
                acts += self._free(oldest)
        return acts


def _shape(record: Record) -> tuple[int, int]:
    return record.entry.rows, record.entry.length
