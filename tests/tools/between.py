"""Networks with a user's function between two convolutions, and their cut: planned, exact, and reopened as it was stored."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from models.graph.capture.form import capture
from models.graph.channels.classes import channels
from models.graph.normal import NormalForm
from models.graph.surgery.absorb import absorb
from models.graph.surgery.narrow import masked, narrowed
from models.graph.surgery.stored import as_stored
from prune import plan as planning
from prune.widths import Subject
from tests.tools.cases import conv_bn

SIZE, WIDTH = 8, 8


class Code(nn.Module):
    """Two convolutions with a user's function between them.

    Args:
        run: a function of the network and the first convolution's output.
        behind: whether there is a second convolution.
        stored: buffers that a file holds.
        parts: modules, parameters, and buffers that no file holds.
    """

    def __init__(
        self, run: Callable[..., Tensor], behind: bool = True, stored: dict[str, Tensor] | None = None,
        **parts: nn.Module | nn.Parameter | Tensor,
    ) -> None:  # fmt: skip
        super().__init__()
        self.run = run
        self.first = nn.Sequential(*list(conv_bn(3, WIDTH))[:2])
        self.second = conv_bn(WIDTH, 8) if behind else nn.Identity()
        self.head = nn.Linear(8, 10)
        for name, part in parts.items():
            if isinstance(part, (nn.Module, nn.Parameter)):
                setattr(self, name, part)
            else:
                self.register_buffer(name, part, persistent=False)
        for name, tensor in (stored or {}).items():
            self.register_buffer(name, tensor)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.run(self, self.first(x))).mean((2, 3)))


def disturbed(net: Code) -> Code:
    """Set a network to float64 and eval mode, with norms unlike fresh ones. Its lowest scales are in its first channels."""
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.2, 1)
            nn.init.normal_(norm.bias, 0, 0.3)
            nn.init.normal_(norm.running_mean, 0, 0.2)
            nn.init.uniform_(norm.running_var, 0.5, 1.5)
    net.first[1].weight.data[:3] = 0.001
    return net.double().eval()


def cut_exactly(net: Code, name: str, share: float = 0.4) -> NormalForm:
    """Return the network without a share of its channels. It equals the masked network, and reopens as it was stored."""
    form = capture(net, (3, SIZE, SIZE), name)
    found = channels(form)
    plan = planning.plan(Subject(net, form, found, name), share)
    ready = absorb(form, found, plan.dropped).model
    small = narrowed(net, ready, found, plan.dropped, name)
    x = torch.randn(4, 3, SIZE, SIZE, dtype=torch.float64)
    torch.testing.assert_close(small(x), masked(ready, found, plan.dropped)(x), rtol=0, atol=1e-12)
    stored = {key: tuple(tensor.shape) for key, tensor in small.state_dict().items()}
    again = capture(as_stored(net, (3, SIZE, SIZE), name, stored).model, (3, SIZE, SIZE), name, check=False)
    again.load_state_dict(small.state_dict())
    assert torch.equal(again(x), small(x))
    return small


def reasons(form: NormalForm, tensor: str) -> set[str | None]:
    """Return why the rows of a tensor cannot be cut; None for rows that can."""
    found = channels(form)
    rows = next(p for p in found.places if (p.tensor, p.axis) == (tensor, 0))
    return {found.fixed.get(cls) for cls in rows.classes.tolist()}
