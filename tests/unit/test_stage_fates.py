"""What a stage peer tells trainers of a step that holds more samples than one letter names."""

from __future__ import annotations

from swarmnet.pipeline.record import Place
from swarmnet.pipeline.stagebook import StageBook
from swarmnet.wire.letters import MAX_SAMPLES, Forward

ME, TRAINER = "QmServesThis", "QmTrainsThis"
IDS = bytes(4 * 2)


def test_a_step_of_more_samples_than_a_letter_names_is_told_in_several():
    book = StageBook(Place(ME, 0, 1, max_waiting=2 * MAX_SAMPLES, max_held=2 * MAX_SAMPLES), bool)
    samples = range(1, MAX_SAMPLES + 89)
    for sample in samples:
        letter = Forward(
            sample=sample, attempt=0, stage=0, trainer=TRAINER, route=(ME,), mask=b"\x01",
            rows=1, length=1, nbytes=len(IDS),
        )  # fmt: skip
        assert book.on_forward(TRAINER, letter, memoryview(IDS), 0.0) == []
    told = [act.letter for act in book.commit(samples, 7)]
    assert [len(fates.samples) for fates in told] == [MAX_SAMPLES, 88]
    assert [sample for fates in told for sample in fates.samples] == list(samples)
    assert {fates.step for fates in told} == {7}
