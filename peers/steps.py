"""The two ways in which a stage peer makes steps of gradients, joined to the process's link."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from peers.link import Link
from swarmnet.config import RunConfig
from swarmnet.events import Event
from swarmnet.exchange.among import Among
from swarmnet.exchange.consensus import Plan
from swarmnet.exchange.desk import Desk
from swarmnet.exchange.driver import Gossip
from swarmnet.exchange.links import Links
from swarmnet.exchange.surroundings import Surroundings
from swarmnet.exchange.window import Window
from swarmnet.pipeline.apart import Apart, Meetings
from swarmnet.pipeline.assembly import Place
from swarmnet.pipeline.past import Past
from swarmnet.pipeline.served import ServedStage, Setting, together
from swarmnet.pipeline.steps import Steps
from swarmnet.train.replica import Replica


@dataclass(frozen=True)
class Ground:
    """What the steps of a stage stand on at this peer."""

    run: RunConfig
    link: Link
    replica: Replica
    emit: Callable[[Event], None]

    def steps(self, place: Place, setting: Setting, stage: ServedStage) -> Steps:
        """As the run says; a ``served.Maker``."""
        if self.run.pipeline.step == "together":
            return together(place, setting, stage)
        return _apart(self, place, setting, stage)


def progress(run: RunConfig, link: Link) -> Callable[[Past], float]:
    """How far the run is at a step that leads to a past; 0 to 1."""
    return _of_all_steps(run) if run.pipeline.step == "together" else lambda _: _of_run(link)


def _of_all_steps(run: RunConfig) -> Callable[[Past], float]:
    """The same at every peer of the stage, whatever their clocks say."""
    target = run.target

    def share(past: Past) -> float:
        elapsed = past.elapsed_s / (60 * target.minutes)
        return min(1.0, max(past.committed / target.tokens, elapsed))

    return share


def _of_run(link: Link) -> float:
    return link.progress.share(0, 0.0)


def _apart(ground: Ground, place: Place, setting: Setting, stage: ServedStage) -> Apart:
    run, link, replica = ground.run, ground.link, ground.replica
    phase = run.consensus
    rng = random.Random(f"{run.seed} {place.me} {place.stage}")
    window = Window(place.me, run.cadence.build("cadence"), run.matching.build("matching"), rng)

    def wants(step: int, progress: float) -> bool:
        return gossip.stance == "consensus" or window.welcome_at(step, progress)

    desk = Desk(replica, wants)
    around = Surroundings(
        transport=link.node,
        membership=Among(
            link.membership, lambda status: (status.role, status.stage) == ("stage", place.stage)
        ),
        links=Links(),
        mine=link.phonebook.mine,
        offload=setting.tools.offload,
        emit=ground.emit,
    )
    # A peer that moves and comes back must not number its rounds as before.
    gossip = Gossip(around, window, desk, replica, int(time.time()))
    plan = Plan(phase.matching.build("matching"), run.seed, phase.budget_s, phase.bound)
    meetings = Meetings(gossip, desk, replica, around, plan, partial(_of_run, link))
    return Apart(meetings, stage, place.target)
