"""A network as the original repository defined it, and its state dict as it was saved."""

from __future__ import annotations

from torch import Tensor, nn

from models.blocks import ConvBNAct

SMALL = [12, 10, 6, 8, 9, 7, 11, 5]


class Original(nn.Module):
    """NIN with the original's module names: a Sequential called `child`, first and last convolution bare."""

    def __init__(self, child: str, kernel: int = 5) -> None:
        super().__init__()
        c = SMALL
        layers: list[nn.Module] = [
            nn.Conv2d(3, c[0], 5, padding=2), nn.BatchNorm2d(c[0]),
            ConvBNAct(c[0], c[1]), ConvBNAct(c[1], c[2]), nn.MaxPool2d(3, 2, 1),
            ConvBNAct(c[2], c[3], kernel), ConvBNAct(c[3], c[4]), ConvBNAct(c[4], c[5]), nn.MaxPool2d(3, 2, 1),
            ConvBNAct(c[5], c[6], 3), ConvBNAct(c[6], c[7]),
            nn.Conv2d(c[7], 4, 1), nn.BatchNorm2d(4),
        ]  # fmt: skip
        self.add_module(child, nn.Sequential(*layers))
        self.layers = [*layers]  # a list, not a child: it adds no keys
        for bn in (m for m in self.modules() if isinstance(m, nn.BatchNorm2d)):
            for tensor in (bn.weight, bn.bias, bn.running_mean):
                nn.init.normal_(tensor)
            nn.init.uniform_(bn.running_var, 0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
            x = x.relu() if isinstance(layer, nn.BatchNorm2d) else x
        return x.mean((2, 3))


PLACES = {
    "block1.conv": 0, "block1.bn": 1, "block2": 2, "block3": 3, "block4": 5, "block5": 6, "block6": 7, "block7": 9,
    "block8": 10, "block9.conv": 11, "block9.bn": 12,
}  # fmt: skip
"""Where the original's Sequential holds the parts of this toolkit's NIN; 4 and 8 are pools."""


def under_its_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict of this toolkit's NIN under the names of the original's."""
    ours = {f"{part}.": f"tnn_bin.{place}." for part, place in PLACES.items()}
    return {
        new + key.removeprefix(old): value
        for key, value in state.items()
        for old, new in ours.items()
        if key.startswith(old)
    }


def prefixed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict as DataParallel saves it."""
    return {f"module.{key}": value for key, value in state.items()}


def without_counters(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict as torch before 0.4.1 saved it."""
    return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
