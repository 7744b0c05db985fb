"""The error tree that the docstring draws is the tree that exists."""

import inspect
import re

import pytest

from swarmnet import errors
from swarmnet.errors import SwarmnetError

EXIT_CODES = {0, 1, 2, 3, 4}
_LINE = re.compile(r"^(?P<indent>[\s│├└─]*?)(?P<name>[A-Z]\w+)\s{2,}(?:(?P<code>\d): )?\S")


def drawn() -> dict[str, tuple[str | None, int | None]]:
    """Class name -> (parent, exit code if one is drawn), as in the module's docstring."""
    tree: dict[str, tuple[str | None, int | None]] = {}
    above: list[tuple[int, str]] = []
    for line in errors.__doc__.splitlines():
        if not (match := _LINE.match(line)):
            continue
        depth = len(match["indent"])
        above = [(d, name) for d, name in above if d < depth]
        code = match["code"]
        tree[match["name"]] = (above[-1][1] if above else None, int(code) if code else None)
        above.append((depth, match["name"]))
    return tree


def classes() -> list[type[Exception]]:
    own = vars(errors).values()
    return [c for c in own if inspect.isclass(c) and c.__module__ == errors.__name__]


def test_the_drawing_names_every_class():
    assert set(drawn()) == {cls.__name__ for cls in classes()}


@pytest.mark.parametrize("cls", classes())
def test_parents_are_as_drawn(cls):
    parent = cls.__bases__[0]
    expected = parent.__name__ if parent is not Exception else None
    assert drawn()[cls.__name__][0] == expected


@pytest.mark.parametrize("cls", classes())
def test_exit_codes_are_as_drawn(cls):
    code = drawn()[cls.__name__][1]
    if code is not None:
        assert cls.exit_code == code
    assert cls.exit_code in EXIT_CODES


@pytest.mark.parametrize("cls", classes())
def test_every_error_says_whose_act_it_was(cls):
    assert cls.__doc__
    assert issubclass(cls, SwarmnetError)
