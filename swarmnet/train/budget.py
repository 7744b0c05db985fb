"""What a replica holds in memory beside activations: known before the first step."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from swarmnet.exchange.ledger import MAX_PENDING
from swarmnet.train.replica import Replica


def reserved(replica: Replica) -> dict[str, int]:
    """Bytes by purpose. Meetings use these buffers again and again and ask for nothing more.

    ``corrections`` counts one in the making; each open question, of which there are at most
    ``MAX_PENDING``, keeps another one for a while: ``open_questions`` is the most they can hold.
    ``checkpoint`` is the copy of the state in host memory that is being written.
    """
    vector = replica.theta.numel() * replica.theta.element_size()
    ready_made = replica.ready_made
    inner = _bytes(replica.rules.inner.tensors())
    travels = _bytes(replica.rules.outer.tensors())
    return {
        "weights": vector,
        "gradients": vector,
        "inner": inner,
        "outer": replica.rules.outer.nbytes,
        "snapshots": replica.snapshot_bytes,
        "payloads": replica.nbytes if ready_made else 2 * replica.nbytes,
        "corrections": vector,
        "open_questions": MAX_PENDING * vector,
        "checkpoint": vector + inner + travels,
    }


def _bytes(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
