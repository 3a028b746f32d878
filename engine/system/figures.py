"""Draw figures as PNG bytes with matplotlib, if it is installed, without opening windows."""

from __future__ import annotations

import io
from typing import Any


def pyplot() -> Any | None:
    """Return the module matplotlib.pyplot, set to draw into memory; None without matplotlib."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        return None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def png(figure: Any, dpi: int) -> bytes:
    """Draw a figure, close it and return its PNG bytes."""
    from matplotlib import pyplot

    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=dpi)
    pyplot.close(figure)
    return buffer.getvalue()
