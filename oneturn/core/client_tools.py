"""The tools that a client offers in its request. The LM may call them; the client runs them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jsonschema

from oneturn.core.conversion import SchemaConverter
from oneturn.core.serialization import jsonable

# A pattern of the client's could keep Python's regular expressions busy for years. The LM reads it in a description.
_Validator = jsonschema.validators.extend(jsonschema.Draft202012Validator, {"pattern": lambda *_: ()})


@dataclass(frozen=True)
class ClientTool:
    """A tool of the client.

    Attributes:
        name: its name.
        description: what it does, in the client's words.
        parameters: the JSON schema of its arguments: an object without references.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]

    def convert_arguments(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of a call in the types of the schema, where they can be converted to them."""
        converted: dict[str, Any] = SchemaConverter(_Validator).convert(dict(args), self.parameters)
        return converted

    def invalid_arguments(self, args: Mapping[str, Any]) -> str | None:
        """Return why the client couldn't run a call with these arguments; ``None`` if they fit the schema."""
        error = next(iter(_Validator(self.parameters).iter_errors(jsonable(dict(args)))), None)
        if error is None:
            return None
        path = ".".join(map(str, error.absolute_path))
        return f"invalid argument {path!r}: {error.message:.200}" if path else f"{error.message:.200}"


@dataclass(frozen=True)
class ClientTools:
    """What a request says about calls of the client's tools.

    Attributes:
        tools: those that the LM may call, by name.
        required: whether the run has to end with a call of one of them.
    """

    tools: Mapping[str, ClientTool] = field(default_factory=dict)
    required: bool = False
