"""Imported once by the parent that forks local swarms; whatever is heavy belongs here."""

import torch._dynamo  # imported by the first optimizer, seconds of CPU in every child
import transformers.models.llama.modeling_llama

import peers.children
import swarmnet.boundary.plain
import swarmnet.cadence.every_h
import swarmnet.codec.bf16
import swarmnet.codec.int8
import swarmnet.codec.raw
import swarmnet.data.stdlib
import swarmnet.inner.adamw
import swarmnet.matching.hypercube
import swarmnet.matching.random_pairs
import swarmnet.model.causal_lm
import swarmnet.outer.average
import swarmnet.outer.noloco
import swarmnet.reduce.mean
import swarmnet.wiring.swarm

__all__ = ["peers", "swarmnet", "torch", "transformers"]
