"""The last act of a local run: fetch all replicas, merge, evaluate, let the model write, save."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from peers import export
from peers.nursery import RESULT
from peers.station import Station
from swarmnet.config import PeerConfig, RunFile
from swarmnet.data import Corpus
from swarmnet.events import Evaluated, SampleWritten
from swarmnet.model import ModelBuilder, Tokenizer
from swarmnet.train.evaluate import generate, held_out_loss
from swarmnet.train.flat import flatten_parameters
from swarmnet.wire.invite import Invite

HELD_OUT_TOKENS = 1 << 17
PROMPT = "def "
SAMPLE_TOKENS = 300
TEMPERATURE = 0.7


def finish_child(out: Path, invite: str, model: str, settings: Mapping[str, Any]) -> int:
    """Write the merged checkpoint to ``model`` and the figures to ``out``."""
    peer = PeerConfig.model_validate(settings)
    torch.set_num_threads(peer.threads or 1)
    station = Station.open(out, out.name, peer)
    try:
        merged = export.from_swarm(station, Invite.decode(invite))
        assert isinstance(merged, export.Merged)
        merged.save(peer.models, Path(model))
        Finish(station, merged.run).tell(merged)
    finally:
        station.close()
    (out / RESULT).write_text(json.dumps(merged.figures()))
    return 0


class Finish:
    """Evaluates weights one after the other in one module."""

    def __init__(self, station: Station, run: RunFile) -> None:
        config, peer = run.config, station.peer
        builder: ModelBuilder = config.model.build("model", peer.models)
        self._module = builder.build(config.seed)
        self._flat = flatten_parameters(self._module)
        self._tokenizer: Tokenizer = builder.tokenizer()
        corpus: Corpus = config.data.build("data", self._tokenizer, peer.texts, peer.cache)
        self._held_out = corpus.held_out
        self._run = config
        self._log = station.log

    def tell(self, merged: export.Merged) -> None:
        for peer, theta in merged.replicas.items():
            self._evaluate(peer, theta)
        self._evaluate("merged", merged.theta)
        prompt = self._tokenizer.encode(PROMPT)
        ids = generate(self._module, list(prompt), SAMPLE_TOKENS, self._run.seed, TEMPERATURE)
        self._log.emit(SampleWritten(PROMPT, self._tokenizer.decode(ids)))

    def _evaluate(self, subject: str, theta: Tensor) -> None:
        with torch.no_grad():
            self._flat.copy_(theta)
        loss, tokens = held_out_loss(self._module, self._held_out, self._run.batch, HELD_OUT_TOKENS)
        self._log.emit(Evaluated(subject, loss, tokens))
