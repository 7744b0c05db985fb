"""The compute core of a stage peer: forward, backward in two parts, gradient sums, steps.

One thread owns it. It knows nothing of the network: microbatches come and go as tensors, what is
summed is handed out with the samples that are in it, a mean comes back.

``delayed`` is the delayed parameter update of SWARM (Ryabinin et al. 2023): the mean of batch b
moves the weights when the sums of batch b + 1 are handed out, so that a whole batch hides the
averaging and theta_{b+1} comes of the gradient at theta_{b-1}. Plain gradient steps are stable then
iff eta L < 1 instead of 2. Peers of a stage may take the late move at different moments, but never
after the next one: with the same steps behind them all moves taken they hold the same bits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from swarmnet.errors import SampleRefused, StaleVersion
from swarmnet.inner import Inner
from swarmnet.train.flat import spans
from swarmnet.train.passes import Arrival, Pass, compute, differentiate, passes_of
from swarmnet.train.sides import Graph, Side
from swarmnet.train.split import Product
from swarmnet.train.sums import Accumulators, Sums


class Master(Protocol):
    """The weights that steps and meetings move; ``train.replica.Replica`` is one."""

    module: nn.Module
    """Called as ``module(ids, received)``; its ``first`` and ``last`` say where it stands."""
    theta: Tensor
    """(P,): all trainable parameters of ``module`` are views into it."""

    @property
    def inner(self) -> Inner: ...

    def load(self, tensors: Mapping[str, Tensor], *, met: bool) -> None:
        """Raises PayloadError."""
        ...


@dataclass(frozen=True)
class Deferred:
    """The W of one batch: it waits until nobody waits for anything else."""

    products: list[Product]
    samples: tuple[int, ...]
    tokens: int


class StageCore:
    """Serves one stage at a version of its weights, and at the one before for what is under way.

    A sample counts when its weight gradient is in the sums, not before: of a peer that dies between
    B and W nothing of the sample remains, neither gradient nor count.
    """

    def __init__(
        self,
        master: Master,
        version: int = 0,
        constrain: Callable[[nn.Module], None] | None = None,
        *,
        delayed: bool = False,
    ) -> None:
        """``constrain`` brings the moved weights to where the run's boundary wants them."""
        self.master = master
        self._constrain = constrain
        self._delayed = delayed
        self._late: tuple[Tensor, float] | None = None
        """Of a delayed step: its mean and rate, until the weights are moved."""
        self._current, self._other = (Side(master.module, master.theta) for _ in range(2))
        self._sums = Accumulators(master.theta)
        self._waiting: deque[Deferred] = deque()
        self._version = version
        self._current.publish(master.theta, version)

    @property
    def version(self) -> int:
        """Of the weights that serve: how often steps have moved them."""
        return self._version

    @property
    def waiting(self) -> int:
        """How many batches wait for their W. Each keeps its layers' inputs in memory."""
        return len(self._waiting)

    @property
    def tokens(self) -> int:
        """How many count in the sums now."""
        return self._sums.tokens

    @property
    def samples(self) -> tuple[int, ...]:
        """Which are in the sums now."""
        return self._sums.samples

    # ---- samples ------------------------------------------------------------------------------

    def forward(self, arrivals: Sequence[Arrival], version: int | None = None) -> list[Pass]:
        """Compute microbatches of one length as one batch. Default version: the current one.

        They share a graph, and only a ``backward`` that brings the gradients of all of them uses
        it. Whatever comes in another company is computed again, so join those that wait together
        and expect to come back together.

        Raises:
            SampleRefused: shapes that do not fit, or results that are not finite.
            StaleVersion: ``version`` is neither the current one nor the one before.
        """
        first = self._current.first
        if wrong := tuple(arrival.sample for arrival in arrivals if not arrival.fits(first)):
            raise SampleRefused("what came does not fit this stage or is not finite", wrong)
        version = self._version if version is None else version
        side = self._side(version)
        return passes_of(side, version, arrivals, compute(side, arrivals))

    def backward(
        self, passes: Sequence[Pass], gradients: Sequence[Tensor | None], *, count: bool = True
    ) -> list[Tensor | None]:
        """B: the gradient of each one's ``received``; W is put off to ``weigh``.

        ``gradients`` are those of the outputs, (B, T, f), of the loss summed over tokens; None at
        the last stage, whose own loss it is. The result is None at the first stage. Without
        ``count`` the sample counts elsewhere, or did so here, and no W is kept. After an error
        nothing of this call counts and every pass can come again.

        Raises:
            SampleRefused: a gradient that does not fit or is not finite, come in or computed.
            StaleVersion: a pass whose weights are gone.
            ValueError: a pass that is counted already.
        """
        self._check(passes, gradients, count)
        given = dict(zip(passes, gradients, strict=True))
        found: dict[Pass, Tensor] = {}
        deferred = []
        for batch, graph in self._batches(passes) if count or not self._current.first else ():
            products, results = differentiate(batch, graph, [given[p] for p in batch])
            samples, tokens = tuple(p.sample for p in batch), sum(p.tokens for p in batch)
            deferred.append(Deferred(products, samples, tokens))
            found |= results
        if count:
            self._waiting.extend(deferred)
        for p in passes:
            p.graph, p.counted = None, p.counted or count
        return [found.get(p) for p in passes]

    def weigh(self) -> tuple[int, ...]:
        """W of the batch that waits longest: its samples, which count from now on; or nothing."""
        if not self._waiting:
            return ()
        deferred = self._waiting.popleft()
        with torch.no_grad():
            for product in deferred.products:
                product(self._sums.vector)
        self._sums.count(deferred.tokens, deferred.samples)
        return deferred.samples

    # ---- sums and steps -----------------------------------------------------------------------

    def freeze(self, *, whole: bool = True) -> Sums:
        """Do what W is left and hand out all sums; from here on samples count for the next ones.

        They are computed with the weights of the last step then, a delayed one too.
        Without ``whole`` what waits for its W counts for the next ones too.

        Raises:
            RuntimeError: earlier sums are still out.
        """
        while whole and self._waiting:
            self.weigh()
        sums = self._sums.freeze()
        self.catch_up()
        return sums

    def put_back(self, sums: Sums) -> None:
        """The round of ``sums`` came to nothing: they count again. ValueError: they are not out."""
        self._sums.put_back(sums)

    def discard(self, sums: Sums) -> None:
        """``sums`` are in a step, or lost; nobody reads them any more. ValueError: not out."""
        self._sums.discard(sums)

    def drop(self) -> tuple[int, ...]:
        """Forget what was gathered and what waits for W: the samples that will not count."""
        lost = self._sums.samples + tuple(s for waits in self._waiting for s in waits.samples)
        self._waiting.clear()
        self._sums.drop()
        return lost

    def step(self, mean: Tensor, lr: float) -> None:
        """Move the weights by the mean gradient per token (P,) and serve them as a new version.

        The inner optimizer clips it, once, by its norm over this stage; ``mean`` is spent. Peers
        that step from the same state with the same mean stay identical.
        """
        theta = self.master.theta
        if mean.shape != theta.shape:
            raise ValueError(f"a mean gradient of {tuple(mean.shape)} for {tuple(theta.shape)}")
        self.catch_up()
        self._late = mean, lr
        if not self._delayed:
            self.catch_up()

    def catch_up(self) -> None:
        """Move the weights by a delayed step that still waits. Before a state is given to others,
        so that it has every step behind it."""
        if self._late is not None:
            (mean, lr), self._late = self._late, None
            self._move(mean.to(self.master.theta), lr)

    def publish(self) -> None:
        """Serve the master's weights, whoever moved them, as the next version."""
        if self._constrain is not None:
            self._constrain(self.master.module)
        self._version += 1
        self._other.publish(self.master.theta, self._version)
        self._current, self._other = self._other, self._current

    def load(self, tensors: Mapping[str, Tensor], version: int, *, met: bool = False) -> None:
        """Go on from a donor's or an earlier state; everything under way is dropped, sums too.

        Raises:
            PayloadError: the state does not fit; nothing is changed.
        """
        self.master.load(tensors, met=met)
        self.drop()
        self._late = None
        if self._sums.out is not None:
            self._sums.discard(self._sums.out)
        self._other.drop()
        self._version = version
        self._current.publish(self.master.theta, version)

    # ---- inside -------------------------------------------------------------------------------

    def _move(self, mean: Tensor, lr: float) -> None:
        for parameter, span in spans(self.master.module):
            parameter.grad = mean[span].view(parameter.shape)
        self.master.inner.step(lr)
        self.publish()

    def _side(self, version: int) -> Side:
        for side in (self._current, self._other):
            if side.version == version:
                return side
        raise StaleVersion(f"version {version} is not served here; current is {self._version}")

    def _check(
        self, passes: Sequence[Pass], gradients: Sequence[Tensor | None], count: bool
    ) -> None:
        if len(set(passes)) < len(passes) or (count and any(p.counted for p in passes)):
            raise ValueError("the gradient of this pass counts already")
        if stale := sorted({p.version for p in passes if p.stale}):
            raise StaleVersion(f"versions {stale} are gone; current is {self._version}")
        pairs = zip(passes, gradients, strict=True)
        if wrong := tuple(p.sample for p, gradient in pairs if not p.takes(gradient)):
            raise SampleRefused("a gradient does not fit or is not finite", wrong)

    def _batches(self, passes: Sequence[Pass]) -> list[tuple[list[Pass], Graph]]:
        """Whole batches with their graphs; what came without its batch is computed again."""
        by_graph: dict[Graph | None, list[Pass]] = {}
        for p in passes:
            by_graph.setdefault(p.graph, []).append(p)
        batches: list[tuple[list[Pass], Graph]] = []
        alone: dict[tuple[int, int], list[Pass]] = {}
        for graph, members in by_graph.items():
            if graph is not None and graph.members == len(members):
                batches.append((sorted(members, key=lambda p: p.place), graph))
                continue
            if graph is not None:
                graph.free()
            for p in members:
                alone.setdefault((p.version, p.arrival.tokens.shape[1]), []).append(p)
        for members in alone.values():
            again = compute(members[0].side, [p.arrival for p in members])
            batches.append((members, again))
        return batches
