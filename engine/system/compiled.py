"""Compile this toolkit's C++ libraries with the system's compiler on first use, into the user's cache folder.

A cached library is code. It is loaded only if it is intact, and only from a folder that this user owns and nobody else
can write.
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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engine.system.messages import notice

FLAGS = ("-std=c++17", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fPIC", "-fvisibility=hidden")
"""-ffp-contract=off: a fused multiply-add rounds once and gives other bits than two roundings."""
X86 = platform.machine() in ("x86_64", "AMD64")
AVX2 = ("-mavx2", "-mpopcnt")
AVX512 = (*AVX2, "-mfma", *(f"-mavx512{part}" for part in ("f", "bw", "dq", "vl")), "-mprefer-vector-width=512")
PASSING = ("Killed", "Terminated", "No space left", "out of memory", "Cannot allocate")
"""Messages of passing failures: the compiler may succeed at another time."""
CACHE = "MODEL_COMPRESSION_CACHE"
SECONDS = 300


class Unavailable(Exception):
    """There is no library; the message says why."""


@dataclass(frozen=True)
class Sources:
    """The sources of a library.

    Args:
        title: its name in messages.
        folder: the folder of its sources.
        main: the source that receives a macro WITH_NAME for each compiled instruction set.
        sets: the sources of instruction sets by name, with their compiler flags, which do not depend on the compiling
            machine. A set whose flags the compiler does not know is left out. "plain" needs no flags.
        bases: for sets that need another set, the name of that set.
    """

    title: str
    folder: Path
    main: str
    sets: Mapping[str, tuple[str, ...]]
    bases: Mapping[str, str] = field(default_factory=dict)
    flags: tuple[str, ...] = FLAGS

    def build(self) -> Path:
        """Return the library in the cache folder, compiled if it is missing or damaged.

        Without a compiler, a cached library that another compiler made from the same sources is used.

        Raises:
            Unavailable: if there is no compiler, or no folder to keep the library in.
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
                    fcntl.flock(lock, fcntl.LOCK_EX)  # the system releases it however this process ends
                    if not whole(path):
                        notice(f"compiling {self.title}, once: some 5 to 60 seconds")
                        self._compile(compiler, path)
            except OSError as fault:
                raise Unavailable(f"{folder}: {fault.strerror}") from fault
        trusted(path)
        return path

    def key(self) -> str:
        """Return a hash of all that the library depends on besides the compiler: sources, flags and machine."""
        made = hashlib.sha256(repr((self.flags, sorted(self.sets.items()), platform.machine())).encode())
        for source in sorted(path for path in self.folder.iterdir() if path.is_file()):
            made.update(source.name.encode() + b"\0" + source.read_bytes())
        return made.hexdigest()[:32]

    def _compile(self, compiler: str, path: Path) -> None:
        """Compile to a temporary file and rename it: a library is complete or absent. The caller holds the lock."""
        for left in path.parent.glob(".build.*"):  # left by a killed compiler
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
                wrong = [each for each in failed.values() if _knows(compiler, self.sets[each.name])]
                why = f"cannot compile {left_out} ({wrong[0].fault})" if wrong else f"does not know {left_out}"
                notice(f"{compiler} {why}: {self.title} is compiled without these instruction sets")
            main = object_of(self.main, *(f"-DWITH_{each.name.upper()}" for each in known[1:]))
            made = Path(place, "made.so")
            words = [compiler, *self.flags, "-shared", main.path, *(each.path for each in known), "-o", str(made)]
            if fault := main.fault or _Running([word for word in words if word != "-fopenmp"]).fault:
                raise Unavailable(f"{compiler} cannot compile {self.title}: {fault}")
            held = made.read_bytes()
            made.write_bytes(held + hashlib.sha256(held).digest())  # loaders ignore trailing bytes
            made.chmod(0o700)
            os.replace(made, path)


def whole(path: Path) -> bool:
    """Return whether a library is intact (it ends with its hash); loading a damaged one kills the process."""
    try:
        held = path.read_bytes()
    except OSError:
        return False
    return hashlib.sha256(held[:-32]).digest() == held[-32:]


def load(path: Path) -> ctypes.CDLL:
    """Load a library.

    Raises:
        Unavailable: if the system cannot load it.
    """
    try:
        return ctypes.CDLL(str(path))
    except OSError as fault:
        raise Unavailable(f"{path} cannot be loaded: {fault}") from fault


def system_compiler() -> str:
    """Return the C++ compiler: the one in CXX, else the first of the usual names.

    Raises:
        Unavailable: if there is none.
    """
    asked = os.environ.get("CXX")
    for name in (asked,) if asked else ("c++", "g++", "clang++"):
        if name and (found := shutil.which(name)):
            return found
    raise Unavailable(
        f"there is no C++ compiler {asked or 'c++, g++ or clang++'}; install one, such as the system's package g++"
    )


def _version(compiler: str) -> str:
    """Return a hash of the compiler's name and version."""
    try:
        said = subprocess.run([compiler, "--version"], capture_output=True, check=True, timeout=30).stdout
    except subprocess.CalledProcessError as fault:
        raise Unavailable(f"{compiler} does not run: it exits with {fault.returncode}") from fault
    except (OSError, subprocess.SubprocessError) as fault:
        raise Unavailable(f"{compiler} does not run: {fault}") from fault
    return hashlib.sha256(said).hexdigest()[:16]


def cache_folder() -> Path:
    """Return the cache folder, created with mode 0700 if missing.

    Raises:
        Unavailable: if it cannot be created, or others can write to it.
    """
    try:
        shared = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(os.environ.get(CACHE) or Path(shared, "model-compression")) / "native"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except RuntimeError as fault:  # a user without a home
        raise Unavailable(f"{fault}; set {CACHE} to a cache folder") from fault
    except OSError as fault:
        raise Unavailable(f"{fault.filename}: {fault.strerror}; set {CACHE} to another cache folder") from fault
    trusted(folder)
    return folder


def trusted(path: Path) -> None:
    """Refuse a path that another user owns or can write to, as it is loaded as code.

    Raises:
        Unavailable: for such a path.
    """
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode) or found.st_uid != os.getuid():
        raise Unavailable(
            f"{path} is a link, or belongs to another user: remove it, or set {CACHE} to another cache folder"
        )
    if found.st_mode & 0o022:
        raise Unavailable(f"{path} can be written by other users: chmod go-w {path}, or remove it")


class _Running:
    """A running compiler."""

    def __init__(self, words: list[str]) -> None:
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.passing = False  # whether a later attempt may succeed

    @functools.cached_property
    def fault(self) -> str | None:
        """The compiler's error in one line, or None; waits until it ends."""
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


def _knows(compiler: str, flags: Sequence[str]) -> bool:
    """Return whether a compiler takes flags; if so, what it cannot compile with them is a fault of the source."""
    return _Running([compiler, *flags, "-x", "c++", "-fsyntax-only", os.devnull]).fault is None


class _Object(_Running):
    """A running compilation of one source file."""

    def __init__(self, compiler: str, place: str, source: Path, flags: tuple[str, ...]) -> None:
        self.name, self.path = source.stem, f"{place}/{source.stem}.o"
        super().__init__([compiler, *flags, "-c", str(source), "-o", self.path])
