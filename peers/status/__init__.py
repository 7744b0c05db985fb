"""A peer's own page: what it does right now, and three buttons."""
