"""The engine's library: compiled once into a folder that only the user can write; any other folder is refused."""

from __future__ import annotations

import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from deploy.native import compiler
from deploy.native.compiler import KERNELS, Unavailable
from engine.errors import USAGE
from engine.system import compiled
from engine.system.compiled import CACHE, Sources
from tests.conftest import assert_refused
from tests.tools.house import ROOT


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty cache folder for this test."""
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    return tmp_path / "cache" / "native"


@pytest.fixture(scope="session")
def library() -> Path:
    """Return this machine's library in the user's own cache folder."""
    try:
        return compiler.build()
    except Unavailable as fault:
        pytest.skip(str(fault))


def compiling(path: Path, does: str) -> str:
    """Write a fake compiler that prints a version and otherwise runs `does`; `$out` is the file to write, `$all` all words."""
    path.unlink(missing_ok=True)  # another process may just be starting the old one: "text file busy"
    path.write_text(
        "#!/bin/sh\n[ $1 = --version ] && echo one && exit 0\n"
        'all="$*"; while [ $# -gt 0 ]; do [ "$1" = -o ] && out=$2; shift; done\n' + does
    )
    path.chmod(0o755)
    return str(path)


def test_without_a_compiler_it_is_said(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(Unavailable, match="there is no C\\+\\+ compiler no-such-compiler"):
        compiler.build()
    monkeypatch.delenv("CXX")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(Unavailable, match=r"there is no C\+\+ compiler c\+\+, g\+\+ or clang\+\+"):
        compiler.build()


def test_what_a_compiler_complains_of_is_said(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", compiling(tmp_path / "c", "echo step.h: error: no such thing >&2; exit 1\n"))
    with pytest.raises(Unavailable, match=r"cannot compile the native engine: step\.h: error: no such thing"):
        compiler.build()
    assert [path.name for path in cache.iterdir()] == [".lock"]


@pytest.mark.parametrize(
    "does", ["kill -9 $$", "echo 'c++: fatal error: Killed signal terminated program cc1plus'; exit 1"]
)
def test_a_compiler_that_is_ended_leaves_nothing_behind(
    does: str, cache: Path, tmp_path: Path, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The compiler knew the instruction set: a library without it would stay forever."""
    ended = f'case "$out" in *avx512popcnt.o) {does};; esac; cp {library} "$out"\n'
    monkeypatch.setenv("CXX", compiling(tmp_path / "c", ended))
    if not compiler.SETS:
        pytest.skip("there is one instruction set here")
    with pytest.raises(
        Unavailable, match=r"cannot compile the native engine: (it was ended by signal 9|c.*Killed signal)"
    ):
        compiler.build()
    assert [path.name for path in cache.iterdir()] == [".lock"]


def test_a_set_that_the_compiler_does_not_know_is_left_out_with_those_that_need_it(
    cache: Path, tmp_path: Path, library: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    unknown = (
        f'case "$all" in *-mavx512vpopcntdq*) echo "error: unrecognized option"; exit 1;; esac; cp {library} "$out"\n'
    )
    monkeypatch.setenv("CXX", compiling(tmp_path / "c", f"echo $* >> {tmp_path}/calls; {unknown}"))
    if not compiler.SETS:
        pytest.skip("there is one instruction set here")
    compiler.build()
    assert "does not know avx512popcnt, amx" in capsys.readouterr().err


def test_a_set_that_the_compiler_knows_and_cannot_compile_is_named_with_the_fault(
    cache: Path, tmp_path: Path, library: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fails = f'case "$out" in *avx512popcnt.o) echo "error: no matching function"; exit 1;; esac; test "$out" && cp {library} "$out"\n'
    monkeypatch.setenv("CXX", compiling(tmp_path / "c", f"{fails}exit 0\n"))
    if not compiler.SETS:
        pytest.skip("there is one instruction set here")
    compiler.build()
    said = capsys.readouterr().err
    assert "cannot compile avx512popcnt, amx" in said
    assert "(error: no matching function)" in said


def test_every_set_that_the_compiler_knows_is_compiled(engine: compiler.Engine) -> None:
    """Whether this processor has it or not: a fault in kernels that few processors run is found everywhere."""
    found, sources = 0, compiler.sources()
    while engine.library.mc_name(found):
        found += 1
    compilable = [name for name, flags in sources.sets.items() if compiled._knows(compiled.system_compiler(), flags)]
    assert found == 1 + len(compilable), compilable


def test_it_is_compiled_once_though_many_ask_at_once(
    cache: Path, tmp_path: Path, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "CXX", compiling(tmp_path / "c", f'echo $out >> {tmp_path}/calls; sleep 0.3; cp {library} "$out"\n')
    )
    code = "from deploy.native import compiler; print(compiler.build())"
    asking = [
        subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    said = [process.communicate(timeout=120) for process in asking]
    assert len({out for out, _ in said}) == 1
    assert len((tmp_path / "calls").read_text().splitlines()) == len(compiler.sources().sets) + 3
    (made,) = cache.glob("*.so")
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    assert sorted(path.name for path in cache.iterdir()) == sorted([".lock", made.name])
    assert sum("compiling the native engine" in err for _, err in said) == 1


def test_who_is_killed_while_compiling_hinders_nobody(
    cache: Path, tmp_path: Path, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", compiling(tmp_path / "c", f"touch {tmp_path}/begun; sleep 60\n"))
    code = "from deploy.native import compiler; compiler.build()"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, start_new_session=True)
    while not (tmp_path / "begun").exists():
        assert process.poll() is None
    process.kill()
    process.wait()
    compiling(tmp_path / "c", f'cp {library} "$out"\n')
    assert compiler.build().exists()


@pytest.mark.parametrize("what", ["folder", "library"])
def test_what_others_can_write_is_not_loaded(
    what: str, cache: Path, tmp_path: Path, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", compiling(tmp_path / "c", f'cp {library} "$out"\n'))
    made = compiler.build()
    wrong = cache if what == "folder" else made
    wrong.chmod(0o777)
    with pytest.raises(Unavailable, match="can be written by other users"):
        compiler.build()
    wrong.chmod(0o700)
    assert compiler.build() == made


def test_a_link_in_the_place_of_the_library_is_not_loaded(
    cache: Path, tmp_path: Path, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", compiling(tmp_path / "c", f'cp {library} "$out"\n'))
    made = compiler.build()
    made.rename(tmp_path / "elsewhere.so")
    made.symlink_to(tmp_path / "elsewhere.so")
    with pytest.raises(Unavailable, match="is a link, or belongs to another user"):
        compiler.build()


def test_where_nothing_can_be_written_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(CACHE, str(tmp_path / "file"))
    with pytest.raises(Unavailable, match=f"set {CACHE} to another cache folder"):
        compiler.build()


def test_a_user_without_a_home_is_told_how_to_go_on(monkeypatch: pytest.MonkeyPatch, library: Path) -> None:
    def fails() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in (CACHE, "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(compiled.Path, "home", fails)
    with pytest.raises(Unavailable, match=f"home directory.; set {CACHE} to a cache folder"):
        compiler.build()


def test_the_name_hangs_on_sources_flags_and_compiler(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, library: Path
) -> None:
    works = f'cp {library} "$out"\n'
    monkeypatch.setenv("CXX", compiling(tmp_path / "c", works))
    shutil.copytree(compiler.sources().folder, tmp_path / "source")

    def made(*flags: str) -> str:
        return Sources("it", tmp_path / "source", "engine", compiler.SETS, {}, flags).build().name

    names = {made()}
    (tmp_path / "c").write_text((tmp_path / "c").read_text().replace("echo one", "echo two"))
    names |= {made(), made("-g")}
    (tmp_path / "source/plain.cpp").write_text("// another")
    names.add(made())
    assert len(names) == 4
    assert made() in names


@pytest.mark.parametrize(
    "damage", [lambda held: held[:20_000], lambda held: held[:5], lambda held: held[:-40] + bytes(40)]
)
def test_a_damaged_library_is_compiled_again(
    damage: Callable, cache: Path, tmp_path: Path, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loading a truncated library would end the process with a bus error."""
    monkeypatch.setenv("CXX", compiling(tmp_path / "c", f'cp {library} "$out"\n'))
    made = compiler.build()
    good = made.read_bytes()
    made.write_bytes(damage(good))
    assert compiler.build() == made
    assert made.read_bytes() == good


def test_without_a_compiler_what_another_one_made_is_as_good(
    cache: Path, tmp_path: Path, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container image that builds the engine need not keep the compiler."""
    monkeypatch.setenv("CXX", compiling(tmp_path / "c", f'cp {library} "$out"\n'))
    made = compiler.build()
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert compiler.build() == made
    made.write_bytes(b"")
    with pytest.raises(Unavailable, match="there is no"):
        compiler.build()


def test_a_file_that_is_no_library_is_said(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: Path
) -> None:
    monkeypatch.setenv("CXX", compiling(tmp_path / "c", 'echo text > "$out"\n'))
    with pytest.raises(Unavailable, match="cannot be loaded"):
        compiler._library.__wrapped__()


def test_the_environment_names_the_instruction_set(monkeypatch: pytest.MonkeyPatch, library: Path) -> None:
    monkeypatch.setenv(KERNELS, "PLAIN C++")
    assert compiler.engine().kernels == "plain C++"
    monkeypatch.setenv(KERNELS, "mmx")
    with pytest.raises(Unavailable, match=f"{KERNELS}=mmx is not an instruction set of this machine: plain C"):
        compiler.engine()


def test_the_command_compiles_and_says_what_runs(command: Callable[..., SimpleNamespace], library: Path) -> None:
    done = command("deploy.build")
    assert done.code == 0, done.err
    assert done.out.startswith(f"the native engine runs here, by {compiler.instruction_sets()[-1]}\n")
    assert done.path == str(library)


def test_the_command_refuses_where_there_is_no_compiler(
    command: Callable[..., SimpleNamespace], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    compiler._library.cache_clear()
    try:
        assert_refused(command("deploy.build"), USAGE, "there is no native engine here: there is no C++ compiler")
    finally:
        compiler._library.cache_clear()
