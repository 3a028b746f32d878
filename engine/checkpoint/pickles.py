"""List the names that a pickle asks for, without running it; archive.py refuses a file by its names.

torch's own weights_only allows more names (sparse, quantized and meta tensors, subclasses) and has been bypassed
twice. A checkpoint needs few names, so all others are refused before torch sees the file.
"""

from __future__ import annotations

import io
import pickletools
import re

ALLOWED_NAMES = {
    "collections.OrderedDict",
    "collections.Counter",  # milestones of a learning-rate schedule
    "builtins.set",
    "__builtin__.set",
    "torch.Size",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
}

_STORAGE = re.compile(r"torch(\.storage)?\.[A-Z]\w*Storage")


def first_forbidden_name(content: bytes, pickles: int = 1) -> str | None:
    """Return the first name in a stream of pickles that tensors and plain values do not need, or None.

    Raises:
        ValueError: if the bytes are not pickles.
    """
    stream, strings = io.BytesIO(content), ["", ""]
    for _ in range(pickles):
        for operation, argument, _place in pickletools.genops(stream):
            if operation.name in ("GLOBAL", "INST"):
                name = str(argument).replace(" ", ".")
            elif operation.name == "STACK_GLOBAL":  # takes its name from the stack; torch's reader lacks it
                return ".".join(strings)  # the last two strings: only probably the name
            elif operation.name.startswith("EXT"):
                name = f"registered extension {argument}"
            else:
                if isinstance(argument, str):
                    strings = [strings[1], argument]
                continue
            if name not in ALLOWED_NAMES and not _STORAGE.fullmatch(name):
                return name
    return None
