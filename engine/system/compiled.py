"""C++ of this toolkit as libraries: compiled by the system's compiler on first use, and kept in the user's cache folder.

A library that is kept is code. It is loaded from a folder of the user's own alone, that nobody else can write, and only if it is whole.
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
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from engine.system.said import notice

FLAGS = ("-std=c++17", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fPIC", "-fvisibility=hidden")
"""No contraction: a product and a sum that are rounded once give other bits than two roundings."""
X86 = platform.machine() in ("x86_64", "AMD64")
AVX2 = ("-mavx2", "-mpopcnt")
AVX512 = (*AVX2, "-mfma", *(f"-mavx512{part}" for part in ("f", "bw", "dq", "vl")), "-mprefer-vector-width=512")
PASSING = ("Killed", "Terminated", "No space left", "out of memory", "Cannot allocate")
"""What a compiler says that might succeed at another time: nothing is to be concluded from it."""
CACHE = "MODEL_COMPRESSION_CACHE"
SECONDS = 300


class Unavailable(Exception):
    """Why there is no library here, in words."""


@dataclass(frozen=True)
class Sources:
    """What a library is made of.

    Args:
        title: what it is, in messages.
        folder: of its sources.
        main: the source that is told which instruction sets there are, by macros WITH_NAME.
        sets: sources of instruction sets by name, each with flags of its own: never taken from the machine that compiles. A compiler
            that does not know them leaves them out. "plain" needs none.
        bases: sets that leave some of their work to another one.
    """

    title: str
    folder: Path
    main: str
    sets: Mapping[str, tuple[str, ...]]
    bases: Mapping[str, str] = field(default_factory=dict)
    flags: tuple[str, ...] = FLAGS

    def build(self) -> Path:
        """The library in the cache folder, compiled if it is missing or damaged.

        Without a compiler, one of these very sources that another compiler made is as good.

        Raises:
            Unavailable: no compiler, or nowhere to keep the library.
        """
        folder = cache_folder()
        try:
            compiler = system_compiler()
        except Unavailable:
            made = (path for path in sorted(folder.glob(f"{self.key()}-*.so")) if whole(path))
            if (path := next(made, None)) is None:
                raise
            trusted(path)
            return path
        path = folder / f"{self.key()}-{_version(compiler)}.so"
        if not whole(path):
            try:
                with (folder / ".lock").open("a") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX)  # let go when this process ends, however it does
                    if not whole(path):
                        notice(f"compiling {self.title}, once: some 5 to 60 seconds")
                        self._compile(compiler, path)
            except OSError as fault:
                raise Unavailable(f"{folder}: {fault.strerror}") from fault
        trusted(path)
        return path

    def key(self) -> str:
        """What the library hangs on, besides the compiler: sources and flags."""
        made = hashlib.sha256(repr((self.flags, sorted(self.sets.items()), platform.machine())).encode())
        for source in sorted(path for path in self.folder.iterdir() if path.is_file()):
            made.update(source.name.encode() + b"\0" + source.read_bytes())
        return made.hexdigest()[:32]

    def _compile(self, compiler: str, path: Path) -> None:
        """Compile to a file beside it, which is then renamed: a library is whole or absent. Nobody else compiles meanwhile."""
        for left in path.parent.glob(".build.*"):  # of a compiler that was killed
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".build.") as place:

            def object_of(name: str, *flags: str) -> _Object:
                return _Object(compiler, place, self.folder / f"{name}.cpp", (*self.flags, *flags))

            objects = [object_of("plain"), *(object_of(name, *flags) for name, flags in self.sets.items())]
            failed = {each.name: each for each in objects if each.fault is not None}
            if hopeless := next((each for each in failed.values() if each.passing or each is objects[0]), None):
                raise Unavailable(f"{compiler} cannot compile {self.title}: {hopeless.fault}")
            known = [each for each in objects if each.name not in failed and self.bases.get(each.name) not in failed]
            if len(known) < len(objects):
                left_out = ", ".join(each.name for each in objects if each not in known)
                notice(f"{compiler} does not know {left_out}: {self.title} goes without")
            main = object_of(self.main, *(f"-DWITH_{each.name.upper()}" for each in known[1:]))
            made = Path(place, "made.so")
            words = [compiler, *self.flags, "-shared", main.path, *(each.path for each in known), "-o", str(made)]
            if fault := main.fault or _Running([word for word in words if word != "-fopenmp"]).fault:
                raise Unavailable(f"{compiler} cannot compile {self.title}: {fault}")
            held = made.read_bytes()
            made.write_bytes(held + hashlib.sha256(held).digest())  # loaders do not read what stands behind a library
            made.chmod(0o700)
            os.replace(made, path)


def whole(path: Path) -> bool:
    """Whether a library is there as it was made: it ends with the hash of all before. A damaged one would end the process."""
    try:
        held = path.read_bytes()
    except OSError:
        return False
    return hashlib.sha256(held[:-32]).digest() == held[-32:]


def load(path: Path) -> ctypes.CDLL:
    """A library.

    Raises:
        Unavailable: where the system does not take it.
    """
    try:
        return ctypes.CDLL(str(path))
    except OSError as fault:
        raise Unavailable(f"{path} cannot be loaded: {fault}") from fault


def system_compiler() -> str:
    """The C++ compiler: that of CXX, else of the usual names.

    Raises:
        Unavailable: if there is none.
    """
    asked = os.environ.get("CXX")
    for name in (asked,) if asked else ("c++", "g++", "clang++"):
        if name and (found := shutil.which(name)):
            return found
    raise Unavailable(
        f"there is no C++ compiler {asked or 'c++, g++ or clang++'}; a system package such as g++ has one"
    )


def _version(compiler: str) -> str:
    """Which compiler of which version, as a hash."""
    try:
        said = subprocess.run([compiler, "--version"], capture_output=True, check=True, timeout=30).stdout
    except subprocess.CalledProcessError as fault:
        raise Unavailable(f"{compiler} does not run: it exits with {fault.returncode}") from fault
    except (OSError, subprocess.SubprocessError) as fault:
        raise Unavailable(f"{compiler} does not run: {fault}") from fault
    return hashlib.sha256(said).hexdigest()[:16]


def cache_folder() -> Path:
    """The cache folder, mode 0700, made if it is missing.

    Raises:
        Unavailable: if there is none, or others can write it.
    """
    try:
        shared = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(os.environ.get(CACHE) or Path(shared, "model-compression")) / "native"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except RuntimeError as fault:  # a user without a home
        raise Unavailable(f"{fault}; {CACHE} names a cache folder") from fault
    except OSError as fault:
        raise Unavailable(f"{fault.filename}: {fault.strerror}; {CACHE} names another cache folder") from fault
    trusted(folder)
    return folder


def trusted(path: Path) -> None:
    """Refuse what is not this user's own, or what others can write: it is loaded as code.

    Raises:
        Unavailable: for such a path.
    """
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode) or found.st_uid != os.getuid():
        raise Unavailable(f"{path} is not yours alone to write: remove it, or name another cache folder with {CACHE}")
    if found.st_mode & 0o022:
        raise Unavailable(f"{path} is not yours alone to write: chmod go-w {path}, or remove it")


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

    def __init__(self, compiler: str, place: str, source: Path, flags: tuple[str, ...]) -> None:
        self.name, self.path = source.stem, f"{place}/{source.stem}.o"
        super().__init__([compiler, *flags, "-c", str(source), "-o", self.path])
