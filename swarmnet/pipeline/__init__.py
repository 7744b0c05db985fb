"""Pipelines: a model in stages, each served by whoever offers, every microbatch on its own way."""
