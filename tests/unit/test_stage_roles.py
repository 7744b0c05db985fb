"""Which stages a machine serves: one, some, or all of them as a whole replica."""

from types import SimpleNamespace

import pytest

from peers.roles import chosen, stages
from peers.station import Station
from swarmnet.config import PeerConfig
from swarmnet.errors import ConfigError
from swarmnet.events import EventLog, PeerFinished
from swarmnet.net.identity import load_or_create


@pytest.mark.parametrize(
    ("said", "meant"),
    [(None, None), ("2", [2]), ("2,0,2", [0, 2]), (" 1 , 3", [1, 3]), ("all", [])],
)
def test_stages_are_asked_for_by_number_or_all_at_once(said, meant):
    assert chosen(said) == meant


@pytest.mark.parametrize("said", ["", "a", "1,", "-1", "1-3", "all,1"])
def test_what_is_no_list_of_stages_is_refused_in_one_line(said):
    with pytest.raises(ConfigError, match="give a number, several with commas, or all"):
        chosen(said)


def test_each_peer_of_a_machine_has_its_own_key_port_and_folder(tmp_path):
    log = EventLog(tmp_path / "events.jsonl", "fat")
    identity = load_or_create(tmp_path / "identity.key")
    station = Station(tmp_path, "fat", PeerConfig(port=4000), None, identity, log, None)
    branches = [station.branch(part) for part in (0, 1)]
    again = station.branch(1)
    assert len({identity.peer_id, *(b.identity.peer_id for b in branches)}) == 3
    assert again.identity.peer_id == branches[1].identity.peer_id
    assert [branch.peer.port for branch in branches] == [4000, 4001]
    heard = []
    log.listen(heard.append)
    done = PeerFinished("finished", 0, 0, 0, 0, 0, 0, 0.0, 0.0, 0)
    for branch in branches:
        branch.log.emit(done)
    assert [line["peer"] for line in heard] == ["fat-0", "fat-1"]
    assert len((tmp_path / "events.jsonl").read_text().splitlines()) == 2
    log.close()


def test_several_stages_import_their_model_before_their_threads_do(monkeypatch, tmp_path):
    """transformers imports what is asked for by and by, and two threads at once break that."""
    order = []
    builder = SimpleNamespace(plan=lambda stages: order.append(f"plan of {stages}"))
    config = SimpleNamespace(
        pipeline=SimpleNamespace(stages=2), model=SimpleNamespace(build=lambda *_: builder)
    )

    class Peer:
        def __init__(self, *_):
            pass

        def run(self):
            order.append("run")
            return 0

    async def learn(*_):
        return SimpleNamespace(config=config, raw=b"")

    monkeypatch.setattr(stages, "_learn", learn)
    monkeypatch.setattr(stages, "StagePeer", Peer)
    station = Station.open(tmp_path, "fat", PeerConfig())
    assert stages.serve_stages(station, None, None, []) == 0
    assert order == ["plan of 2", "run", "run"]
