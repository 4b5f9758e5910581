"""Write the generated pages of the reference: `python -m scripts.reference_docs`.

The command line comes from Typer, the Python API from signatures and docstrings, the errors from their classes.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

import oneturn
from oneturn import errors
from oneturn.cli import app

DOCS = Path(__file__).parent.parent / "docs"
_SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Yields|Example|Examples|Note):$")
_ENTRY = re.compile(r"^(\*{0,2}\w+(?:, \*{0,2}\w+)*): (.*)$")


def cli_page() -> str:
    """Return the page on the command line: each command with its arguments, options and examples."""
    root = typer.main.get_command(app)
    context = typer.Context(root, info_name="oneturn")
    parts = [f"# Command line\n\n{root.help}\n\n{_options(root, context)}"]
    parts += [_command(command, context) for command in _commands(root, context)]
    return "\n".join(parts)


def _commands(group: Any, parent: Any) -> Iterator[tuple[str, Any]]:
    for name in group.list_commands(parent):
        command = group.get_command(parent, name)
        if isinstance(command, TyperGroup):
            context = typer.Context(command, info_name=name, parent=parent)
            yield from ((f"{name} {inner}", entry) for inner, entry in _commands(command, context))
            if not command.invoke_without_command:
                continue
        yield name, command


def _command(named: tuple[str, Any], parent: Any) -> str:
    name, command = named
    context = typer.Context(command, info_name=name, parent=parent)
    text, _, rest = inspect.cleandoc(command.help or "").partition("Examples:")
    lines = [line.strip() for line in rest.splitlines() if line.strip()]
    examples = [line for line in lines if line.startswith("oneturn")]
    notes = [line for line in lines if line not in examples]
    usage = f"oneturn {name} {' '.join(command.collect_usage_pieces(context))}"
    code = "\n".join([usage, *(["", *examples] if examples else [])])
    text = "\n\n".join(filter(None, [text.strip(), " ".join(notes)]))
    return f"## oneturn {name}\n\n{text}\n\n```\n{code}\n```\n\n{_options(command, context)}"


def _options(command: Any, context: Any) -> str:
    records = [parameter.get_help_record(context) for parameter in command.get_params(context)]
    named = ((names.replace("|", " / "), text) for names, text in filter(None, records))  # no pipe in a cell's code
    rows = [f"| `{_cell(names)}` | {_cell(text)} |" for names, text in named]
    return "\n".join(["| argument or option | meaning |", "| --- | --- |", *rows]) + "\n"


def errors_page() -> str:
    """Return the page on the exceptions, as the tree of their classes."""
    intro, _, tree = inspect.cleandoc(errors.__doc__ or "").partition("\n\n")
    drawn, _, closing = tree.rpartition("\n\n")
    parts = [
        f"# Errors\n\n{intro} All of them are in `oneturn.errors`. {closing}\n\n```\n{inspect.cleandoc(drawn)}\n```\n"
    ]
    parts += [f"## {kind.__name__}\n\n{_docstring(kind)}\n" for kind in error_types()]
    return "\n".join(parts)


def error_types() -> list[type[Exception]]:
    """Return the exception classes of the engine, in the order of their definition."""
    return [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]


def api_page() -> str:
    """Return the page on the Python API: the names in `oneturn`, then those of each documented package."""
    head = (
        "# Python API\n\nEverything that `import oneturn` offers, then the other documented packages. Import from "
        "these packages, not from the modules inside them.\n"
    )
    parts = [head, *(_entry(name, getattr(oneturn, name)) for name in oneturn.__all__)]
    return "\n".join([*parts, "## Other packages\n", *map(_package, packages())])


def packages() -> list[str]:
    """Return the documented packages inside `oneturn`, except the command line."""
    root = Path(oneturn.__file__).parent
    paths = sorted(path.parent.relative_to(root).parts for path in root.rglob("__init__.py"))
    names = [".".join(("oneturn", *parts)) for parts in paths if parts and parts[0] not in ("cli", "scaffold", "core")]
    return sorted([*names, "oneturn.testing"])


def _package(name: str) -> str:
    module = importlib.import_module(name)
    names = [entry for entry in getattr(module, "__all__", ()) if entry not in oneturn.__all__]
    rows = [f"| `{entry}` | {_cell(_described(module, entry))} |" for entry in names]
    table = ["| name | what it is |", "| --- | --- |", *rows, ""] if rows else []
    return "\n".join([f"### {name}\n", _summary(module), "", *table])


def _entry(name: str, value: Any) -> str:
    heading = f"## {name}\n"
    below = _markup(_text_below(oneturn, name))
    text = below or _docstring(value)
    signature = "" if below else _signature(name, value)
    methods = [
        f"**`.{method}{_parameters(member)}`** — {_summary(member)}\n" for method, member in _methods(value)
    ]  # fmt: skip
    return "\n".join([heading, *([f"```python\n{signature}\n```\n"] if signature else []), f"{text}\n", *methods])


def _methods(value: Any) -> list[tuple[str, Callable[..., Any]]]:
    if not inspect.isclass(value):
        return []
    own = [(name, member) for name, member in vars(value).items() if not name.startswith("_")]
    functions = [(name, getattr(member, "__func__", member)) for name, member in own]
    return [(name, member) for name, member in functions if inspect.isfunction(member) and member.__doc__]


def _signature(name: str, value: Any) -> str:
    if not callable(value) or (inspect.isclass(value) and issubclass(value, Exception)):
        return ""
    text = f"{name}{_parameters(value)}"
    return text if len(text) <= 88 else text.replace("(", "(\n    ", 1).replace(", ", ",\n    ")[:-1] + ",\n)"


def _parameters(value: Any) -> str:
    parameters = inspect.signature(value).parameters
    if list(parameters) == ["args", "kwargs"] and inspect.isclass(value):  # of the metaclass of dspy.Module
        parameters = inspect.signature(value.__init__).parameters
    names = []
    star = False
    for parameter in parameters.values():
        if parameter.name in ("self", "cls") or parameter.name.startswith("_"):
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not star:
            names.append("*")
        star = star or parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL)
        prefix = "*" if parameter.kind is parameter.VAR_POSITIONAL else ""
        prefix = "**" if parameter.kind is parameter.VAR_KEYWORD else prefix
        optional = parameter.default is not parameter.empty
        names.append(f"{prefix}{parameter.name}{'=…' if optional else ''}")
    return f"({', '.join(names)})"


def _described(module: Any, name: str) -> str:
    """Return the first sentence on a name of a package: of a constant or an alias, of the text below its assignment."""
    return _markup(" ".join(_text_below(module, name).split())) or _summary(getattr(module, name))


def _text_below(module: Any, name: str) -> str:
    tree = ast.parse(inspect.getsource(module))
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("oneturn"):
            continue
        if name in [alias.name for alias in node.names]:
            return _text_below(importlib.import_module(str(node.module)), name)
    for node, following in zip(tree.body, [*tree.body[1:], None], strict=True):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if not any(isinstance(target, ast.Name) and target.id == name for target in targets):
            continue
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            return inspect.cleandoc(str(following.value.value))
    return ""


def _summary(value: Any) -> str:
    """Return the first sentence of a docstring."""
    text = " ".join((inspect.getdoc(value) or "").split("\n\n")[0].split())
    return _markup(text)


def _docstring(value: Any) -> str:
    """Convert a docstring to Markdown: sections become lists."""
    lines: list[str] = []
    section = ""
    for line in (inspect.getdoc(value) or "").splitlines():
        text = line.strip()
        if match := _SECTION.match(text):
            section = match[1]
            lines += [
                *([""] if lines and lines[-1] else []),
                f"**{'Arguments' if section == 'Args' else section}**",
                "",
            ]
        elif section and text and line.startswith("    "):
            entry = _ENTRY.match(text) if not line.startswith("        ") else None
            if entry:
                lines.append(f"- `{entry[1]}`: {entry[2]}")
            else:
                lines.append(f"  {text}" if lines[-1] else text)
        else:
            lines.append(line)
    return _markup("\n".join(lines)).strip()


def _markup(text: str) -> str:
    """Convert the markup of docstrings to that of Markdown."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text)
    return text.replace("``", "`")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


PAGES: dict[Path, Callable[[], str]] = {
    DOCS / "reference-cli.md": cli_page,
    DOCS / "reference-api.md": api_page,
    DOCS / "reference-errors.md": errors_page,
}
"""Each generated page, and the function that returns it."""


if __name__ == "__main__":
    for path, page in PAGES.items():
        path.write_text(page(), encoding="utf-8")
