"""The last act of a local pipeline: fetch all stages, join, check, evaluate, let the model write.

The checkpoint is checked against what was trained: its logits are compared with those of the
stages called one after the other. A boundary that is trained with the model has weights for which
``transformers`` has no place; then the stages themselves are evaluated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from peers import export
from peers.finish import HELD_OUT_TOKENS, PROMPT, SAMPLE_TOKENS, TEMPERATURE
from peers.joined import Joined
from peers.nursery import RESULT
from peers.station import Station
from swarmnet.boundary import Boundary
from swarmnet.config import PeerConfig
from swarmnet.data import Corpus
from swarmnet.events import Evaluated, SampleWritten
from swarmnet.model import ModelBuilder, StageModule, Tokenizer, logits
from swarmnet.model._stages import BOUNDARY
from swarmnet.train.evaluate import generate, held_out_loss
from swarmnet.wire.invite import Invite

WITNESSES = 64
CHECKED_WINDOWS = 8


def join_child(out: Path, invite: str, model: str, settings: Mapping[str, Any]) -> int:
    """Write the joined checkpoint to ``model`` and the figures to ``out``."""
    peer = PeerConfig.model_validate(settings)
    torch.set_num_threads(peer.threads or 1)
    station = Station.open(out, out.name, peer)
    try:
        joined = export.from_swarm(station, Invite.decode(invite), WITNESSES)
        assert isinstance(joined, Joined)
        joined.save(peer.models, Path(model))
        figures = joined.figures() | Ending(station, joined).tell(Path(model))
    finally:
        station.close()
    (out / RESULT).write_text(json.dumps(figures))
    return 0


class Chain(nn.Module):
    """All stages one after the other in one process, called as a ``transformers`` model is.

    No codec lies between them: these are the logits that a checkpoint of them has to give.
    """

    def __init__(self, stages: Sequence[StageModule]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.config = stages[0].body.config
        self.width = stages[0].width

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> SimpleNamespace:
        """(B, T) int64 ids -> ``logits``, (B, T, V). ``use_cache``: there is none."""
        first, *others = self.stages
        values = first(input_ids)
        for stage in others:
            values = stage(input_ids, values)
        return SimpleNamespace(logits=values)

    @property
    def plain(self) -> bool:
        """The boundaries learn nothing of their own, so a plain checkpoint holds all there is."""
        names = (name for stage in self.stages for name, _ in stage.named_parameters())
        return not any(name.startswith(BOUNDARY) for name in names)


class Ending:
    """Tells the log how good the joined model is."""

    def __init__(self, station: Station, joined: Joined) -> None:
        config, peer = joined.run.config, station.peer
        builder: ModelBuilder = config.model.build("model", peer.models)
        stages = range(config.pipeline.stages)
        self._chain = Chain([joined.module(peer.models, index) for index in stages]).eval()
        self._tokenizer: Tokenizer = builder.tokenizer()
        corpus: Corpus = config.data.build("data", self._tokenizer, peer.texts, peer.cache)
        self._held_out = corpus.held_out
        self._run = config
        self._log = station.log

    def tell(self, folder: Path) -> dict[str, Any]:
        """``plain``: ``transformers`` alone computes the model from the checkpoint in ``folder``.
        ``logits_difference``: the largest one, over held-out text; null where it is not plain.
        """
        plain = self._chain.plain
        model: nn.Module = _load(folder) if plain else self._chain
        batch = self._run.batch
        loss, tokens = held_out_loss(model, self._held_out, batch, HELD_OUT_TOKENS)
        self._log.emit(Evaluated("merged", loss, tokens))
        prompt = self._tokenizer.encode(PROMPT)
        ids = generate(model, list(prompt), SAMPLE_TOKENS, self._run.seed, TEMPERATURE)
        self._log.emit(SampleWritten(PROMPT, self._tokenizer.decode(ids)))
        apart = self._difference(model) if plain else None
        return {"plain": plain, "logits_difference": apart, "boundary": self._boundary()}

    def _boundary(self) -> dict[str, float]:
        """Bytes per token and direction at a cut; beside them travel 4 bytes of its id, forward."""
        boundary: Boundary = self._run.boundary.build("boundary")
        width, tokens = self._chain.width, self._run.batch.sequences * self._run.batch.length
        coded = boundary.max_nbytes(tokens, width) / tokens
        return {"bytes_per_token": coded, "fp32_bytes_per_token": 4.0 * width}

    def _difference(self, model: nn.Module) -> float:
        length = self._run.batch.length
        count = min(CHECKED_WINDOWS, self._held_out.size // length)
        ids = torch.from_numpy(self._held_out[: count * length].astype("int64").reshape(-1, length))
        with torch.no_grad():
            return float((logits(model, ids) - logits(self._chain, ids)).abs().max())


def _load(folder: Path) -> nn.Module:
    """As any reader of the checkpoint does."""
    from transformers import AutoModelForCausalLM

    model: nn.Module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval()
