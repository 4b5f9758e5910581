"""The JSON schema of a step: a union of typed tool calls and ``finish``."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dspy
import pydantic

from oneturn.core.client_tools import ClientTool
from oneturn.core.fields import field_default, field_description, field_type
from oneturn.errors import ProgramError
from oneturn.programs.react.function_names import FunctionNames, to_function_name
from oneturn.programs.react.grounding import (
    SeenValues,
    describe_unseen,
    has_misplaced_mark,
    is_citation_list,
    needs_numbers,
    restrict_to_seen,
)
from oneturn.programs.react.outputs import validate_outputs
from oneturn.programs.react.strict_schema import function_parameters, parse_any, strict_schema, without_nulls
from oneturn.programs.react.tool_list import describe_call, describe_call_fully, describe_types, is_plain, type_name
from oneturn.tools.functions import argument_docs
from oneturn.tools.registry import FINISH
from oneturn.tools.schemas import plain_schema

MOST_AT_ONCE = 8
"""The maximum number of calls in one step."""


class StepSchema:
    """The schema of the LM's steps, for a signature and a set of tools.

    An instance is computed once, read-only, and shared by all runs.

    Args:
        signature: the user's signature; its output fields are the arguments of ``finish``.
        tools: the tools by name.
        thoughts: whether a step starts with a ``thought``.
        parallel: whether a step may contain several calls.
        outputs: the outputs in the order in which ``finish`` takes them; ``None`` for the declared order.
        free_thought: the maximum number of tokens of a thought in free text before the JSON, for an LM that can be
            held to that; 0 for a thought in the JSON.

    Attributes:
        function_names: the tools' names for function calling.
        client_tools: the names of the tools that a client offers.

    Raises:
        ProgramError: a ``Citation`` or ``Seen`` is used where it isn't supported, or two tools have the same name for
            function calling.
    """

    def __init__(
        self,
        signature: type[dspy.Signature],
        tools: Mapping[str, dspy.Tool],
        thoughts: bool,
        parallel: bool = False,
        outputs: Sequence[str] | None = None,
        free_thought: int = 0,
    ):
        self.thoughts = thoughts
        self.free_thought = free_thought if thoughts else 0
        self.parallel = parallel
        self.client_tools: frozenset[str] = frozenset()
        self._declared = tuple(signature.output_fields)
        self._outputs = _outputs_model(signature, outputs or self._declared)
        finish = self._outputs.model_json_schema()
        self._defs: dict[str, Any] = finish.pop("$defs", {})
        docs = {name: argument_docs(tool.desc) for name, tool in tools.items()}
        self._calls = {
            name: _object(_with_descriptions(tool.args or {}, docs[name][1]), _required_args(tool))
            for name, tool in tools.items()
        }
        self._calls[FINISH] = _object(finish.get("properties", {}))
        self._finish = _object(finish.get("properties", {}), finish.get("required", []))
        self._check_marks()
        self.function_names = FunctionNames({name: call["properties"] for name, call in self._calls.items()})
        self._descriptions = {name: " ".join(text.split()) for name, (text, _) in docs.items()}
        self._descriptions[FINISH] = "End the run with the final outputs."
        self._api_formats: dict[bool, dict[str, Any]] = {}
        self._functions: dict[bool, list[dict[str, Any]]] = {}

    def with_client_tools(self, tools: Mapping[str, ClientTool]) -> StepSchema:
        """Return the schema for a run in which the LM may call these tools as well; this one is unchanged."""
        extended = copy.copy(self)
        extended.offer(tools)
        return extended

    def offer(self, tools: Mapping[str, ClientTool]) -> None:
        """Add the tools of a client to this schema; see :meth:`with_client_tools`."""
        self.client_tools = frozenset(tools)
        own = {name: schema for name, schema in self._calls.items() if name != FINISH}
        offered = {name: plain_schema(tool.parameters) for name, tool in tools.items()}
        self._calls = {**own, **offered, FINISH: self._calls[FINISH]}
        self._descriptions = {**self._descriptions, **{name: tool.description for name, tool in tools.items()}}
        self.function_names = FunctionNames({name: call["properties"] for name, call in self._calls.items()})
        self._api_formats, self._functions = {}, {}

    @property
    def names(self) -> frozenset[str]:
        """All names that a step may call, ``finish`` included."""
        return frozenset(self._calls)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the final outputs, in the order in which ``finish`` takes them."""
        return tuple(self._outputs.model_fields)

    @property
    def output_types(self) -> dict[str, str]:
        """Short names of the outputs' types."""
        return {name: type_name(schema) for name, schema in self._calls[FINISH]["properties"].items()}

    @property
    def stated_output(self) -> str | None:
        """The first output that a line of text can state: no list and no object; ``None`` if there is none."""
        schemas = self._calls[FINISH]["properties"].items()
        return next((name for name, schema in schemas if is_plain(schema, self._defs)), None)

    @property
    def required_outputs(self) -> frozenset[str]:
        """The outputs without a default."""
        return frozenset(self._finish["required"])

    @property
    def looks_up(self) -> bool:
        """Whether there is a tool that can be called before the run has seen the numbers of a result."""
        return any(not needs_numbers(schema) for name, schema in self._calls.items() if name != FINISH)

    def json_schema(
        self, allowed: Iterable[str], seen_values: SeenValues = SeenValues(), thought: bool | None = None
    ) -> dict[str, Any]:
        """Return the JSON schema of a step.

        Args:
            allowed: the names that the step may call; their order is always the declared one.
            seen_values: the values that the run has seen; a tool that requires an unseen value is left out.
            thought: whether the step has a ``thought``; by default if the LM writes thoughts.
        """
        permitted = frozenset(allowed)
        args = {
            name: restricted
            for name, schema in self._calls.items()
            if name in permitted and (restricted := restrict_to_seen(name, schema, seen_values)) is not None
        }
        return self._step(args, self.thoughts if thought is None else thought)

    def outputs_schema(self, seen_values: SeenValues = SeenValues()) -> dict[str, Any]:
        """Return the JSON schema of the final outputs.

        Args:
            seen_values: the values that the run has seen, to which grounded outputs are restricted.
        """
        schema = restrict_to_seen(FINISH, self._calls[FINISH], seen_values) or self._calls[FINISH]
        return {**schema, "$defs": self._defs} if self._defs else schema

    def response_format(self, may_finish: bool = True) -> dict[str, Any]:
        """Return the response format for an LM behind an API, strict if possible.

        It is the same for all steps and runs, except where a run may not ``finish`` yet.
        """
        if may_finish not in self._api_formats:
            calls = {name: schema for name, schema in self._calls.items() if name != FINISH}
            offered = {**calls, FINISH: self._finish} if may_finish else calls
            schema, strict = strict_schema(self._step(offered, self.thoughts))
            self._api_formats[may_finish] = {
                "type": "json_schema",
                "json_schema": {"name": "step", "schema": schema, "strict": strict},
            }
        return self._api_formats[may_finish]

    def functions(self, narrow: bool) -> list[dict[str, Any]]:
        """Return the tools and ``finish`` as functions for function calling: the same for all steps and runs.

        Args:
            narrow: whether the LM's provider takes a narrow dialect of JSON Schema only.
        """
        if narrow not in self._functions:
            self._functions[narrow] = [
                {
                    "type": "function",
                    "function": {
                        "name": to_function_name(name),
                        "description": self._descriptions[name],
                        "parameters": function_parameters(schema, narrow),
                    },
                }
                for name, schema in self._all_args().items()
            ]
        return self._functions[narrow]

    def without_nulls(self, name: str, args: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of a call without the ``null``s that stand for optional ones left out."""
        schema = self._all_args().get(name)
        left: dict[str, Any] = dict(args) if schema is None else without_nulls(args, schema)
        return left

    def parse_any(self, name: str, args: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of a function call in the narrow dialect, with those of any type out of JSON text."""
        properties = self._all_args().get(name, {}).get("properties", {})
        return {key: parse_any(value, properties[key]) if key in properties else value for key, value in args.items()}

    def _all_args(self) -> dict[str, dict[str, Any]]:
        finish = {**self._finish, "$defs": self._defs} if self._defs else self._finish
        return {**self._calls, FINISH: finish}

    def _step(self, args: Mapping[str, dict[str, Any]], thought: bool) -> dict[str, Any]:
        calls = {
            name: _object({"name": {"type": "string", "enum": [name]}, "args": schema}) for name, schema in args.items()
        }
        properties: dict[str, Any] = {"thought": {"type": "string"}} if thought else {}
        properties["tool_call"] = _any_of(calls.values())
        if self.parallel and (others := [call for name, call in calls.items() if name != FINISH]):
            properties["parallel_calls"] = {"type": "array", "items": _any_of(others), "maxItems": MOST_AT_ONCE - 1}
        schema = _object(properties)
        return {**schema, "$defs": self._defs} if self._defs else schema

    def ungrounded_value(self, name: str, args: Mapping[str, Any], seen_values: SeenValues) -> str | None:
        """Return a one-line message for the first argument that the run hasn't seen; ``None`` if there is none."""
        return next(describe_unseen(self._calls.get(name, {}), args, seen_values), None)

    def drop_unseen_citations(self, outputs: Mapping[str, Any], seen_values: SeenValues) -> dict[str, Any]:
        """Return the outputs of a ``finish`` call without citations of sources that the run hasn't seen."""
        properties = self._calls[FINISH]["properties"]
        return {
            name: [each for each in value if each in seen_values.sources]
            if isinstance(value, list) and is_citation_list(properties.get(name, {}))
            else value
            for name, value in outputs.items()
        }

    def validate(self, args: Mapping[str, Any], seen_values: SeenValues, fill_omitted: bool = False) -> dict[str, Any]:
        """Return the outputs of a ``finish`` call in the declared order, converted to the signature's types.

        Args:
            args: the call's arguments.
            seen_values: the values that the run has seen.
            fill_omitted: whether an omitted list or object is empty.

        Raises:
            ValueError: an output is missing, has the wrong type, or cites an unseen source. The message is one line.
        """
        outputs = validate_outputs(self._outputs, args, fill_omitted)
        if message := self.ungrounded_value(FINISH, outputs, seen_values):
            raise ValueError(message)
        return {name: outputs[name] for name in self._declared}

    def is_checked(self, answer: str, args: Mapping[str, Any], seen_values: SeenValues) -> bool:
        """Return whether a ``finish`` call lacks only the rest of the output ``answer``, and the others are valid.

        Args:
            answer: the output that is being written.
            args: the arguments so far, in the order written.
            seen_values: the values that the run has seen.
        """
        if list(args)[-1:] != [answer] or not args.keys() >= set(self._declared):
            return False
        if self._outputs.model_fields[answer].metadata:  # a bound or a pattern, which the whole text must fit
            return False
        try:
            self.validate(self.without_nulls(FINISH, args), seen_values)
        except ValueError:
            return False
        return True

    def in_order(self, outputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return outputs in the order in which ``finish`` takes them; others come last."""
        names = [name for name in self.outputs if name in outputs]
        return {name: outputs[name] for name in [*names, *outputs]}

    def description(self, full: bool = False) -> str:
        """Return the tools as the prompt lists them: one line each, then a line for every described argument.

        Args:
            full: also tell all else that the schema would, for an LM that may not be held to it.
        """
        if not full:
            return "\n".join(
                describe_call(name, schema, self._descriptions[name]) for name, schema in self._calls.items()
            )
        calls = {**self._calls, FINISH: self._finish}
        lines = [describe_call_fully(name, schema, self._descriptions[name]) for name, schema in calls.items()]
        if self._defs:
            lines += ["Types:", describe_types(self._defs)]
        return "\n".join(lines)

    def outputs_description(self) -> str:
        """Return the outputs as the prompt lists them, one line each; empty if there is no more to say than names."""
        if all(schema == {"type": "string"} for schema in self._calls[FINISH]["properties"].values()):
            return ""
        lines = [
            f"- {name} ({self.output_types[name]})" + (f": {schema['description']}" if "description" in schema else "")
            for name, schema in self._calls[FINISH]["properties"].items()
        ]
        types = ["Types:", describe_types(self._defs)] if self._defs else []
        return "\n".join(["The outputs:", *lines, *types])

    def _check_marks(self) -> None:
        supported = "Citation is supported only in list[oneturn.Citation], Seen only in a tool's plain str argument"
        for name, call in self._calls.items():
            for field, schema in call["properties"].items():
                if has_misplaced_mark(schema, output=name == FINISH):
                    raise ProgramError(f"{name}: {field!r} can't be checked against seen values: {supported}.")
        if has_misplaced_mark(self._defs, output=True):
            raise ProgramError(f"{', '.join(self._defs)}: the model can't be checked against seen values: {supported}.")


def _outputs_model(signature: type[dspy.Signature], order: Sequence[str]) -> type[pydantic.BaseModel]:
    fields: dict[str, Any] = {}
    for name in order:
        field = signature.output_fields[name]
        default = ... if field.is_required() else field_default(field)
        fields[name] = (field_type(field), pydantic.Field(default, description=field_description(name, field)))
    return pydantic.create_model(f"{signature.__name__}Outputs", **fields)


def _object(properties: Mapping[str, Any], required: Iterable[str] | None = None) -> dict[str, Any]:
    """Return a closed object; by default all its properties are required."""
    untitled = {name: {k: v for k, v in schema.items() if k != "title"} for name, schema in properties.items()}
    names = list(untitled if required is None else required)
    return {"type": "object", "properties": untitled, "required": names, "additionalProperties": False}


def _required_args(tool: dspy.Tool) -> list[str]:
    """Return the arguments that can't be left out. DSPy marks those of an MCP tool in their descriptions only."""
    args, described = tool.args or {}, tool.arg_desc or {}
    if tool.has_kwargs and described.keys() >= args.keys():
        return [name for name in args if described[name].endswith("(Required)")]
    return [name for name, schema in args.items() if "default" not in schema]


def _any_of(options: Iterable[dict[str, Any]]) -> dict[str, Any]:
    schemas = list(options)
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def _with_descriptions(args: Mapping[str, Any], descriptions: Mapping[str, str]) -> dict[str, Any]:
    """Return the arguments with descriptions from the docstring where they have none of their own."""
    return {
        name: {**schema, "description": descriptions[name]}
        if descriptions.get(name) and not schema.get("description")
        else schema
        for name, schema in args.items()
    }
