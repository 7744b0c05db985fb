"""How fast the links of a run were, and who stands out: key ``links`` of ``summary.json``.

A statistic for people. Nothing in the swarm acts on it.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable
from typing import Any

from peers.story import Record, Story
from swarmnet.exchange.blame import Blame


def links(story: Story) -> dict[str, Any]:
    """Figures of every peer, relative to the median of all links, and the verdicts.

    ``sends`` and ``receives`` per byte of payload, ``starts`` until the first byte, as multiples of
    the median, null when not measured; ``answer_s`` the median time to answer an offer in seconds;
    ``unanswered`` the latest calls in a row that came to nothing.
    """
    lines = [line for worker in story.workers for line in worker.exchanges]
    lines.sort(key=lambda line: float(line["time"]))
    blame = _blame(story, lines)
    answers = _answers(story, lines)
    sends, receives, starts = blame.sends(), blame.receives(), blame.starts()
    silent = blame.silent()
    return {
        "measured": blame.measured,
        "peers": {
            worker.name: {
                "sends": sends.get(worker.name),
                "receives": receives.get(worker.name),
                "starts": starts.get(worker.name),
                "answer_s": answers.get(worker.name),
                "unanswered": silent.get(worker.name, 0),
            }
            for worker in story.workers
        },
        "verdicts": [
            dataclasses.asdict(verdict) | {"said": verdict.say()} for verdict in blame.verdicts()
        ],
    }


def _blame(story: Story, lines: Iterable[Record]) -> Blame:
    blame = Blame()
    died = {worker.name: worker.ended for worker in story.workers if not worker.survived}
    for line in lines:
        partner = story.name_of(line["partner"])
        if float(line["time"]) >= died.get(partner, math.inf):
            continue  # that it is silent tells nothing of its links
        if line.get("receive_s"):
            blame.moved(partner, line["peer"], line["payload_bytes"], line["receive_s"])
        if not line.get("called"):
            continue
        answered = bool(line["answer_s"])
        if answered or line["outcome"] == "failed":
            blame.called(partner, answered=answered)
        if answered and line["receive_s"]:
            blame.started(partner, line["peer"], line["start_s"])
    return blame


def _answers(story: Story, lines: Iterable[Record]) -> dict[str, float]:
    """Median seconds until each peer answered."""
    seen: dict[str, list[float]] = {}
    for line in lines:
        if line.get("answer_s"):
            seen.setdefault(story.name_of(line["partner"]), []).append(line["answer_s"])
    return {peer: statistics.median(answers) for peer, answers in seen.items()}
