"""Small networks in plain PyTorch with the structures of public bug reports.

Each function takes the number of classes and returns an nn.Module for pictures of 3x32x32 (`gray`: 1x32x32).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv_bn(i: int, o: int, k: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(i, o, k, stride, k // 2, groups=groups, bias=False), nn.BatchNorm2d(o), nn.ReLU())


class Head(nn.Module):
    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.mean((2, 3)))


class Conv2dSame(nn.Conv2d):
    """A convolution that pads in its own forward, as TensorFlow's "same" does."""

    def forward(self, x: Tensor) -> Tensor:
        pads = []
        for size, k, s in zip(x.shape[-2:], self.kernel_size, self.stride, strict=True):
            p = max((-(-size // s) - 1) * s + k - size, 0)
            pads = [p // 2, p - p // 2, *pads]
        return F.conv2d(F.pad(x, pads), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def same_padding(classes: int = 10) -> nn.Module:
    layers: list[nn.Module] = []
    for i, o in ((3, 16), (16, 32), (32, 64), (64, 64)):
        layers += [Conv2dSame(i, o, 3, 2, bias=False), nn.BatchNorm2d(o), nn.ReLU()]
    return nn.Sequential(*layers, Head(64, classes))


class SharedConv(nn.Module):
    """One convolution used at two places, each with its own batch norm."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem, self.conv = conv_bn(3, 16), nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.bn1, self.bn2, self.head = nn.BatchNorm2d(16), nn.BatchNorm2d(16), Head(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.stem(x), 2)
        x = F.relu(self.bn1(self.conv(x)))
        return self.head(F.relu(self.bn2(self.conv(x))))


class WeightsByFunction(nn.Module):
    """Two layers whose forward never runs: functions use their weights (a cosine classifier)."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem, self.c, self.bn = conv_bn(3, 16), nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32)
        self.head = nn.Linear(32, classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(F.conv2d(F.max_pool2d(self.stem(x), 2), self.c.weight, padding=1))).mean((2, 3))
        return 10 * F.linear(F.normalize(x), F.normalize(self.head.weight))


class OwnWeights(nn.Module):
    """A functional convolution whose weight is a parameter of the network itself."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem, self.kernel = conv_bn(3, 16), nn.Parameter(torch.randn(24, 16, 3, 3) / 12)
        self.bn, self.last, self.head = nn.BatchNorm2d(24), conv_bn(24, 16, 1), Head(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(F.max_pool2d(self.stem(x), 2), self.kernel, padding=1)
        return self.head(self.last(F.relu(self.bn(x))))


class NormAct(nn.BatchNorm2d):
    """A batch norm that includes the activation after it, like timm's."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(super().forward(x))


class Gained(nn.Conv2d):
    """A convolution followed by a factor and a constant of its code."""

    def __init__(self, i: int, o: int) -> None:
        super().__init__(i, o, 3, padding=1)
        self.gain = nn.Parameter(torch.ones(o, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.gain + 0.1 * torch.arange(3, device=x.device).sum()


class Positions(nn.Module):
    """Numbers that the code makes for each picture, summed up in an explicit type, float32."""

    def forward(self, x: Tensor) -> Tensor:
        ones = torch.ones(x.shape[0], 1, x.shape[2], x.shape[3], device=x.device)
        return x - 1.5 * torch.ones(x.shape[0], 1, 1, 1) + ones.cumsum(2, dtype=torch.float32) / 16


class HoldMore(nn.Module):
    """Layers with more than their kind's parameters, and numbers that the code makes."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, 2, 1, bias=False), NormAct(16)
        self.gained, self.second, self.places = Gained(16, 24), NormAct(24), Positions()
        self.last, self.head = conv_bn(24, 24, stride=2), Head(24, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.gained(self.norm(self.stem(x))))
        return self.head(self.last(self.places(x)))


class Transposed(nn.Module):
    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.down, self.up, self.norm = (
            conv_bn(3, 16, stride=2),
            nn.ConvTranspose2d(16, 24, 4, 2, 1),
            nn.BatchNorm2d(24),
        )
        self.last, self.head = conv_bn(24, 24, stride=2), Head(24, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last(F.relu(self.norm(self.up(self.down(x))))))


def mobilenet_v1(classes: int = 10) -> nn.Module:
    """Depthwise - BN - ReLU - pointwise - BN - ReLU: pruned through both."""
    pairs = [(16, 24), (24, 32), (32, 32)]
    blocks = [m for i, o in pairs for m in (conv_bn(i, i, groups=i), conv_bn(i, o, 1), nn.MaxPool2d(2))]
    return nn.Sequential(conv_bn(3, 16), *blocks, Head(32, classes))


def no_running_statistics(classes: int = 10) -> nn.Module:
    middle = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32, track_running_stats=False), nn.ReLU())
    return nn.Sequential(conv_bn(3, 16, stride=2), middle, conv_bn(32, 32), Head(32, classes))


class AuxiliaryOutputs(nn.Module):
    """Several outputs in training, one in evaluation, like GoogLeNet."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.a, self.b = conv_bn(3, 16, stride=2), conv_bn(16, 32, stride=2)
        self.aux, self.head = Head(16, classes), Head(32, classes)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = self.a(x)
        y = self.head(self.b(x))
        return (y, self.aux(x)) if self.training else y


class Residual(nn.Module):
    """A stream that several batch norms write to, so its channels are tied; the first and strided layers are, too."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = conv_bn(3, 16)
        self.c1, self.n1 = nn.Conv2d(16, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24)
        self.c2, self.n2 = nn.Conv2d(24, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.c3, self.n3 = nn.Conv2d(16, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32)
        self.short, self.head = (
            nn.Sequential(nn.Conv2d(16, 32, 1, 2, bias=False), nn.BatchNorm2d(32)),
            Head(32, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.relu(x + self.n2(self.c2(F.relu(self.n1(self.c1(x))))))
        x = F.relu(self.short(x) + self.n3(self.c3(x)))
        return self.head(x)


def prelu(classes: int = 10) -> nn.Module:
    """A network with a slope for each channel, which is pruned with the channel."""
    a = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.PReLU(16))
    return nn.Sequential(a, nn.MaxPool2d(2), conv_bn(16, 24), Head(24, classes))


class SqueezeExcite(nn.Module):
    """A gate by multiplication: sigmoid(0) is 1/2, but a silent channel stays silent."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.a, self.b = conv_bn(3, 16, stride=2), conv_bn(16, 24)
        self.fc1, self.fc2, self.head = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1), Head(24, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        gate = torch.sigmoid(self.fc2(F.relu(self.fc1(F.adaptive_avg_pool2d(x, 1)))))
        return self.head(self.b(x * gate))


class Concatenation(nn.Module):
    """Two concatenated branches, a skip over an upsampling, and batch norm before a convolution (DenseNet, U-Net)."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.a, self.b, self.c = conv_bn(3, 16), conv_bn(16, 16, stride=2), conv_bn(16, 24, 1)
        self.pre, self.mix, self.head = (
            nn.BatchNorm2d(40),
            nn.Conv2d(40, 32, 3, padding=1, bias=False),
            Head(32, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        y = F.interpolate(self.c(self.b(x)), scale_factor=2.0)
        return self.head(F.relu(self.mix(F.relu(self.pre(torch.cat([x, y], 1))))))


def flatten_linear(classes: int = 10) -> nn.Module:
    """A network that ends like VGG: 4 x 4 columns for each channel, batch norm between linear layers."""
    body = [conv_bn(3, 16), nn.MaxPool2d(2), conv_bn(16, 24), nn.MaxPool2d(2), conv_bn(24, 32), nn.MaxPool2d(2)]
    return nn.Sequential(
        *body, nn.Flatten(), nn.Linear(512, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Dropout(0.2), nn.Linear(48, classes)
    )


class ShuffleUnits(nn.Module):
    """Half of the channels bypass the convolutions; then the halves are shuffled (ShuffleNet V2)."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = conv_bn(3, 32, stride=2)
        self.units = nn.ModuleList(
            nn.Sequential(conv_bn(16, 16, 1), conv_bn(16, 16, groups=16), conv_bn(16, 16, 1)) for _ in range(3)
        )
        self.last, self.head = conv_bn(32, 48, 1), Head(48, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for unit in self.units:
            left, right = x.chunk(2, 1)
            x = torch.cat([left, unit(right)], 1)
            b, c, h, w = x.shape
            x = x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)
        return self.head(self.last(x))


class ConstantChannels(nn.Module):
    """Half of the gammas are 1e-7 after sparse training, with betas of 2: these channels always give 2."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.a, self.b, self.head = conv_bn(3, 16, stride=2), conv_bn(16, 24, 1), Head(24, classes)
        with torch.no_grad():
            for block in (self.a, self.b):
                block[1].weight[::2], block[1].bias[::2] = 1e-7, 2.0

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.b(self.a(x)))


class DropoutLeftOn(nn.Module):
    """A user's mistake: F.dropout without training=self.training. The answers differ each time."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.a, self.b, self.head = conv_bn(3, 16, stride=2), conv_bn(16, 24), nn.Linear(24, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.dropout(self.b(self.a(x)).mean((2, 3)), 0.3))


def gray(classes: int = 10) -> nn.Module:
    """A network that reads one channel: its pictures are converted to grey."""
    return nn.Sequential(conv_bn(1, 16, stride=2), conv_bn(16, 24), Head(24, classes))


NAMES = (
    "same_padding", "SharedConv", "WeightsByFunction", "Transposed", "mobilenet_v1", "no_running_statistics",
    "AuxiliaryOutputs", "Residual", "prelu", "SqueezeExcite", "Concatenation", "flatten_linear", "ShuffleUnits",
    "ConstantChannels", "gray",
)  # fmt: skip
"""The public cases except DropoutLeftOn, which cannot be captured. OwnWeights and HoldMore are left out: the normal form renames
the first one's parameters, and the second one's code runs in float32 only."""
