"""Seeds of which everyday runs take the first, and ``make long`` the rest."""

import pytest


def seeds(quick, all_):
    """0 to ``all_`` - 1; those from ``quick`` on are long."""
    return [pytest.param(n, marks=[pytest.mark.long] * (n >= quick)) for n in range(all_)]
