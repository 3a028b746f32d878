"""Draw figures into bytes with matplotlib, without opening windows. Only this module imports pyplot.

A command whose result is a picture calls `check` before it works. A command that also draws one asks `installed`.
"""

from __future__ import annotations

import io
from typing import Any

from engine.errors import UserError
from engine.system.packages import install


def installed() -> bool:
    """Return whether matplotlib is installed."""
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError:
        return False
    return True


def check() -> None:
    """Refuse to work without matplotlib.

    Raises:
        UserError: exit 2, if it is not installed.
    """
    if not installed():
        raise UserError("matplotlib is not installed", install("report"))


def pyplot() -> Any:
    """Return the module matplotlib.pyplot, set to draw into memory.

    Raises:
        UserError: as check.
    """
    check()
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def drawn(figure: Any, dpi: int, kind: str = "png") -> bytes:
    """Draw a figure, close it and return the bytes of a file.

    Args:
        kind: png, pdf or svg.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=dpi, format=kind)
    pyplot().close(figure)
    return buffer.getvalue()
