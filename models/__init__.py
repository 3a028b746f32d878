"""Networks: geometry, layers, and the files that hold them. What users import stands here."""

import model_compression  # noqa: F401  our packages are found where they lie
from models.files import load_weights, rebuild, restore
from models.layers.int8 import BNFold_Conv2d_Q, Conv2d_Q
from models.registry import NETWORKS, build, names, size

__all__ = ["NETWORKS", "BNFold_Conv2d_Q", "Conv2d_Q", "build", "load_weights", "names", "rebuild", "restore", "size"]
