"""README and docs match the code: a named test runs every block; flags, links, counts and exit codes agree."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest

import models
from engine import errors
from engine.system.packages import EXTRAS
from models import cost
from tests.tools.house import commands
from tests.tools.readme import CHINESE, MODULES, PAGES, README, ROOT, blocks, options, parser, shown

COMMANDS = ROOT / "docs/commands.md"
HERE, DETECTORS = "tests/test_readme.py", "tests/test_detectors.py"
IN_FILES = "tests/test_detectors_packed.py"
TESTED = {
    "": (HERE, "test_the_scripts_it_names_can_be_run"),
    "chain": (HERE, "test_the_chain"),
    "pipeline": (HERE, "test_the_pipeline_in_a_shell"),
    "ladder": (HERE, "test_the_ladder_command"),
    "any-network": (HERE, "test_any_network"),
    "own-pictures": (HERE, "test_pictures_and_weights_of_ones_own"),
    "own-weights": (HERE, "test_pictures_and_weights_of_ones_own"),
    "own-network: my_net.py": (HERE, "test_a_network_of_ones_own"),
    "own-network": (HERE, "test_a_network_of_ones_own"),
    "own-network: deploy": (HERE, "test_a_network_of_ones_own"),
    "in-python": (HERE, "test_in_a_program_of_ones_own"),
    "inspect": (HERE, "test_in_a_program_of_ones_own"),
    "int8-layers": (HERE, "test_the_int8_layers_by_themselves"),
    "deploy": (HERE, "test_deployment"),
    "imagenet": ("tests/test_imagenet.py", "test_the_chain_of_the_page"),
    "detectors-small": (DETECTORS, "test_the_smallest_example"),
    "detectors": (DETECTORS, "test_the_chain_of_the_page_on_detectors"),
    "detectors-onnx": (IN_FILES, "test_the_answer_of_an_onnx_model_can_be_cut_apart"),
    "detectors-onnx-cut": (IN_FILES, "test_the_answer_of_an_onnx_model_can_be_cut_apart"),
    "method": ("tests/test_methods.py", "test_the_commands_of_a_page_run"),
    "curves": ("tests/test_methods.py", "test_the_commands_of_a_page_run"),
    "detector: yolo.py": (DETECTORS, "test_a_yolo_of_ultralytics"),
}
"""The test that runs the blocks of each marker."""

UNTESTED = {
    "torchrun": "starts processes: tests/ranks runs such commands",
    "slurm": "needs a cluster",
    "requeue": "kills its run: tests/faults/test_requeue.py runs this loop on quick commands",
    "benchmark": "measures for minutes: tests/scripts/speed runs it in small",
    "own-detector": "a detector of the reader's: tests/test_detectors.py has one",
    "yolo": "needs Ultralytics: test_a_yolo_of_ultralytics runs the same on scenes",
    "yolo-weights": "downloads weights",
}
"""Markers of blocks that no test runs, and why. Their commands are parsed."""


def test_every_block_of_every_page_is_tested() -> None:
    for page in PAGES:
        for block in blocks(page):
            assert block.language == "math" or block.marker in TESTED or block.marker in UNTESTED, (
                f"{page.name}: no test runs {block}"
            )
    known = {block.marker for page in PAGES for block in blocks(page) if block.language != "math"}
    assert known == TESTED.keys() | UNTESTED.keys()
    for marker, (path, name) in TESTED.items():
        code = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        (test,) = (node for node in code.body if isinstance(node, ast.FunctionDef) and node.name == name)
        texts = [node.value for node in ast.walk(test) if isinstance(node, ast.Constant)]
        assert any(marker in text for text in texts if isinstance(text, str)) or not marker, f"{name} reads no {marker}"


def table(path: Path, corner: str) -> list[list[str]]:
    """The cells of the table whose first header is `corner`, a list a row, without the header."""
    found = re.search(
        rf"^\| {re.escape(corner)} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", path.read_text(encoding="utf-8"), re.M
    )
    assert found
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in found[1].splitlines()]


def test_counts_of_the_networks() -> None:
    page = ROOT / "docs/own-network.md"
    rows = {name.strip("`"): (params, macs) for name, _, params, macs in table(page, "`--arch`")}
    assert list(rows) == models.names()
    for name, (params, macs) in rows.items():
        count, size = re.fullmatch(r"([\d,]+)(?: \((\d+)x\2\))?", macs).groups()  # type: ignore[union-attr]
        costs = cost.layers(models.build(name), int(size or 32))
        assert (f"{cost.total(costs, 'params'):,}", f"{cost.total(costs, 'macs'):,}") == (params, count), name


def test_extras_are_those_of_the_code() -> None:
    rows = {
        extra.strip("`"): tuple(re.findall("`([^`]+)`", packages)) for extra, packages, _ in table(COMMANDS, "extra")
    }
    assert rows == EXTRAS


def flag_words(text: str) -> list[str]:
    return re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", text)


def test_every_flag_in_the_table_exists() -> None:
    every = [(flag, action) for name in commands() for flag, action in options(name).items()]
    rows = [flags for flags, _ in table(COMMANDS, "flag")]
    assert len(rows) >= 10
    for row in rows:
        for span in re.findall(r"`([^`]+)`", row):
            flags = flag_words(span)
            assert flags, span
            for flag in flags:
                assert flag in dict(every), flag
            choices = re.search(r"\{(.+)\}", span)
            if choices:
                offered = [
                    {str(c) for c in action.choices} for flag, action in every if flag == flags[0] and action.choices
                ]
                assert set(choices[1].split(",")) in offered, span


FOREIGN = {"-m", "-e", "--weightQuantBits", "--nproc-per-node", "--max-restarts"}
"""Flags of Python, pip, MNN's converter and torchrun."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_flag_anywhere_exists(page: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    named = {flag for span in re.findall(r"`([^`\n]+)`", prose) for flag in flag_words(span)} - FOREIGN
    assert named - {flag for name in commands() for flag in options(name)} == set()


def test_exit_codes_are_those_of_the_code() -> None:
    listed = {int(code) for code, _ in table(COMMANDS, "code")}
    known = {value for name, value in vars(errors).items() if name.isupper()}
    assert listed == known


@pytest.mark.parametrize("name", commands())
def test_the_examples_of_help_can_be_parsed(name: str) -> None:
    text = parser(name).format_help()
    typed = {found: typed for typed, found in MODULES.items()}.get(name, name)
    assert text.startswith(f"usage: python -m {typed} ")
    examples = [shlex.split(line) for line in text.partition("\nexamples:\n")[2].splitlines()]
    assert examples
    for words in examples:
        assert words[:2] == ["python", "-m"]
        parser(words[2]).parse_args(words[3:])
    assert any(words[2] == typed for words in examples)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_can_be_parsed_as_they_stand(page: Path) -> None:
    """The blocks are run with more flags than they show, or not at all; without those they must be commands, too."""
    for block in blocks(page):
        for module, argv, _ in shown(block) if block.language == "sh" else ():
            parser(module).parse_args(shlex.split(" ".join(argv).replace("$D", "--arch torchvision:ssd300_vgg16")))


def anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub links to them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in re.findall(r"^#+ (.+)$", text, re.M)}


def links(page: Path) -> list[tuple[str, str]]:
    """Return the links of a page to files of the project and to headings."""
    return re.findall(r"\]\((?!http)([^)#]*)#?([^)]*)\)", page.read_text(encoding="utf-8"))


def named(page: Path) -> list[str]:
    """Return the files that a page names in code style."""
    folders = "engine|models|prune|quant|bn_merge|deploy|scripts|tests"
    return re.findall(rf"`((?:{folders})/[\w/.]+)`", page.read_text(encoding="utf-8"))


def test_links_and_names_of_files_are_found() -> None:
    """Not every page has some, so the two tests below would pass if none were found."""
    for page in (README, CHINESE):
        assert {("docs/commands.md", ""), ("CONTRIBUTING.md", "")} <= set(links(page)), page.name
    assert "tests/test_house.py" in named(ROOT / "docs/architecture.md")


@pytest.mark.parametrize("page", [*PAGES, CHINESE, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in links(page):
        there = (page.parent / target).resolve() if target else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), f"{target}#{anchor}"


@pytest.mark.parametrize("page", [*PAGES, CHINESE, ROOT / "SECURITY.md"], ids=lambda page: page.name)
def test_files_that_are_named_exist(page: Path) -> None:
    for name in named(page):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("page", [*(ROOT / "docs").glob("*.md"), README, CHINESE], ids=lambda page: page.name)
def test_pages_can_be_read(page: Path) -> None:
    """Lines of prose fit a screen, README a few of them, and a page begins with who needs it."""
    text = page.read_text(encoding="utf-8")
    bare = re.sub(r"^```.*?^```$|^<!-- (\S+) -->$.*?^<!-- /\1 -->$|^\|.*?$", "", text, flags=re.S | re.M)
    assert [line for line in bare.splitlines() if len(line) > 160] == []
    if page.parent == ROOT:
        assert text.count("\n") <= 120
    elif page.name != "README.md":
        assert text.split("\n\n")[1].startswith("You need this page if"), page.name


def test_pages_are_listed() -> None:
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in index, page.name
