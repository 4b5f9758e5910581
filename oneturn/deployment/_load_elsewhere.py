"""Load a logged model and answer its example question: a script that runs in its own process, in another folder.

    python _load_elsewhere.py MODEL ROOT RESULT

Nothing in ROOT, the agent's folder, can be imported, however it got onto the import path. The names of modules and
files of ROOT that the model needed are written to RESULT. The script doesn't import oneturn: the model brings its own.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
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
        if (place.with_suffix(".py").is_file() or any(place.glob("*.py"))) and name not in self.names:
            self.names.append(name)
        return None


class _OpenedFiles:
    """An audit hook that records the files of ROOT that are opened, or looked for in the model without success."""

    def __init__(self, root: Path, model: Path):
        self._root = root
        self._model = model
        self.names: list[str] = []

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if event != "open" or not isinstance(args[0], str):
            return
        file = self._in_root(Path(args[0]))
        if not file.is_absolute() or not file.is_relative_to(self._root) or _is_installed(file) or not file.is_file():
            return
        name = file.relative_to(self._root)
        stores = ("mlruns", "mlartifacts", "mlflow.db")
        if not name.parts[0].startswith((".", *stores)) and str(name) not in self.names:
            self.names.append(str(name))

    def _in_root(self, file: Path) -> Path:
        """The place in ROOT of a file that the model lacks; another file is unchanged."""
        if not file.is_relative_to(self._model) or file.exists():
            return file
        parts = file.relative_to(self._model).parts
        return self._root.joinpath(*parts[1:] if parts[0] == "code" else parts)


def main() -> None:
    """Write ``{"modules": …, "files": …, "error": …}``; the error is null if the model has answered."""
    model, root, result = map(Path, sys.argv[1:])
    _hide(root)
    modules, files = _MissingModules(root), _OpenedFiles(root, model)
    sys.meta_path.append(modules)
    error = None
    try:
        import mlflow

        mlflow.tracing.disable()
        example = json.loads((model / "input_example.json").read_text(encoding="utf-8"))
        sys.addaudithook(files)
        mlflow.pyfunc.load_model(str(model)).predict(example)
    except Exception as raised:  # the parent process reports it
        error = f"{type(raised).__name__}: {raised}"
    found = {"modules": modules.names, "files": files.names, "error": error}
    result.write_text(json.dumps(found), encoding="utf-8")


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
