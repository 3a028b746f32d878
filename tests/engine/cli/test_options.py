"""Options: a frozen dataclass declares flags, defaults, a command's changes to a group, and contradictions."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass
from pathlib import Path

import pytest

from engine.cli.flags import Parser, flag, part
from engine.cli.machine import Device, Machine
from engine.cli.options import Command, DataFlags, Network
from engine.errors import USAGE, UserError
from prune import train


@dataclass(frozen=True, kw_only=True)
class Options(Command):
    """Options with two flags of their own, and three groups."""

    count: int = flag("--count", type=int, default=3)
    names: list[str] = flag("--name", action="append", default=[])
    network: Network = part(Network, default_arch="nin_gc", cfg={"help": "other words"})
    data: DataFlags = part(DataFlags, val=7)
    machine: Machine = part(Machine)

    def __post_init__(self) -> None:
        if self.count < 0:
            raise UserError("--count is negative", "count up")


def read(*words: str) -> Options:
    return Parser("a.command", "a: does it", ("a.command",), Options).options_of(words)


def test_defaults_are_those_of_the_fields_or_of_the_command() -> None:
    found = read()
    assert (found.count, found.names, found.network.name, found.network.prefix) == (3, [], "nin_gc", "nin_gc")
    assert (found.data.root, found.data.val, found.machine.seed) == (Path("data"), 7, 1)
    assert read("--name", "a", "--name", "b").names == ["a", "b"]
    assert read().names == [], "what one call appends is not there in the next"


def test_values_are_read_once_and_stay() -> None:
    found = read("--count", "5", "--data", "here", "--arch", "nin", "--cpu")
    assert (found.count, found.data.root, found.network.name, found.machine.device) == (5, Path("here"), "nin", "cpu")
    assert found.words == ("python", "-m", "a.command", "--count", "5", "--data", "here", "--arch", "nin", "--cpu")
    with pytest.raises(FrozenInstanceError):
        found.count = 6  # type: ignore[misc]


def test_seed_and_original_are_one_recipe() -> None:
    for name in ("seed", "original"):
        training = train.parser().options_of(["--recipe", name]).training
        assert (training.recipe, training.original) == ("original", True)
    assert train.parser().options_of([]).training.original is False


def test_flat_names_each_value_as_its_flag_is_spelt() -> None:
    flat = read("--data", "here").flat()
    assert (flat["data"], flat["count"], flat["eval_batch_size"], flat["arch"]) == (Path("here"), 3, None, None)
    assert not {"root", "words", "default_arch"} & flat.keys()


def test_a_command_changes_the_words_of_a_group() -> None:
    text = Parser("a.command", "a: does it", ("a.command",), Options).format_help()
    assert "other words" in text
    assert "does it" in text


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("--count", "-1"), "--count is negative"),
        (("--cpu", "--device", "cuda"), "--cpu contradicts --device cuda"),
        (("--type", "0", "--arch", "nin_gc"), "--type 0 means nin, but --arch is nin_gc"),
    ],
)
def test_contradictions_are_found_where_the_fields_are(words: tuple[str, ...], fault: str) -> None:
    with pytest.raises(UserError, match=fault) as refused:
        read(*words)
    assert refused.value.code == USAGE


def test_the_short_names_of_networks_are_those_of_the_original() -> None:
    assert [read("--type", number).network.name for number in "012"] == ["nin", "nin_gc", "separable"]
    assert Device(cpu=True).device == "cpu"
