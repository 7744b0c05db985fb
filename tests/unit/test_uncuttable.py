"""A model with fewer blocks than stages: a bootstrap refuses the run, and so does every peer."""

from pathlib import Path

import pytest

from peers.roles.stage import StagePeer
from peers.roles.trainer import TrainerPeer
from peers.station import Station
from swarmnet.config import PeerConfig, RunFile
from swarmnet.errors import ModelError
from swarmnet.wire.invite import Invite

RUN = Path(__file__).parents[1] / "swarm" / "tiny_pipeline.toml"
NOBODY = Invite("tiny-pipeline", "0" * 32, (), "")


@pytest.mark.parametrize(
    ("make", "look"),
    [(StagePeer, StagePeer._check_run), (TrainerPeer, TrainerPeer._read)],
    ids=["stage peer", "trainer"],
)
def test_a_run_that_another_bootstrap_let_through_is_refused(tmp_path, make, look):
    station = Station.open(tmp_path, "p", PeerConfig(device="cpu"))
    try:
        with pytest.raises(ModelError, match=r"pipeline.stages = 3: the model has 2 blocks"):
            look(make(station, NOBODY), RunFile.load(RUN, ["pipeline.stages=3"]))
    finally:
        station.close()
