"""What a stage serves from: a copy of its weights at one version, and the graphs made with it.

A stage has two such sides. While one serves version v, the other one is overwritten with v + 1;
what is under way at v can still end, what is under way at v - 1 is dropped. So a step never waits
for samples and never changes weights under a graph.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from weakref import WeakSet

import torch
from torch import Tensor, nn

from swarmnet.train.flat import flatten_parameters
from swarmnet.train.split import Sink, split, spots


@dataclass(eq=False)
class Graph:
    """One forward computation that waits for its gradient; it may hold several microbatches."""

    root: Tensor
    """(sum of B, T, f) output, or (members,) sums of the loss."""
    received: Tensor | None
    members: int

    def free(self) -> None:
        """Give the memory back, even where somebody still holds the graph. It is of no use then."""
        self.root, self.received, self.members = self.root.new_empty(0), None, 0


class Side:
    """A stage's module at one version; None until something is published here."""

    def __init__(self, module: nn.Module, theta: Tensor) -> None:
        """``module`` stays as it is; what in it is not trained is shared and not copied."""
        constants = [p for p in module.parameters() if not p.requires_grad]
        shared = {id(tensor): tensor for tensor in (*constants, *module.buffers())}
        self.module = copy.deepcopy(module, shared)
        self.first, self.last = bool(module.first), bool(module.last)
        self.vector = flatten_parameters(self.module, theta.dtype)
        self.spots = spots(self.module)
        self.sink = Sink()
        if not self.first:  # there nobody waits for B, and the split costs a twelfth
            split(self.module, self.sink)
        self.version: int | None = None
        self._graphs: WeakSet[Graph] = WeakSet()

    @torch.no_grad()
    def publish(self, theta: Tensor, version: int) -> None:
        """Serve ``theta`` (P,) as ``version``. Graphs of the version before are dropped."""
        self.drop()
        self.vector.copy_(theta)
        self.version = version

    def drop(self) -> None:
        """Serve nothing, and free the graphs that were made here."""
        for graph in self._graphs:
            graph.free()
        self._graphs.clear()
        self.version = None

    def keep(self, graph: Graph) -> Graph:
        """Until its gradient came, nobody wants it any more, or this side is overwritten."""
        self._graphs.add(graph)
        return graph
