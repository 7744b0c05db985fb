"""A process's membership of a run: whom it counts."""

import time

from peers.link import Link
from swarmnet.exchange.membership import Membership, Status


def test_volunteers_are_whoever_trains_in_whatever_role():
    members = Membership("me", renew_s=30.0)
    roles = {
        "ann": "worker",
        "bob": "stage",
        "cat": "trainer",
        "dan": "bootstrap",
        "eve": "visitor",
    }
    for peer, role in roles.items():
        members.observe(peer, Status(1, 1, "training", role=role), time.monotonic())
    members.observe("fay", Status(1, 1, "left", role="stage"), time.monotonic())
    link = Link(None, None, members, None, None, None, None)
    assert link.volunteers() == ["ann", "bob", "cat"]
    assert link.workers() == ["ann"]
