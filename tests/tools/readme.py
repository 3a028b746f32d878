"""Parse README and docs for tests: fenced blocks, their commands, and quick versions of these commands."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path
from typing import NamedTuple

from engine.cli.flags import Parser
from tests.conftest import JUDGING, NARROW, SMALL

ROOT = Path(__file__).parents[2]
README, CHINESE = (ROOT / name for name in ("README.md", "README.zh-CN.md"))
PAGES = (README, *sorted((ROOT / "docs").rglob("*.md")))
"""Every page that shows code. test_readme_languages compares the Chinese README with README."""
FRESH = {"nin": NARROW, "nin_gc": "32,32,32,64,64,64,64,64"}  # widths that the groups 1,2,2,16,4,4,32,8,1 divide


class Block(NamedTuple):
    """A fenced block: the HTML comment before it ("" without one), its language, its text."""

    marker: str
    language: str
    text: str


MODULES = {"bn_merge": "bn_merge.__main__", "engine.checkpoint": "engine.checkpoint.__main__"}
"""Modules that `python -m` runs for a package's name."""


class Line(NamedTuple):
    """A command of a block: `python -m MODULE ARGV`, and the file that its comment names, if any."""

    module: str
    argv: list[str]
    leaves: str | None


def blocks(path: Path) -> list[Block]:
    found = re.findall(r"(?:<!-- ([^\n]+) -->\n)?^```(\w*)\n(.*?)^```$", path.read_text(encoding="utf-8"), re.S | re.M)
    return [Block(*groups) for groups in found]


def marked(marker: str) -> list[Block]:
    """Return the blocks of all pages with this marker: README's first."""
    return [block for page in PAGES for block in blocks(page) if block.marker == marker]


def shown(block: Block) -> list[Line]:
    """Return the commands of this toolkit in a block of shell: behind torchrun or in a loop, too."""
    text = block.text.replace("\\\n", " ")
    found = re.findall(r"-m ((?:prune|quant|bn_merge|deploy|scripts|engine)[\w.]*)([^;|)\n]*)", text)
    return [Line(module, shlex.split(words, comments=True), None) for module, words in found]


def lines(block: Block) -> list[Line]:
    """Return the commands of a block; any other line is an error."""
    found = []
    for text in filter(None, block.text.splitlines()):
        words = shlex.split(text, comments=True)
        assert words[:2] == ["python", "-m"], text
        leaves = re.search(r"#.*-> (?:models_save/)?(\S+\.pth)$", text)
        found.append(Line(words[2], words[3:], leaves[1] if leaves else None))
    return found


def parser(module: str) -> Parser:
    return importlib.import_module(MODULES.get(module, module)).parser()


def options(module: str) -> dict[str, object]:
    """Return every flag of a command with its argparse action."""
    return {flag: action for action in parser(module)._actions for flag in action.option_strings}


def shortened(module: str, argv: list[str]) -> list[str]:
    """Return the command with flags that make it quick: few small pictures, one epoch, narrow widths for a fresh network."""
    known = options(module)
    if "--epochs" not in known:
        return [*argv, *(flag for flag in ("--cpu", "--quiet") if flag in known)]
    arch = argv[argv.index("--arch") + 1] if "--arch" in argv else "nin"
    fresh = arch in FRESH and not {"--refine", "--from_scratch", "--evaluate"} & set(argv)
    small = JUDGING if "--evaluate" in argv else SMALL
    small = small[4:] if "pictures" in argv else small  # those have their own data set and size
    return [*argv, *small, *(("--cfg", FRESH[arch]) if fresh else ())]
