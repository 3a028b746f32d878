"""The README in two languages: the same code, tables, links and numbers. test_readme.py tests its statements."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.tools.readme import CHINESE, README, Block, blocks, lines


def bare(block: Block) -> Block:
    """Return a block without its comments."""
    return block._replace(text="\n".join(re.sub(r"\s*#.*$", "", line).rstrip() for line in block.text.splitlines()))


def test_both_languages_show_the_same_code() -> None:
    assert [bare(block) for block in blocks(CHINESE)] == [bare(block) for block in blocks(README)]
    leaves = [[line.leaves for line in lines(b)] for b in blocks(CHINESE) if b.marker == "chain"]
    assert leaves == [[line.leaves for line in lines(b)] for b in blocks(README) if b.marker == "chain"]


def outline(path: Path) -> dict[str, list[str]]:
    """Return the parts that a translation must keep: markers, levels of headings, shapes of tables, links, literals, numbers."""
    text = path.read_text(encoding="utf-8")
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.S | re.M)
    found = {
        "markers": re.findall(r"<!--.*?-->", text),
        "headings": re.findall(r"^#+(?= )", prose, re.M),
        "tables": [str(line.count("|")) for line in prose.splitlines() if line.startswith("|")],
        "links": sorted(re.findall(r"\]\((http[^)]+)\)", prose)),
        "code": sorted(re.findall(r"`([^`\n]+)`", prose)),
        "counts": sorted(re.findall(r"\d{1,3}(?:,\d{3})+", prose)),
        "results": [m[0] for m in re.finditer(r"<!-- (headline:\S+) -->.*?<!-- /\1 -->", text, re.S)],
    }
    assert all(found[what] for what in found)
    return found


@pytest.mark.parametrize("what", ["markers", "headings", "tables", "links", "code", "counts", "results"])
def test_both_languages_say_the_same(what: str) -> None:
    assert outline(CHINESE)[what] == outline(README)[what]


def test_each_language_leads_to_the_other() -> None:
    assert "(README.zh-CN.md)" in README.read_text(encoding="utf-8")
    assert "(README.md)" in CHINESE.read_text(encoding="utf-8")
