"""Float networks for the commands of this folder: a file of ours or of the original's, rebuilt."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import models
from engine.checkpoint import format as checkpoint
from engine.errors import about
from models import legacy
from models.channels import Network


def load(path: Path, args: argparse.Namespace) -> tuple[Network, dict[str, Any]]:
    """Read, check and rebuild; returns the network and its checkpoint.

    Raises:
        UserError: exit 3 for a bad, quantized or merged file, exit 2 for a contradicting --arch.
    """
    content = legacy.adopt(checkpoint.load(path), path)
    with about(path):
        return models.restore(content, args.arch), content
