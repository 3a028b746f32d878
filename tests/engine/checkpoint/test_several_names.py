"""A tensor of several names is one tensor in a file, and stays one when the file is read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engine.checkpoint import schema
from engine.errors import BAD_CHECKPOINT, UserError


@pytest.mark.parametrize("kind", [torch.float32, torch.float16])
def test_a_tensor_is_counted_and_converted_once(kind: torch.dtype) -> None:
    held = torch.randn(100, 10).to(kind)
    state = {"conv1.weight": held, "features.0.weight": held.detach(), "bias": torch.zeros(10)}
    found = schema.tensors(Path("a.pth"), state, held.numel() * held.element_size() + 40)
    assert found["conv1.weight"] is found["features.0.weight"]
    assert torch.equal(found["conv1.weight"], held.float())


def test_views_that_claim_more_than_the_file_holds_are_refused() -> None:
    held = torch.zeros(1000)
    for state in ({"a": held, "b": held[1:]}, {"a": held, "b": held.reshape(10, 100)}):
        with pytest.raises(UserError, match="claim more numbers") as fault:
            schema.tensors(Path("a.pth"), state, 4000)
        assert fault.value.code == BAD_CHECKPOINT
