"""Write the table of keys in docs/configuration.md: `python -m scripts.configuration_docs`."""

from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from oneturn.config import AgentConfig, LMConfig
from oneturn.config.errors import section_of

PAGE = Path(__file__).parent.parent / "docs" / "configuration.md"
BEGIN, END = "<!-- keys: begin -->\n", "<!-- keys: end -->\n"


def table(model: type[BaseModel] = AgentConfig) -> str:
    """Return the Markdown table of every key, its default and its meaning."""
    rows = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    return "\n".join([*rows, *_rows(model, "")]) + "\n"


def page() -> str:
    """Return the page with its table regenerated and the rest unchanged."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{table()}{END}{after}"


def _rows(model: type[BaseModel], prefix: str) -> list[str]:
    rows = []
    for name, field in model.model_fields.items():
        meaning = " ".join((field.description or "").split())
        section = section_of(field.annotation)
        if len(kinds := _kinds(field.annotation)) > 1:
            rows += [row for kind, entry in kinds.items() for row in _rows(entry, f"{prefix}{name}[{kind}].")]
        elif section is None:
            rows.append(f"| `{prefix}{name}` | {_type(field.annotation)} | {_default(field.default)} | {meaning} |")
        elif field.default is None and section is LMConfig:
            rows.append(f"| `{prefix}{name}` | the same keys as `lm` | null | {meaning} |")
        elif field.default is None:
            keys = ", ".join(f"`{key}`" for key in section.model_fields)
            rows.append(f"| `{prefix}{name}` | a model string, or {keys} | null | {meaning} |")
        elif section is LMConfig and field.default == []:
            rows.append(f"| `{prefix}{name}` | list of model strings or of the same keys as `lm` | `[]` | {meaning} |")
        else:
            rows += _rows(section, f"{prefix}{name}.")
    return rows


def _kinds(annotation: Any) -> dict[str, type[BaseModel]]:
    """Return the sections of a list field by the ``kind`` of their entries."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        kind = annotation.model_fields.get("kind")
        return {} if kind is None else {get_args(kind.annotation)[0]: annotation}
    return {name: entry for part in get_args(annotation) for name, entry in _kinds(part).items()}


def _type(annotation: Any) -> str:
    names = {str: "text", int: "whole number", float: "number", bool: "true, false", type(None): "null"}
    if annotation in names:
        return names[annotation]
    if hasattr(annotation, "__metadata__"):
        return _type(annotation.__origin__)
    if getattr(annotation, "__origin__", None) is dict:
        return "mapping"
    if get_origin(annotation) is list:
        return f"list of {_type(annotation.__args__[0])}"
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{value}`" for value in annotation.__args__)
    return ", ".join(map(_type, annotation.__args__))


def _default(value: Any) -> str:
    if value is PydanticUndefined:
        return "required"
    plain = {None: "null", True: "true", False: "false"}
    return plain[value] if value is None or isinstance(value, bool) else f"`{value}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
