"""The program that ``oneturn new --from`` wraps, as values for the templates."""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import dspy

from oneturn.datasets.schema import example_schema
from oneturn.errors import ConfigError
from oneturn.programs import as_program

_NAMES = ("AGENT", "CONFIG", "Path", "metric", "mlflow", "oneturn")
"""The names in ``agent.py`` besides that of the program."""


def wrapped(folder: Path, source: str) -> dict[str, Any]:
    """Return what the templates need to know of ``"my_module:program"``.

    Raises:
        ConfigError: the module can't be imported, isn't in the folder, or has no such ``dspy.Module``.
        ProgramError: the program can't be served.
    """
    module, _, name = source.partition(":")
    if not (module.replace(".", "").isidentifier() and name.isidentifier()):
        raise ConfigError(f"{source!r} should be MODULE:NAME, such as my_module:program.")
    if str(folder.resolve()) not in sys.path:
        sys.path.insert(0, str(folder.resolve()))
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{source} can't be imported: {error}. Run the command in the folder of {module}.") from None
    top = module.partition(".")[0]
    code = next((each for each in (f"{top}.py", top) if (folder / each).exists()), None)
    if code is None:
        raise ConfigError(f"{top} isn't in {folder.resolve()}. Run the command in its folder, or pass --folder.")
    is_module = isinstance(found, dspy.Module)
    program = found if is_module else _built(found, source) if callable(found) else None
    if not isinstance(program, dspy.Module):
        raise ConfigError(f"{source} is {type(program).__name__}; it should be a dspy.Module, or build one.")
    signature = as_program(program).signature
    local = f"wrapped_{name}" if name in _NAMES else name
    return {
        "module": module,
        "object": name,
        "imported": name if local == name else f"{name} as {local}",
        "build": f"{local}.deepcopy" if is_module else local,
        "code": code,
        "inputs": list(signature.input_fields),
        "outputs": list(signature.output_fields),
        "schema": json.dumps(example_schema(signature), indent=2, ensure_ascii=False),
        "summary": f"An agent around `{name}` of `{module}`.",
        "question": "Replace this question",
    }


def _built(build: Callable[..., Any], source: str) -> Any:
    with suppress(ValueError):  # implemented in C
        try:
            inspect.signature(build).bind()
        except TypeError as error:
            name = source.partition(":")[2]
            raise ConfigError(
                f"{source} can't be called without arguments: {error}. Write a function that builds it, such as "
                f"def build(): return {name}(…), and name that one."
            ) from None
    return build()
