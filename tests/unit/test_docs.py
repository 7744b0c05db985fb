"""What the documents draw from the code is what the code says now."""

import re

import pytest

from docs import states


@pytest.mark.parametrize("page", states.PAGES, ids=lambda page: page.name)
def test_the_page_is_up_to_date(page):
    text = page.read_text(encoding="utf-8")
    for name in states.PAGES[page]:
        assert text.count(f"<!-- {name} -->") == text.count(f"<!-- /{name} -->") == 1
    assert text == states.refreshed(page), "run: python -m docs.states"


@pytest.mark.parametrize("table", states.SIDES.values(), ids=states.SIDES)
def test_a_diagram_has_one_plain_line_for_each_row(table):
    lines = list(states.diagram(table))
    arrow = re.compile(r"    \w+ --> \w+ : [\w ,/]+")
    assert sum(map(bool, map(arrow.fullmatch, lines))) == len(table)
    for (state, event), row in table.items():
        start = f"    {state.value} --> {row.to.value} : {event.value}"
        assert any(line == start or line.startswith(f"{start} / ") for line in lines)
