"""A replica: one peer's copy of the model, its optimizer and its slow state, as flat vectors.

The training thread owns it. The exchange sees it as the ``Subject`` of meetings: snapshots go out,
corrections come back, and the live weights move by displacement while inner steps go on.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from swarmnet.codec import Codec
from swarmnet.config import Choice, RunConfig
from swarmnet.errors import PayloadError
from swarmnet.inner import Inner
from swarmnet.outer import MAX_EFFORT, Outer
from swarmnet.reduce import Reduce
from swarmnet.train.blend import Arithmetic, Frozen, ReplicaBlend
from swarmnet.train.flat import flatten_parameters, layout_hash, trainable_parameters
from swarmnet.train.grid import Grid
from swarmnet.train.lane import Lane
from swarmnet.train.legacy import ReplicaLegacy
from swarmnet.train.mirror import Mirror


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
    def of(cls, run: RunConfig, module: nn.Module, part: int) -> Rules:
        described = f"{layout_hash(module)} {part} {run.codec!r} {run.outer!r} {run.reduce!r}"
        return cls(
            outer=run.outer.build("outer"),
            reduce=run.reduce.build("reduce"),
            codec=run.codec.build("codec"),
            inner=run.inner.build("inner", trainable_parameters(module)),
            signature=hashlib.sha256(described.encode()).hexdigest()[:32],
        )


class Replica:
    """Implements ``exchange.subject.Subject`` for a torch module. ``theta`` is (P,) float32."""

    whole = False

    def __init__(self, module: nn.Module, run: RunConfig, seed: int, part: int = 0) -> None:
        """``module`` is on its device already; ``seed`` is this peer's own (codec noise).

        ``part``: which stage of the model it is; two stages of one shape must not meet.
        """
        self.module = module
        self.theta: Tensor = flatten_parameters(module)
        self.rules = Rules.of(run, module, part)
        self.rules.outer.start(self.theta)
        self._generator = torch.Generator(device=self.theta.device).manual_seed(seed)
        self._lane = Lane(self.theta.device)
        self.mirror = Mirror(self.theta.device)
        self._met = False
        self.weight = 1
        """How much this peer's text counts; see ``data.Corpus``."""
        self.layout = self.rules.signature
        self.steps_alone = run.outer.name != "average"
        rules = self.rules
        self.legacy = ReplicaLegacy(self.theta, rules.outer, rules.codec, self._lane, self.layout)
        self._enter(self.rules.outer)

    def _enter(self, outer: Outer) -> None:
        """Sizes and buffers of meetings, reserved once: fresh memory costs more than arithmetic."""
        self._outer = outer
        grid = Grid(self.rules.codec, outer.width(), self.theta.numel())
        self._arithmetic = Arithmetic(
            outer, self.rules.reduce, self.rules.codec, grid, self._generator, self._lane
        )
        self.parts, self.nbytes = grid.parts, grid.nbytes
        self.part_nbytes = grid.part_nbytes
        self._frozen = deque(Frozen(self.theta, self._arithmetic) for _ in range(2))
        self._spare = [torch.empty_like(self.theta)]

    @property
    def inner(self) -> Inner:
        return self.rules.inner

    # ---- for the exchange ---------------------------------------------------------------------

    @property
    def quick(self) -> bool:
        return self.theta.device.type == "cpu"

    @property
    def ready_made(self) -> bool:
        return self._arithmetic.ready_made

    @property
    def snapshot_bytes(self) -> int:
        """Memory of all snapshot buffers."""
        return sum(frozen.nbytes for frozen in self._frozen)

    def capture(self) -> Frozen:
        self._frozen.rotate()
        self._frozen[0].capture(self.theta)
        return self._frozen[0]

    def encode(self, snapshot: Frozen, part: int) -> memoryview:
        # The loop sends while parts of another payload are reduced: it must not wait for those.
        return snapshot.encode(
            part, nullcontext() if self.ready_made else self._arithmetic.working()
        )

    def effort(self, steps: int, step_s: float) -> int:
        return min(self.weight * self._outer.effort(steps, step_s), MAX_EFFORT)

    def blend(self, snapshot: Frozen, me: str, works: Mapping[str, int]) -> ReplicaBlend:
        vector = self._spare.pop() if self._spare else torch.empty_like(self.theta)
        return ReplicaBlend(self._arithmetic, snapshot, vector, me, works)

    @torch.no_grad()
    def apply_met(self, snapshot: Frozen, correction: Tensor) -> None:
        self._met = True
        self.apply_solo(snapshot)
        self._settle(correction)

    @torch.no_grad()
    def apply_solo(self, snapshot: Frozen) -> None:
        """Before the first partner there is no outer step: alone it would only slow down."""
        if self._met:
            self.mirror.guard()
            self._outer.solo(snapshot.theta, self.theta)

    @torch.no_grad()
    def apply_late(self, correction: Tensor) -> None:
        self._met = True
        self._settle(correction)

    def _settle(self, correction: Tensor) -> None:
        self.mirror.guard()
        self._outer.settle(correction)
        self.theta += correction
        self._spare = [correction]

    def enter_consensus(self) -> None:
        """Meetings are pure averages of theta from here on, so that the replicas become one."""
        average = Choice(name="average").build("outer")
        average.start(self.theta)
        self.layout = hashlib.sha256(f"consensus {self.layout}".encode()).hexdigest()[:32]
        self._enter(average)

    # ---- for checkpoints, donors and joiners -----------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        """Copies of everything a joiner or a restart needs, on the CPU."""
        return {name: tensor.to("cpu", copy=True) for name, tensor in self._live().items()}

    def mirrored(self) -> dict[str, Tensor]:
        """The same in reserved memory, until the next call; there after ``mirror.finish``."""
        return self.mirror.take(self._live())

    def _live(self) -> dict[str, Tensor]:
        state = {"theta": self.theta}
        state |= {f"outer.{name}": t for name, t in self.rules.outer.tensors().items()}
        return state | {f"inner.{name}": t for name, t in self.rules.inner.tensors().items()}

    @property
    def noise(self) -> Tensor:
        """The state of the codec's generator: a resumed peer rounds as this one would have."""
        return self._generator.get_state()

    @noise.setter
    def noise(self, state: Tensor) -> None:
        self._generator.set_state(state)

    def load(self, tensors: Mapping[str, Tensor], *, met: bool) -> None:
        """Continue from ``tensors``. Raises PayloadError when they do not fit this model."""
        self.check(tensors)
        with torch.no_grad():
            self.theta.copy_(tensors["theta"])
            self.rules.outer.start(self.theta)
        self.rules.outer.load(self._part(tensors, "outer."))
        self.rules.inner.load(self._part(tensors, "inner."))
        self._met = met

    def check(self, tensors: Mapping[str, Tensor]) -> None:
        """Raises PayloadError when ``tensors`` are no state of this model, or not finite."""
        shapes = {name: tuple(tensor.shape) for name, tensor in self._live().items()}
        if {name: tuple(tensor.shape) for name, tensor in tensors.items()} != shapes:
            raise PayloadError("the state is of another model or of another optimizer")
        if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
            raise PayloadError("the state holds values that are not finite")

    @torch.no_grad()
    def begin_anew(self) -> None:
        """After another's state was loaded: what that one did since its last meeting is for it to
        tell, and would count twice."""
        self.rules.outer.rest(self.theta)

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
