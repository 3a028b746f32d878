"""Float networks for the commands of this folder: a file of ours or of the original's, rebuilt."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from torch import nn

import models
from engine import checkpoint
from models import legacy


def load(path: Path, args: argparse.Namespace) -> tuple[nn.Module, dict[str, Any]]:
    """Read, check and rebuild; returns the network and its checkpoint.

    Raises:
        UserError: exit 3 for a bad, quantized or merged file, exit 2 for a contradicting --arch.
    """
    content = legacy.adopt(checkpoint.load(path), path)
    return models.restore(content, args.arch), content
