"""The network of README, 'A network of your own', as it was when networks declared their channels. make.sh uses it."""

from torch import nn

from models.blocks import ConvBNAct, GlobalMean
from models.channels import ChannelGroup, Consumer


class Residual(nn.Module):
    def __init__(self, width, inner):
        super().__init__()
        self.narrow = ConvBNAct(width, inner, 3)
        self.widen = ConvBNAct(inner, width, 3)

    def forward(self, x):
        return x + self.widen(self.narrow(x))


class Net(nn.Module):
    def __init__(self, cfg, classes):
        super().__init__()
        self.cfg = list(cfg)  # one width per channel group
        self.ends = ("stem.conv", "head")  # layers at the picture and at the classes
        self.stem = ConvBNAct(3, 16, 3)
        self.blocks = nn.ModuleList([Residual(16, inner) for inner in cfg])
        self.mean, self.head = GlobalMean(), nn.Linear(16, classes)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.mean(x))

    def channel_groups(self):  # the inner widths can be pruned, the residual stream cannot
        return [
            ChannelGroup(f"blocks.{i}.narrow.bn", f"blocks.{i}.narrow.conv", (Consumer(f"blocks.{i}.widen.conv"),))
            for i in range(len(self.cfg))
        ]


def residual(cfg=None, classes=10):
    return Net((16, 16) if cfg is None else cfg, classes)
