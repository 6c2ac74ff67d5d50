"""The promises of the map: each names tests, and they are there."""

import re

from clusters import ROOT

NAMED = re.compile(r"`((?:\w+/)*test_\w+\.py)::(test_\w+)`")


def test_the_tests_of_the_promises_are_there():
    text = (ROOT / "rnntune" / "README.md").read_text()
    table = text.partition("## Promises")[2].partition("## Figures")[0]
    rows = [row for row in table.splitlines() if row.startswith("| ")][1:]
    assert len(rows) > 20
    for row in rows:
        tests = NAMED.findall(row)
        assert tests, row
        for file, name in tests:
            source = (ROOT / "tests" / file).read_text()
            assert re.search(rf"^def {name}\(", source, re.MULTILINE), f"{file}::{name}"
