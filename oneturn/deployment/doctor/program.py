"""Checks of the agent's program: that it can be built, what it is compiled for, what a logged model would carry."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import dspy

from oneturn.agent import Agent
from oneturn.core.findings import Finding, failure_line, ok, problem, warning
from oneturn.deployment.completeness import missing_files, missing_modules
from oneturn.errors import OneTurnError
from oneturn.programs import guarded_tools
from oneturn.programs.react import ReAct
from oneturn.programs.state import Manifest, load_compiled, tool_calling_change

_TYPES = frozenset({"type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref"})
"""Keywords of a JSON schema that say which values fit."""


def program(agent: Agent) -> Iterator[Finding]:
    """Check that the program can be built, and that its compiled state matches the current declaration."""
    try:
        built = agent.build()
    except Exception as error:
        yield problem("program", f"it can't be built: {failure_line(error)}", "")
        return
    yield ok("program", type(built).__name__)
    if isinstance(built, ReAct):
        yield from _tool_calling(agent, built)
    if agent.config.approvals.key_env is None and (tools := guarded_tools(built)):
        yield problem("approvals", unsigned_approvals(tools), "")
    if isinstance(built, ReAct):
        yield from _untyped_arguments(built)
    if agent.config.compiled is None:
        yield warning("compiled", "the prompts aren't compiled", "Run: oneturn compile")
        return
    try:
        manifest = load_compiled(built, agent.compiled_path)
    except OneTurnError as error:
        yield problem("compiled", str(error), "")
        return
    lm = _lm(agent)
    if manifest.lm not in (agent.config.lm.model, lm and lm.model):  # the embedded LM's own name is another
        observation = f"{agent.config.compiled} was compiled on {manifest.lm}, but the LM is {agent.config.lm.model}"
        yield warning("compiled", observation, "Prompts are optimized for one LM; run `oneturn compile`.")
    else:
        yield ok("compiled", agent.config.compiled)
    yield from _compiled_way(agent, built, manifest)


def carried_code(agent: Agent) -> Iterator[Finding]:
    """Check that a logged model would carry the modules and files of the agent's folder that its code names."""
    modules, files = missing_modules(agent), missing_files(agent)
    fix = "Add it to code_paths in agent.py."
    for name in modules:
        yield problem("code_paths", f"{name} isn't carried by a logged model", fix)
    for name in files:
        yield warning("code_paths", f"{name} isn't carried by a logged model", fix)
    if not (modules or files):
        yield ok("code_paths", ", ".join(agent.logged_paths) or "none")


def _untyped_arguments(program: ReAct) -> Iterator[Finding]:
    """Report arguments of tools that have no type: an LM then writes any JSON value."""
    for name, tool in program.tools.items():
        if untyped := [each for each, schema in tool.args.items() if not schema.keys() & _TYPES]:
            observation = f"{', '.join(untyped)} {'has' if len(untyped) == 1 else 'have'} no type"
            yield warning(f"tool {name}", observation, "Add type hints, such as days: int; the LM sees them.")


def _lm(agent: Agent) -> dspy.BaseLM | None:
    try:
        return agent.lm()
    except OneTurnError:  # reported by the checks of the LM
        return None


def _compiled_way(agent: Agent, program: dspy.Module, manifest: Manifest) -> Iterator[Finding]:
    lm = _lm(agent)
    if lm is not None and (change := tool_calling_change(manifest, program, lm)) is not None:
        observation = f"{agent.config.compiled}: {change}"
        yield warning("compiled", observation, "Run `oneturn compile`, or set tool_calling.")


def _tool_calling(agent: Agent, program: ReAct) -> Iterator[Finding]:
    if (lm := _lm(agent)) is None:
        return
    reason = "" if program.tool_calling == "auto" else ", as declared"
    yield ok("tool calling", f"{program.tool_calling_with(lm)} with {lm.model}{reason}")


def unsigned_approvals(tools: Sequence[str]) -> str:
    """The error of an agent whose tools may need a person's approval that no key signs."""
    return (
        f"{', '.join(tools)} may need a person's approval, and no key is configured to sign it. Set approvals.key_env "
        "to the name of an environment variable that holds a signing key."
    )
