"""What a pickle asks for by name, read without running it. What is done with the answer: archive.py.

torch's own weights_only has a longer list (sparse, quantized and meta tensors, subclasses), and has been got round
twice; what a checkpoint needs is little, and everything else is refused before torch sees the file.
"""

from __future__ import annotations

import io
import pickletools
import re

ALLOWED_NAMES = {
    "collections.OrderedDict",
    "collections.Counter",  # milestones of a schedule
    "builtins.set",
    "__builtin__.set",
    "torch.Size",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
}

_STORAGE = re.compile(r"torch(\.storage)?\.[A-Z]\w*Storage")


def first_forbidden_name(content: bytes, pickles: int = 1) -> str | None:
    """The first name in a stream of pickles that tensors and plain values do not need, None if there is none.

    Raises:
        ValueError: for bytes that are no pickles.
    """
    stream, strings = io.BytesIO(content), ["", ""]
    for _ in range(pickles):
        for operation, argument, _place in pickletools.genops(stream):
            if operation.name in ("GLOBAL", "INST"):
                name = str(argument).replace(" ", ".")
            elif operation.name == "STACK_GLOBAL":  # takes its name from anywhere; torch has no such operation
                return ".".join(strings)  # the last ones seen: the likely name, no more
            elif operation.name.startswith("EXT"):
                name = f"registered extension {argument}"
            else:
                if isinstance(argument, str):
                    strings = [strings[1], argument]
                continue
            if name not in ALLOWED_NAMES and not _STORAGE.fullmatch(name):
                return name
    return None
