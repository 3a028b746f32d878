"""The functions that build a user's network: their arguments, the wrappers they return, and what is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from models import forms, registry
from models.check import Misdeclared

NETS = """
import torch
from torch import nn

class Net(nn.Sequential):
    def __init__(self, num_classes=4, width=8):
        pool = nn.AdaptiveAvgPool2d(1)
        super().__init__(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), pool, nn.Flatten(), nn.Linear(width, num_classes))

class Star(Net):
    def forward(self, *inputs):
        return super().forward(inputs[0])

def words(**kwargs): return Net(**kwargs)
def other(pretrained=False, **kwargs): return Net(kwargs["num_classes"])
def named(classes, **kwargs): return Net(classes, **kwargs)
def widths(cfg=None, **kwargs): return Net(width=(cfg or [8])[0], **kwargs)
def parallel(num_classes): return nn.DataParallel(Net(num_classes))
def compiled(num_classes): return torch.compile(nn.DataParallel(Net(num_classes)))
def scripted(num_classes): return torch.jit.trace(Net(num_classes).eval(), torch.zeros(1, 3, 8, 8))
def halves(classes): return nn.Sequential(Net(2 * classes), nn.Unflatten(1, (2, classes)), nn.Flatten(0, 1))
def lazy(classes): return nn.Sequential(nn.LazyConv2d(8, 3), nn.LazyBatchNorm2d())
built = Net()
number = 4
"""


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("its_nets.py").write_text(NETS)
    return "its_nets.py"


@pytest.mark.parametrize("name", ["words", "other", "named", "widths", "parallel", "compiled", "Star"])
def test_a_function_gets_the_number_of_classes(name: str, nets: str) -> None:
    found = registry.build(f"{nets}:{name}", classes=7)
    assert next(iter(found.state_dict())) == "0.weight"  # no prefix of a wrapper
    assert found[4].out_features == 7
    form = forms.form_of(found, f"{nets}:{name}", None, 7, 8)
    x = torch.randn(5, 3, 8, 8)
    assert torch.equal(form(x), found.eval()(x))


def test_words_carry_widths_if_they_are_given(nets: str) -> None:
    assert registry.build(f"{nets}:widths", [6], 7)[0].out_channels == 6
    with pytest.raises(Misdeclared, match="unexpected keyword argument 'cfg'"):
        registry.build(f"{nets}:words", [6], 7)


@pytest.mark.parametrize(
    ("name", "error", "hint"),
    [
        ("scripted", "TorchScript", "the module itself"),
        ("lazy", "0.weight has no shape yet", "torch.zeros(1, 3, 32, 32)"),
        ("built", "built is a network, not a function", "return Net"),
        ("number", "number is not a function", "file.py:function"),
    ],
)
def test_what_is_no_such_function_is_refused(name: str, error: str, hint: str, nets: str) -> None:
    for make in (registry.build, registry.outline):
        with pytest.raises(Misdeclared, match=error) as refused:
            make(f"{nets}:{name}")
        assert hint in refused.value.hint


def test_an_answer_of_two_rows_a_picture_is_refused(nets: str) -> None:
    with pytest.raises(Misdeclared, match=r"forward returns \(2B, 7\) for B pictures and 7 classes, not \(B, 7\)"):
        forms.build(f"{nets}:halves", classes=7, side=8)


def test_a_function_that_reads_numbers_of_tensors_has_an_outline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rates of stochastic depth are often read from torch.linspace."""
    monkeypatch.chdir(tmp_path)
    Path("its_rates.py").write_text(
        "import torch\nfrom torch import nn\ndef net(classes):\n"
        "    rates = [rate.item() for rate in torch.linspace(0, 0.1, 4)]\n"
        "    return nn.Sequential(nn.Conv2d(3, classes, 3), nn.Dropout(rates[1]))\n"
    )
    assert registry.outline("its_rates.py:net", classes=7)[0].out_channels == 7


def test_a_lazy_network_that_ran_once_is_captured() -> None:
    made = nn.Sequential(nn.LazyConv2d(8, 3), nn.LazyBatchNorm2d(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    made.eval()(torch.zeros(1, 3, 8, 8))
    form = forms.form_of(made, "net:lazy", None, 8, 8)
    assert {*form.state_dict()} == {*made.state_dict()}
