"""Bounds of what a peer may say of its own weight in a group."""

MAX_EFFORT = 2**32 - 1
"""As wide as the field of an offer."""
MAX_RATIO = 16
"""A peer that boasts outweighs another one by this at most."""
