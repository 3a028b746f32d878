"""The engine's library: found in the user's cache folder, or compiled into it by the system's compiler.

A cached library is code. It is loaded from a folder of the user's own alone, that nobody else can write.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from deploy.native import steps
from deploy.native.steps import Widths
from engine.system.said import notice

SOURCES = Path(__file__).parent / "source"
FLAGS = ("-std=c++17", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fPIC", "-fvisibility=hidden", "-pthread")
"""No contraction: a product and a sum that are rounded once give other bits than the reference."""
X86 = platform.machine() in ("x86_64", "AMD64")
_AVX2 = ("-mavx2", "-mpopcnt")
_AVX512 = (*_AVX2, *(f"-mavx512{part}" for part in ("f", "bw", "dq", "vl", "vnni")), "-mprefer-vector-width=512")
SETS: dict[str, tuple[str, ...]] = {
    "avx2": _AVX2,
    "avxvnni": (*_AVX2, "-mavxvnni"),
    "avx512vnni": _AVX512,
    "avx512popcnt": (*_AVX512, "-mavx512vpopcntdq"),
    "amx": (*_AVX512, "-mavx512vpopcntdq", "-mamx-tile", "-mamx-int8"),
} if X86 else {}  # fmt: skip
"""Source files of instruction sets, each with flags of its own: never taken from the machine that compiles. A compiler that does
not know them leaves them out."""
BASES = {"amx": "avx512popcnt", "amx_emulated": "avx512popcnt"}
"""Sets that leave some of their work to another one."""
PASSING = ("Killed", "Terminated", "No space left", "out of memory", "Cannot allocate")
"""What a compiler says that might succeed at another time: nothing is to be concluded from it."""
EMULATED = {"amx_emulated": SETS["avx512popcnt"]} if X86 else {}
"""For tests, where the environment asks: the kernels of an instruction set that processors seldom have, without it."""
CACHE = "MODEL_COMPRESSION_CACHE"
KERNELS = "MODEL_COMPRESSION_KERNELS"
EMULATE = "MODEL_COMPRESSION_EMULATE"
SECONDS = 300


class Unavailable(Exception):
    """Why there is no native engine here, in words."""


def sets() -> dict[str, tuple[str, ...]]:
    """The instruction sets that are compiled, in the environment as it is."""
    return SETS | EMULATED if os.environ.get(EMULATE) == "1" else SETS


@dataclass(frozen=True)
class Engine:
    """A loaded library and the instruction set that it is told to use.

    Args:
        which: its number in the library.
        kernels: its name.
        widths: how it wants weights.
    """

    library: ctypes.CDLL
    which: int
    kernels: str
    path: Path
    widths: Widths


def engine(kernels: str | None = None) -> Engine:
    """The engine of this machine, compiled where no library of these sources is there yet.

    Args:
        kernels: the instruction set; None: the best one that runs here, or the one that the environment names.

    Raises:
        Unavailable: no compiler, nowhere to keep the library, or none that can be loaded.
    """
    path, library = _library()
    known = _known(library)
    asked = kernels or os.environ.get(KERNELS) or [*known][-1]
    names = {name.lower(): name for name in known}
    if asked.lower() not in names:
        raise Unavailable(f"{KERNELS}={asked}: here are {', '.join(known)}")
    name = names[asked.lower()]
    return Engine(library, known[name], name, path, Widths.of(library, known[name]))


def instruction_sets() -> list[str]:
    """Those that run here, the best one last."""
    return [*_known(_library()[1])]


@functools.cache
def _library() -> tuple[Path, ctypes.CDLL]:
    path = build()
    try:
        library = ctypes.CDLL(str(path))
        steps.declare(library)
    except (OSError, AttributeError) as fault:
        raise Unavailable(f"{path} cannot be loaded: {fault}") from fault
    if library.mc_step_size() != ctypes.sizeof(steps.Step):
        raise Unavailable(f"{path} is of another version")
    return path, library


def _known(library: ctypes.CDLL) -> dict[str, int]:
    """The instruction sets that run here by name, with their numbers in the library."""
    found, number = {}, 0
    while name := library.mc_name(number):
        if library.mc_runs_here(number):
            found[name.decode()] = number
        number += 1
    return found


def build() -> Path:
    """The library in the cache folder, compiled if it is missing.

    Raises:
        Unavailable: see `engine`.
    """
    compiler = _compiler()
    folder = cache_folder()
    path = folder / f"{_key(compiler)}.so"
    if not path.exists():
        try:
            with (folder / ".lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # let go when this process ends, however it does
                if not path.exists():
                    notice("compiling the native engine, once: some 20 to 60 seconds")
                    _compile(compiler, path)
        except OSError as fault:
            raise Unavailable(f"{folder}: {fault.strerror}") from fault
    _trusted(path)
    return path


def _compiler() -> str:
    asked = os.environ.get("CXX")
    for name in (asked,) if asked else ("c++", "g++", "clang++"):
        if name and (found := shutil.which(name)):
            return found
    raise Unavailable(
        f"there is no C++ compiler {asked or 'c++, g++ or clang++'}; a system package such as g++ has one"
    )


def _key(compiler: str) -> str:
    """What the library hangs on: sources, flags, and which compiler of which version."""
    try:
        version = subprocess.run([compiler, "--version"], capture_output=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError) as fault:
        raise Unavailable(f"{compiler} does not run: {fault}") from fault
    made = hashlib.sha256(repr((FLAGS, sets(), platform.machine())).encode() + version)
    for source in sorted(SOURCES.iterdir()):
        made.update(source.name.encode() + b"\0" + source.read_bytes())
    return made.hexdigest()[:32]


def cache_folder() -> Path:
    """The cache folder, mode 0700, made if it is missing."""
    try:
        shared = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(os.environ.get(CACHE) or Path(shared, "model-compression")) / "native"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except RuntimeError as fault:  # a user without a home
        raise Unavailable(f"{fault}; {CACHE} names a cache folder") from fault
    except OSError as fault:
        raise Unavailable(f"{fault.filename}: {fault.strerror}; {CACHE} names another cache folder") from fault
    _trusted(folder)
    return folder


def _trusted(path: Path) -> None:
    """Refuse what is not this user's own, or what others can write: it is loaded as code."""
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise Unavailable(f"{path} is not yours alone to write: chmod go-w {path}, or remove it")


def _compile(compiler: str, path: Path) -> None:
    """Compile to a file beside it, which is then renamed: a library is whole or absent."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".build.") as place:
        objects = [_Object(compiler, place, "plain"), *(_Object(compiler, place, *each) for each in sets().items())]
        failed = {each.name: each for each in objects if each.fault is not None}
        if hopeless := next((each for each in failed.values() if each.passing or each is objects[0]), None):
            raise Unavailable(f"{compiler} cannot compile the engine: {hopeless.fault}")
        known = [each for each in objects if each.name not in failed and BASES.get(each.name) not in failed]
        if len(known) < len(objects):
            left_out = ", ".join(each.name for each in objects if each not in known)
            notice(f"{compiler} does not know {left_out}: the native engine goes without")
        engine = _Object(compiler, place, "engine", tuple(f"-DWITH_{each.name.upper()}" for each in known[1:]))
        made = Path(place, "engine.so")
        words = [compiler, *FLAGS, "-shared", engine.path, *(each.path for each in known), "-o", str(made)]
        if fault := engine.fault or _Running(words).fault:
            raise Unavailable(f"{compiler} cannot compile the engine: {fault}")
        made.chmod(0o700)
        os.replace(made, path)


class _Running:
    """A compiler at work."""

    def __init__(self, words: list[str]) -> None:
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.passing = False  # whether its fault may pass

    @functools.cached_property
    def fault(self) -> str | None:
        """Waits; what it complains of, in a line."""
        try:
            said = self.process.communicate(timeout=SECONDS)[0].decode(errors="replace").splitlines()
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            self.passing = True
            return f"it took more than {SECONDS} s"
        if self.process.returncode == 0:
            return None
        self.passing = self.process.returncode < 0 or any(word in line for word in PASSING for line in said)
        ended = f"it was ended by signal {-self.process.returncode}" if self.process.returncode < 0 else "it failed"
        return ([line for line in said if "error" in line] or [ended])[0].strip()[:160]


class _Object(_Running):
    """A source file being compiled."""

    def __init__(self, compiler: str, place: str, name: str, flags: tuple[str, ...] = ()) -> None:
        self.name, self.path = name, f"{place}/{name}.o"
        super().__init__([compiler, *FLAGS, *flags, "-c", str(SOURCES / f"{name}.cpp"), "-o", self.path])
