"""The program that ``oneturn new --from`` wraps, as values for the templates."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import dspy

from oneturn.datasets.schema import example_schema
from oneturn.errors import ConfigError
from oneturn.programs import as_program


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
    program = found if is_module else found() if callable(found) else None
    if not isinstance(program, dspy.Module):
        raise ConfigError(f"{source} is {type(program).__name__}; it should be a dspy.Module, or build one.")
    signature = as_program(program).signature
    return {
        "module": module,
        "object": name,
        "build": f"{name}.deepcopy" if is_module else name,
        "code": code,
        "inputs": list(signature.input_fields),
        "outputs": list(signature.output_fields),
        "schema": json.dumps(example_schema(signature), indent=2, ensure_ascii=False),
        "summary": f"An agent around `{name}` of `{module}`.",
        "question": "Replace this question",
    }
