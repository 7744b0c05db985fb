"""Stages that step apart as real processes: a machine with a whole replica beside thin peers."""

from pathlib import Path

from peers import export
from peers.station import Station
from swarmnet.config import PeerConfig
from swarmnet.wire.invite import Invite
from tests.swarm.herd import Herd

APART = (
    "target.tokens=60000",
    "pipeline.stages=2",
    "pipeline.step=apart",
    "pipeline.batch=8",
    "outer=noloco",
    "wiring=uniform",
    "model.config.num_hidden_layers=2",
)


def test_a_fat_peer_and_thin_ones_train_as_replicas_and_become_one(tmp_path: Path) -> None:
    with Herd(tmp_path, *APART) as herd:

        def start(name, role, *stages):
            return herd.nursery.start(name, role, herd.invite, herd.settings, *stages)

        start("fat", "stage_child", "all")
        thin = [start(f"thin-{stage}", "stage_child", stage) for stage in (0, 1)]
        start("trainer", "trainer_child")
        peers = ["fat-0", "fat-1", *(child.name for child in thin)]
        herd.wait_met(*peers, times=2)
        herd.wait_finished("trainer")

        def averaged(peer):
            return [e for e in herd.of(peer, "exchange") if e["phase"] == "consensus"]

        herd.wait(lambda: all(averaged(peer) for peer in peers), "consensus at both stages")
        station = Station.open(tmp_path / "export", "export", PeerConfig(host="127.0.0.1"))
        try:
            found = export.from_swarm(station, Invite.decode(herd.invite))
        finally:
            station.close()
    ledger = herd.of("trainer", "trips")[-1]
    assert ledger["settled"] == ledger["begun"] > 0
    losses = [e["loss"] for e in herd.of("trainer", "trips") if e["trips"]]
    assert losses[-1] < losses[0] - 0.5
    for peer in peers:
        steps = herd.of(peer, "stage_step")
        assert {e["members"] for e in steps} == {1}
        assert {e["samples"] for e in steps[:-1]} == {2}
    assert {e["stage"] for e in herd.of("fat-0", "stage_step")} == {0}
    found.save({}, tmp_path / "model")
    from transformers import AutoModelForCausalLM

    assert AutoModelForCausalLM.from_pretrained(tmp_path / "model").num_parameters() == sum(
        theta.numel() for theta in found.thetas
    )
