"""A replica: one peer's copy of the model, its optimizer and its slow state, as flat vectors.

The training thread owns it. The exchange sees it as the ``Subject`` of meetings: snapshots go out,
corrections come back, and the live weights move by displacement while inner steps go on.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from swarmnet.codec import Codec
from swarmnet.config import Choice, RunConfig
from swarmnet.errors import PayloadError
from swarmnet.exchange.desk import Correction
from swarmnet.inner import Inner
from swarmnet.outer import Outer
from swarmnet.reduce import Reduce
from swarmnet.train.flat import flatten_parameters, layout_hash, trainable_parameters


@dataclass(frozen=True)
class Rules:
    """The run's choices that act on a replica's vectors."""

    outer: Outer
    reduce: Reduce
    codec: Codec
    inner: Inner
    signature: str
    """Hash over layout, codec and outer rule: payloads mean the same only when it agrees."""

    @classmethod
    def of(cls, run: RunConfig, module: nn.Module) -> Rules:
        described = f"{layout_hash(module)} {run.codec!r} {run.outer!r} {run.reduce!r}"
        return cls(
            outer=run.outer.build("outer"),
            reduce=run.reduce.build("reduce"),
            codec=run.codec.build("codec"),
            inner=run.inner.build("inner", trainable_parameters(module)),
            signature=hashlib.sha256(described.encode()).hexdigest()[:32],
        )


class Replica:
    """Implements ``exchange.desk.Subject`` for a torch module. ``theta`` is (P,) float32."""

    def __init__(self, module: nn.Module, run: RunConfig, seed: int) -> None:
        """``module`` is on its device already; ``seed`` is this peer's own (codec noise)."""
        self.module = module
        self.theta: Tensor = flatten_parameters(module)
        self.rules = Rules.of(run, module)
        self.rules.outer.start(self.theta)
        self._outer = self.rules.outer
        self._generator = torch.Generator(device=self.theta.device).manual_seed(seed)
        self._snapshot = torch.empty_like(self.theta)
        self._met = False
        self._decoding = threading.Lock()
        self.layout = self.rules.signature
        self._reserve()
        self.steps_alone = run.outer.name != "average"

    # ---- for the exchange ---------------------------------------------------------------------

    def capture(self) -> Tensor:
        """Copy theta into the one snapshot buffer: (P,)."""
        return self._snapshot.copy_(self.theta)

    def encode(self, snapshot: Tensor) -> memoryview:
        with torch.no_grad():
            contribution = self._outer.contribution(snapshot)
            return memoryview(self.rules.codec.encode(contribution, self._generator)).cast("B")

    def correct(self, me: str, own: memoryview, peer: str, theirs: memoryview) -> Correction:
        """Both sides combine in the order of ids, so that they compute the same bits."""
        # The thread of a cancelled meeting may still be here when the next meeting comes.
        with self._decoding:
            return self._corrected(me, own, peer, theirs)

    @torch.no_grad()
    def _corrected(self, me: str, own: memoryview, peer: str, theirs: memoryview) -> Correction:
        mine, other = self._decoded
        self.rules.codec.decode(own, mine)
        self.rules.codec.decode(theirs, other)
        ordered = [mine, other] if me < peer else [other, mine]
        mean = self.rules.reduce.combine(ordered, [1.0, 1.0])
        vector = self._outer.correction(mine, mean)
        numel = self.theta.numel()
        difference = other[:numel].sub_(mine[:numel])
        return Correction(vector, float(torch.linalg.vector_norm(difference)) / numel**0.5)

    @torch.no_grad()
    def apply_met(self, snapshot: Tensor, correction: Tensor) -> None:
        self._met = True
        self.apply_solo(snapshot)
        self.apply_late(correction)

    @torch.no_grad()
    def apply_solo(self, snapshot: Tensor) -> None:
        """Before the first partner there is no outer step: alone it would only slow down."""
        if not self._met:
            return
        displacement = self._outer.solo(snapshot)
        if displacement is not None:
            self.theta += displacement

    @torch.no_grad()
    def apply_late(self, correction: Tensor) -> None:
        self._outer.settle(correction)
        self.theta += correction

    def enter_consensus(self) -> None:
        """Meetings are pure averages of theta from here on, so that the replicas become one."""
        self._outer = Choice(name="average").build("outer")
        self._outer.start(self.theta)
        self.layout = hashlib.sha256(f"consensus {self.layout}".encode()).hexdigest()[:32]
        self._reserve()

    # ---- for checkpoints, donors and joiners -----------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        """Copies of everything a joiner or a restart needs, on the CPU."""
        state = {"theta": self.theta.clone()}
        state |= {f"outer.{name}": t.clone() for name, t in self.rules.outer.tensors().items()}
        state |= {f"inner.{name}": t.clone() for name, t in self.rules.inner.tensors().items()}
        return {name: tensor.cpu() for name, tensor in state.items()}

    def load(self, tensors: Mapping[str, Tensor], *, met: bool) -> None:
        """Continue from ``tensors``. Raises PayloadError when they do not fit this model."""
        shapes = {name: tuple(tensor.shape) for name, tensor in self.tensors().items()}
        if {name: tuple(tensor.shape) for name, tensor in tensors.items()} != shapes:
            raise PayloadError("the state is of another model or of another optimizer")
        if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
            raise PayloadError("the state holds values that are not finite")
        with torch.no_grad():
            self.theta.copy_(tensors["theta"])
        self.rules.outer.load(self._part(tensors, "outer."))
        self.rules.inner.load(self._part(tensors, "inner."))
        self._met = met

    @property
    def met(self) -> bool:
        """Whether any partner was ever met: before that there is no outer step."""
        return self._met

    def weights_hash(self) -> str:
        """16 hex digits that name the current weights in events."""
        raw = self.theta.detach().cpu().numpy().tobytes()
        return hashlib.sha256(raw).hexdigest()[:16]

    def _part(self, tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
        device = self.theta.device
        return {
            name.removeprefix(prefix): tensor.to(device)
            for name, tensor in tensors.items()
            if name.startswith(prefix)
        }

    def _reserve(self) -> None:
        """Sizes and buffers of meetings, reserved once: fresh memory costs more than arithmetic."""
        numel = self._outer.width() * self.theta.numel()
        self.nbytes = self.rules.codec.nbytes(numel)
        self._decoded = (self.theta.new_empty(numel), self.theta.new_empty(numel))
