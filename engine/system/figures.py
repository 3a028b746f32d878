"""Figures as PNG bytes, where matplotlib is installed. Nothing is ever shown on a screen."""

from __future__ import annotations

import io
from typing import Any


def pyplot() -> Any | None:
    """The module matplotlib.pyplot, set to draw into memory; None without matplotlib."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        return None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def png(figure: Any, dpi: int) -> bytes:
    """Draw a figure and close it."""
    from matplotlib import pyplot

    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=dpi)
    pyplot.close(figure)
    return buffer.getvalue()
