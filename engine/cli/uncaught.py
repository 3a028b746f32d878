"""Report the UserError of a command that is still being imported, where command.py cannot catch it.

A command's flags list the quantizers, so a faulty quantizer file ends the import. Other programs that import the
toolkit keep Python's own report.
"""

from __future__ import annotations

import os
import sys
from types import TracebackType

from engine.errors import UserError
from engine.system import terminal
from model_compression import PACKAGES


def install() -> None:
    """Report errors in two lines if the program is a command of the toolkit."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if os.path.basename(sys.argv[0]) == "model-compression" or (spec and spec.name.partition(".")[0] in PACKAGES):
        sys.excepthook = _report


def _report(kind: type[BaseException], fault: BaseException, trace: TracebackType | None) -> None:
    """Print an error and end Python with its exit status: Python obeys a SystemExit that its hook raises."""
    if not isinstance(fault, UserError):
        sys.__excepthook__(kind, fault, trace)
        return
    if os.environ.get("MC_DEBUG") or "--debug" in sys.argv:
        sys.__excepthook__(kind, fault, trace)
    terminal.complain(str(fault), fault.hint)
    raise SystemExit(fault.code)
