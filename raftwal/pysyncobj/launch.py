"""A Python program, found and run in this process as the interpreter itself would run it."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import io
import os
import pkgutil
import shutil
import sys
from collections.abc import Callable, Sequence
from types import CodeType, ModuleType, TracebackType
from typing import NamedTuple

_INTERPRETERS = (b"python", b"pypy")


class ProgramNotFoundError(Exception):
    """There is no such program, or it is none of Python's."""


class Program(NamedTuple):
    """What is needed to run a program once.

    ``argv0`` is its name in ``sys.argv``, ``search_path`` the directory that its own
    modules are imported from first; ``None`` leaves the current one, as for ``-m``.
    ``load`` gives its code; it raises `ProgramNotFoundError` where there is none, and what
    is wrong with it, a ``SyntaxError`` mostly.
    """

    main: ModuleType
    argv0: str
    search_path: str | None
    load: Callable[[], CodeType]


def find_program(name: str) -> Program:
    """A script, a directory or archive with a ``__main__.py``, or a command.

    A name without a slash that is no file here is a command: looked for beside the
    interpreter, where a virtual environment has the commands of its packages, then on
    ``PATH``.

    Raises `ProgramNotFoundError`.
    """
    if os.path.dirname(name) or os.path.isfile(name):
        if not os.path.exists(name):
            raise ProgramNotFoundError(f"there is no file {name}")
        return _at(name)
    search = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])
    command = shutil.which(name, path=search)
    if command is None:
        raise ProgramNotFoundError(f"there is no file {name} here, and no such command on PATH")
    return _at(command)


def _at(path: str) -> Program:
    try:
        return _archive(path) or _script(path)
    except OSError as error:
        raise ProgramNotFoundError(f"cannot read {path}: {error.strerror or error}") from error


def _script(path: str) -> Program:
    file_name = os.path.join(os.getcwd(), path)
    with io.open_code(file_name) as file:
        source = file.read()
    _check_is_python(path, source)
    main = ModuleType("__main__")
    # multiprocessing's children run this file again: __file__ says where, __spec__ that it
    # is no module.
    main.__file__ = file_name
    main.__spec__ = None
    main.__loader__ = importlib.machinery.SourceFileLoader("__main__", file_name)
    main.__dict__.update(__package__=None, __cached__=None)
    return Program(
        main,
        argv0=path,
        search_path=os.path.dirname(os.path.realpath(path)),
        load=lambda: compile(source, file_name, "exec", dont_inherit=True),
    )


def _check_is_python(path: str, source: bytes) -> None:
    first, _, rest = source.partition(b"\n")
    if b"\0" in source:
        raise ProgramNotFoundError(f"{path} is no Python program")
    # Where an interpreter's path is too long for a first line, pip has a shell start it
    # from the second.
    if first.startswith(b"#!") and not any(
        name in first + rest.partition(b"\n")[0] for name in _INTERPRETERS
    ):
        interpreter = first[2:].strip().decode(errors="backslashreplace")
        raise ProgramNotFoundError(f"{path} is no Python program: it is run by {interpreter}")


def _archive(path: str) -> Program | None:
    """A directory or a zip file; ``None`` for a plain file."""
    absolute = os.path.join(os.getcwd(), path)
    finder = pkgutil.get_importer(absolute)
    if finder is None or not hasattr(finder, "find_spec"):
        return None
    spec = finder.find_spec("__main__")
    if spec is None:
        raise ProgramNotFoundError(f"there is no __main__.py in {path}")
    return _module(spec, path, search_path=absolute)


def find_module(name: str) -> Program:
    """A module, or the ``__main__`` of a package, as ``python -m`` finds it.

    Imports the packages that it is in.  Raises `ProgramNotFoundError`, and what these raise.
    """
    sys.argv[0] = "-m"  # as Python has it while it looks
    try:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            name = f"{name}.__main__"
            spec = importlib.util.find_spec(name)
    except (ImportError, ValueError) as error:
        raise ProgramNotFoundError(f"there is no module {name}: {error}") from error
    if spec is None:
        raise ProgramNotFoundError(f"there is no module {name}")
    return _module(spec, spec.origin or name, search_path=None)


def _module(spec: importlib.machinery.ModuleSpec, argv0: str, search_path: str | None) -> Program:
    loader = spec.loader
    unusable = ProgramNotFoundError(f"{spec.name} is no module that Python can run")
    if loader is None or not hasattr(loader, "get_code"):
        raise unusable
    main = ModuleType("__main__")
    main.__spec__ = spec
    main.__loader__ = loader
    main.__file__ = spec.origin
    main.__dict__.update(__package__=spec.parent, __cached__=spec.cached)

    def load() -> CodeType:
        code = loader.get_code(spec.name)
        if not isinstance(code, CodeType):
            raise unusable  # built in, or in another language
        return code

    return Program(main, argv0, search_path, load)


def run(program: Program, arguments: Sequence[str]) -> None:
    """Run it as this process's ``__main__``.

    Raises what the program raises, ``SystemExit`` among it; a traceback that reaches the
    interpreter begins with the program's own frames.
    """
    sys.argv[:] = [program.argv0, *arguments]
    # A process that was told not to (python -P, -I) has nothing put in front.
    if program.search_path is not None and not getattr(sys.flags, "safe_path", sys.flags.isolated):
        sys.path[:1] = [program.search_path]
    program.main.__dict__["__builtins__"] = sys.modules["builtins"]
    sys.modules["__main__"] = program.main
    try:
        exec(program.load(), vars(program.main))
    except BaseException:
        _hide_own_frames()
        raise


def _hide_own_frames() -> None:
    # In the hook, and not where the error passes: raising it again would add them again,
    # and how the process ends stays the interpreter's affair.
    hook = sys.excepthook

    def excepthook(
        kind: type[BaseException], error: BaseException, traceback: TracebackType | None
    ) -> None:
        traceback = _of_the_program(traceback)
        hook(kind, error.with_traceback(traceback), traceback)

    sys.excepthook = excepthook


def _of_the_program(traceback: TracebackType | None) -> TracebackType | None:
    shown = traceback
    while shown is not None and shown.tb_frame.f_code is not run.__code__:
        shown = shown.tb_next
    if shown is None:
        return traceback
    while shown is not None and shown.tb_frame.f_code.co_filename == __file__:
        shown = shown.tb_next
    return shown
