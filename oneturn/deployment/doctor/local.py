"""What the agent needs of this machine: its LM, its environment variables, its compiled program, a port."""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, metadata, requires, version

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from oneturn.agent import Agent
from oneturn.config import AgentConfig, LMConfig
from oneturn.config.tools import McpTools, ToolConfig
from oneturn.core.findings import Finding, ok, problem, unknown, warning
from oneturn.errors import OneTurnError
from oneturn.programs import guarded_tools
from oneturn.programs.state import load_compiled
from oneturn.tools.approvals import weakness_of
from oneturn.toolsets.mcp import mcp_tools

_KEYS = {
    "openai": "OPENAI_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
    "azure": "AZURE_API_KEY",
    "gemini": "GEMINI_API_KEY",
}


def lm(config: LMConfig) -> Iterator[Finding]:
    """Weights that are here, or a key that is set; an endpoint of the workspace is looked at there."""
    if config.is_local:
        yield _weights(config)
        return
    provider = config.model.partition("/")[0]
    if config.api_key_env:
        yield _variable("lm", config.api_key_env, f"the key for {config.model}")
    elif provider in _KEYS and not config.api_base and "api_key" not in config.kwargs:
        yield _variable("lm", _KEYS[provider], f"the key for {config.model}")
    elif provider != "databricks":
        yield unknown("lm", f"{config.model}: nothing says whether it answers", "Add --ask, and it is asked.")


def lm_answers(agent: Agent) -> Iterator[Finding]:
    """Whether the LM answers one short question."""
    try:
        said = agent.lm()("Reply with the word OK.", max_tokens=8)
    except Exception as error:
        yield problem("lm answers", f"{agent.config.lm.model} doesn't: {_line(error)}", "Check the lm section.")
        return
    yield ok("lm answers", f"{agent.config.lm.model} said {str(said[0])[:40]!r}" if said else "it said nothing")


def variables(config: AgentConfig) -> Iterator[Finding]:
    """The environment variables that the configuration names."""
    if config.approvals.key_env:
        yield _signing_key(config.approvals.key_env)
    if config.approvals.ledger_env:
        yield _variable("approvals", config.approvals.ledger_env, "the address of the ledger of used approvals")
    for entry in config.tools:
        names = [*getattr(entry, "env", []), *getattr(entry, "headers", {}).values()]
        for name in names:
            yield _variable(f"tools {entry.kind}", name, "what the server is told")


def program(agent: Agent) -> Iterator[Finding]:
    """That the program can be built; and its compiled state, that it was made for the program as it is declared now."""
    try:
        built = agent.build()
    except Exception as error:
        yield problem("program", f"it can't be built: {_line(error)}", "")
        return
    yield ok("program", type(built).__name__)
    if agent.config.approvals.key_env is None and (tools := guarded_tools(built)):
        yield problem("approvals", unsigned_approvals(tools), "")
    if agent.config.compiled is None:
        yield warning("compiled", "the prompts aren't compiled", "Run: oneturn compile")
        return
    try:
        manifest = load_compiled(built, agent.compiled_path, on_drift=agent.config.compiled_on_drift)
    except OneTurnError as error:
        yield problem("compiled", str(error), "")
        return
    if manifest.lm != agent.config.lm.model:
        said = f"{agent.config.compiled} was compiled on {manifest.lm}, and {agent.config.lm.model} answers"
        yield warning("compiled", said, "Prompts suit the LM that they were compiled on; run `oneturn compile`.")
    else:
        yield ok("compiled", agent.config.compiled)


def unsigned_approvals(tools: Sequence[str]) -> str:
    """The error of an agent whose tools may need a person's approval that no key signs."""
    return (
        f"{', '.join(tools)} may need a person's approval, and no key is configured to sign it. Set approvals.key_env "
        "to the name of an environment variable that holds a signing key."
    )


def port(config: AgentConfig) -> Iterator[Finding]:
    """Whether ``oneturn serve`` can listen."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((config.serve.host, config.serve.port))
        except OSError as error:
            said = f"{config.serve.host}:{config.serve.port} can't be listened on here ({error.strerror})"
            yield warning("serve", said, "Stop what listens there, or set serve.port.")
            return
    yield ok("serve", f"{config.serve.host}:{config.serve.port} is free")


def _weights(config: LMConfig) -> Finding:
    from oneturn.lm.local.weights import cache_folder, weights_for

    try:
        record = weights_for(config.model.removeprefix("local/"))
    except OneTurnError as error:
        return problem("lm", str(error), "")
    file = cache_folder() / record.filename
    if config.weights is not None or file.is_file():
        return ok("lm", f"{config.model}, in {config.weights or file}")
    size = f"{record.n_bytes / 1e6:,.0f} MB"
    return warning("lm", f"the weights of {config.model} aren't here", f"They are fetched at first use: {size}.")


def _line(error: Exception) -> str:
    first = next(iter(str(error).strip().splitlines()), "")[:300]
    return first if isinstance(error, OneTurnError) else f"{type(error).__name__}: {first}"


def _variable(subject: str, name: str, what: str) -> Finding:
    if os.environ.get(name):
        return ok(subject, f"{name} is set")
    return problem(subject, f"{name} isn't set: it should hold {what}", f"Run: export {name}=…")


def _signing_key(name: str) -> Finding:
    weakness = weakness_of(os.environ.get(name) or "")
    if os.environ.get(name) and weakness:
        return problem("approvals", f"the signing key in {name} {weakness}", "Set a stronger one.")
    return _variable("approvals", name, "the key that signs approvals")


_OPTUNA_RECIPES = {"miprov2"}


def python() -> Iterator[Finding]:
    """Python's version."""
    here = platform.python_version()
    try:
        wanted = SpecifierSet(metadata("oneturn")["Requires-Python"] or "")
    except PackageNotFoundError:
        yield unknown("python", f"{here}; oneturn isn't installed as a package, so nothing says what it needs")
        return
    if wanted.contains(here, prereleases=True):
        yield ok("python", here)
    else:
        yield problem("python", f"{here}, and oneturn needs {wanted}", "Make the environment with a newer Python.")


def packages(config: AgentConfig) -> Iterator[Finding]:
    """What oneturn needs, and what this configuration needs besides: an extra each."""
    try:
        listed = [Requirement(text) for text in requires("oneturn") or ()]
    except PackageNotFoundError:
        return
    yield from _group("packages", [one for one in listed if one.marker is None], "pip install --upgrade oneturn")
    for extra, why in _extras(config).items():
        needed = [one for one in listed if one.marker is not None and one.marker.evaluate({"extra": extra})]
        yield from _group(f"packages for {why}", needed, f'pip install --upgrade "oneturn[{extra}]"')


def _extras(config: AgentConfig) -> dict[str, str]:
    """The extras that a configuration needs, each with what for."""
    on_databricks = config.lm.model.startswith("databricks/") or config.mlflow.tracking_uri.startswith("databricks")
    mcp = [entry for entry in config.tools if isinstance(entry, McpTools)]
    wanted = {
        "local": "the embedded LM" if config.needs_weights else "",
        "databricks": "Databricks" if on_databricks or len(config.tools) > len(mcp) else "",
        "mcp": "MCP servers" if mcp else "",
        "optimizers": f"the recipe {config.compile.recipe}" if config.compile.recipe in _OPTUNA_RECIPES else "",
    }
    return {extra: why for extra, why in wanted.items() if why}


def _group(subject: str, needed: list[Requirement], fix: str) -> Iterator[Finding]:
    wrong = [said for one in needed if (said := _wrong(one))]
    if wrong:
        yield problem(subject, "; ".join(wrong), f"Run: {fix}")
    elif needed:
        yield ok(subject, ", ".join(f"{one.name} {version(one.name)}" for one in needed))


def _wrong(needed: Requirement) -> str:
    try:
        here = version(needed.name)
    except PackageNotFoundError:
        return f"{needed.name} isn't installed"
    if needed.specifier.contains(here, prereleases=True):
        return ""
    return f"{needed.name} is {here}, and {needed.specifier} is needed"


def servers(entries: Iterable[ToolConfig]) -> Iterator[Finding]:
    """Ask each server what it offers."""
    for entry in entries:
        if isinstance(entry, McpTools):
            yield _server(entry)


def _server(entry: McpTools) -> Finding:
    subject = f"MCP server {entry.command or entry.url}"
    try:
        tools = mcp_tools(entry)
    except OneTurnError as error:
        return problem(subject, str(error), "")
    return ok(subject, f"offers {', '.join(str(tool.name) for tool in tools)}")


def deployable(config: AgentConfig) -> Iterator[Finding]:
    """Where it is kept, under what name, and the environment variables that it will have."""
    found = list(_problems(config))
    yield from found or [ok("deploy", "nothing in the configuration speaks against it")]


def _problems(config: AgentConfig) -> Iterator[Finding]:
    uri = config.mlflow.tracking_uri
    if not uri.startswith("databricks"):
        yield problem("mlflow.tracking_uri", f"it is {uri!r}", "Deployed is what databricks keeps: set 'databricks'.")
    name = config.mlflow.model_name
    if len([part for part in name.split(".") if part]) != 3:
        yield problem("mlflow.model_name", f"it is {name!r}", "Unity Catalog wants '<catalog>.<schema>.<name>'.")
    variables = {
        "lm.api_key_env": config.lm.api_key_env,
        "approvals.key_env": config.approvals.key_env,
        "approvals.ledger_env": config.approvals.ledger_env,
    }
    for key, variable in variables.items():
        if variable is not None and variable not in config.deploy.environment:
            wanted = f"{variable}: '{{{{secrets/<scope>/<key>}}}}'"
            said = f"it names {variable}, which the deployed agent won't have"
            yield problem(key, said, f"Add to deploy.environment: {wanted}")
