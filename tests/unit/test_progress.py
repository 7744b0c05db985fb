"""How far a run is, from what its peers say."""

from __future__ import annotations

import time

from peers.progress import Progress
from swarmnet.config import Target
from swarmnet.exchange.membership import Membership, Status

TARGET = Target(tokens=1000, minutes=10.0)


def progress(**tokens: tuple[int, int]) -> Progress:
    """Among peers that have read so many tokens, and hold so many in their steps."""
    view = Membership("me", 1e6)
    for peer, (read, committed) in tokens.items():
        said = Status(1, 1, "serving", tokens=read, committed=committed)
        view.observe(peer, said, time.monotonic())
    made = Progress(TARGET, view)
    made.refresh()
    return made


def test_what_all_have_read_counts_together() -> None:
    assert progress(ann=(200, 0), bob=(100, 0)).share(50, 0.0) == 0.35


def test_what_stages_hold_is_a_floor_and_counts_no_reader_twice() -> None:
    """A lone trainer has read all that they hold; after a power cut nobody knows who did."""
    stages = {"ann": (0, 400), "bob": (0, 390)}
    assert progress(**stages).share(420, 0.0) == 0.42
    assert progress(**stages).share(0, 0.0) == 0.4
    assert progress(**stages).tokens(0) == 400


def test_all_see_the_end_at_once_whoever_holds_most() -> None:
    """A stage peer counts its own weights as others do."""
    stranger, behind, ahead = (210, 0), (0, 990), (0, 1000)
    assert progress(behind=behind, ahead=ahead).share(210, 0.0) == 1
    assert progress(stranger=stranger, ahead=ahead).share(0, 0.0, 990) == 1
    assert progress(stranger=stranger, behind=behind).share(0, 0.0, 1000) == 1


def test_the_clock_ends_a_run_too() -> None:
    assert progress(ann=(200, 0)).share(0, 300.0) == 0.5
    assert progress(ann=(200, 0)).share(0, 6000.0) == 1.0
