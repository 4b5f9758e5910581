"""Load a logged model and answer its example question: a script that runs in its own process, in another folder.

    python _load_elsewhere.py MODEL ROOT RESULT

Nothing in ROOT, the agent's folder, can be imported, however it got onto the import path. The names of modules and
files of ROOT that the model needed are written to RESULT. The script doesn't import oneturn: the model brings its own.
"""

from __future__ import annotations

import inspect
import json
import os
import pathlib
import sys
import threading
from collections.abc import Callable, Iterable
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any


class _MissingModules:
    """The last finder of imports: records the modules that only ROOT has."""

    def __init__(self, root: Path):
        self._root = root
        self.names: list[str] = []

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Find no module; called when no other finder has found it."""
        place = self._root.joinpath(*name.split("."))
        if (place.with_suffix(".py").is_file() or any(place.rglob("*.py"))) and name not in self.names:
            self.names.append(name)
        return None


class _NeededFiles:
    """Records what of ROOT is opened, or looked for in the model or the working folder without success.

    It is an audit hook, for files, folders and SQLite databases; ``stat`` replaces ``os.stat``, which has no event.
    """

    def __init__(self, root: Path, model: Path):
        self._root = root
        self._model = model
        self._looking = threading.local()  # its own look-ups aren't recorded
        self.names: list[str] = []

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if event in ("open", "sqlite3.connect"):
            self._note(args[0], Path.is_file)
        elif event in ("os.listdir", "os.scandir"):
            self._note(args[0], Path.is_dir)

    def stat(self, path: Any, *args: Any, **kwargs: Any) -> os.stat_result:
        """Return what ``os.stat`` does."""
        try:
            return _stat(path, *args, **kwargs)
        except FileNotFoundError:
            if not _asked_by_a_framework():
                self._note(path, Path.exists)
            raise

    def _note(self, path: Any, is_there: Callable[[Path], bool]) -> None:
        if not isinstance(path, str | bytes | os.PathLike) or getattr(self._looking, "now", False):
            return
        self._looking.now = True
        try:
            file = self._in_root(Path(os.fsdecode(path)))
            if not file.is_absolute() or not file.is_relative_to(self._root) or file == self._root:
                return
            name = file.relative_to(self._root)
            stores = ("mlruns", "mlartifacts", "mlflow.db")
            if _is_installed(file) or name.parts[0].startswith((".", *stores)) or not is_there(file):
                return
            shown = f"{name}/" if file.is_dir() else str(name)
            if shown not in self.names:
                self.names.append(shown)
        finally:
            self._looking.now = False

    def _in_root(self, file: Path) -> Path:
        """The place in ROOT of a file that the model or the working folder lacks; another file is unchanged."""
        if file.exists():
            return file
        if not file.is_absolute():
            return self._root / file
        if not file.is_relative_to(self._model):
            return file
        parts = file.relative_to(self._model).parts
        return self._root.joinpath(*parts[1:] if parts[0] == "code" else parts)


def main() -> None:
    """Write ``{"modules": …, "files": …, "error": …}``; the error is null if the model has answered."""
    model, root, result = map(Path, sys.argv[1:])
    _hide(root)
    modules, files = _MissingModules(root), _NeededFiles(root, model)
    sys.meta_path.append(modules)
    error = None
    try:
        import mlflow

        mlflow.tracing.disable()
        example = json.loads((model / "input_example.json").read_text(encoding="utf-8"))
        sys.addaudithook(files)
        os.stat = files.stat
        if accessor := getattr(pathlib, "_normal_accessor", None):  # through which Path calls os.stat in Python 3.10
            accessor.stat = files.stat
        mlflow.pyfunc.load_model(str(model)).predict(example)
    except Exception as raised:  # the parent process reports it
        error = f"{type(raised).__name__}: {raised}"
    found = {"modules": modules.names, "files": files.names, "error": error}
    result.write_text(json.dumps(found), encoding="utf-8")


_stat = os.stat
_LIBRARY = os.path.dirname(os.__file__)


def _is_standard(file: str) -> bool:
    return file.startswith(("<frozen", _LIBRARY)) and "site-packages" not in file


def _asked_by_a_framework() -> bool:
    """Whether oneturn, MLflow or DSPy looks for a file, beyond the standard library's functions; they do without it."""
    frame = inspect.currentframe()
    while frame is not None and (frame.f_code.co_filename == __file__ or _is_standard(frame.f_code.co_filename)):
        frame = frame.f_back
    name = "" if frame is None else str(frame.f_globals.get("__name__", ""))
    return name.partition(".")[0] in ("oneturn", "mlflow", "dspy")


def _hide(root: Path) -> None:
    """Remove ``root``, and the folders in it, from the import path: entries of PYTHONPATH, of .pth files, and editable
    installs, whose finders map module names to folders."""
    sys.path[:] = _outside(root, sys.path[1:])  # the first entry is this file's folder
    for finder in sys.meta_path:
        module = sys.modules.get(getattr(finder, "__module__", ""))
        mapping = getattr(module, "MAPPING", None)
        if isinstance(mapping, dict):
            kept = set(_outside(root, mapping.values()))
            for name in [name for name, folder in mapping.items() if folder not in kept]:
                del mapping[name]


def _outside(root: Path, folders: Iterable[str]) -> list[str]:
    return [
        folder for folder in folders if _is_installed(Path(folder)) or not Path(folder).resolve().is_relative_to(root)
    ]


def _is_installed(path: Path) -> bool:
    """Whether a path belongs to the Python environment, which may be a folder of ROOT."""
    return path.is_relative_to(sys.prefix) or path.is_relative_to(sys.base_prefix)


if __name__ == "__main__":
    main()
