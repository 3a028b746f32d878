"""Calibration of a shared input: all its readers have one range and one method."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from engine.data.info import DataInfo
from engine.data.splits import TensorSplit
from quant.calibrate import calibrate
from quant.prepare import prepare
from quant.spec import affine_spec
from tests.tools.networks import captured, ends


class TwoReaders(nn.Module):
    """Two layers that read one value of both signs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head((self.first(x) + self.second(x).relu()).mean((2, 3)))


@pytest.mark.parametrize("negative", ["first", "second"])
def test_a_range_that_layers_share_is_set_once_and_is_signed_for_all(
    negative: str, capsys: pytest.CaptureFixture
) -> None:
    torch.manual_seed(0)
    plain, found = captured(TwoReaders()), {}
    info, images = DataInfo.unknown(10, 8), torch.randint(0, 256, (40, 8, 8, 3), dtype=torch.uint8)
    split = TensorSplit(images, torch.arange(40) % 10, info, torch.device("cpu"))
    for method in ("kl", "mse"):
        model = prepare(plain, affine_spec(8, 4, 1, False).at_ends(*ends(plain)))
        layers = [getattr(model, name) for name in ("first", "second")]
        assert layers[0].input_quantizer is layers[1].input_quantizer
        calibrate(model, split, method, 40, negative=[negative])
        found[method] = layers[0].input_quantizer.high.item(), layers[0].input_quantizer.low.item()
    assert found["kl"] == found["mse"]
    assert capsys.readouterr().err == "notice: inputs without a ReLU before them are clipped by mse: first\n"
