"""A program `python` for shells that runs quick versions of the toolkit's commands, in new processes or in forks."""

from __future__ import annotations

import contextlib
import json
import shutil
import socketserver
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.tools.children import Server
from tests.tools.readme import MODULES, shortened

PROCESS = """#!{python}
import runpy, sys
from tests.tools.readme import shortened
sys.modules["matplotlib"] = None  # no curves: a second for each process
assert sys.argv[1] == "-m", sys.argv
module, argv = sys.argv[2], sys.argv[3:]
sys.argv = [module, *shortened(module, argv)]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""

CLIENT = """#!{python} -SE
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as asked:
    asked.connect({address!r})
    with asked.makefile("rw") as file:
        print(json.dumps([os.getcwd(), sys.argv[1:]]), file=file, flush=True)
        status, out, err = json.loads(file.readline())
sys.stdout.write(out)
sys.stderr.write(err)
sys.exit(status)
"""


def write(folder: Path, text: str, **words: str) -> None:
    """Write the program."""
    program = folder / "python"
    program.write_text(text.format(python=sys.executable, **words))
    program.chmod(0o755)


@contextlib.contextmanager
def forking(folder: Path) -> Iterator[None]:
    """Let `python` in this folder run in forks of a server that has loaded torch, as imports take longer than a command."""
    log = folder / "log"
    log.mkdir()
    commands = Server(log)

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            where, (flag, module, *argv) = json.loads(self.rfile.readline())
            assert flag == "-m"
            done = commands.run(Path(where), MODULES.get(module, module), *shortened(module, argv))
            self.wfile.write(json.dumps([done.status, done.out, done.err]).encode() + b"\n")

    place = Path(tempfile.mkdtemp())  # a socket's address must be short
    with socketserver.UnixStreamServer(str(place / "socket"), Handler) as listening:
        threading.Thread(target=listening.serve_forever, args=(0.01,), daemon=True).start()
        write(folder, CLIENT, address=str(place / "socket"))
        yield
        listening.shutdown()
    shutil.rmtree(place)
    commands.close()
