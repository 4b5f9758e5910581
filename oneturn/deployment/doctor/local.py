"""Checks of this machine: LM, environment variables, compiled program, port, packages and MCP servers."""

from __future__ import annotations

import os
import platform
import re
import socket
from collections.abc import Collection, Iterable, Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires, version

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from oneturn.agent import Agent
from oneturn.config import AgentConfig, LMConfig
from oneturn.config.retriever import EmbeddingsConfig
from oneturn.config.tools import McpTools, ToolConfig
from oneturn.core._dspy import key_variables
from oneturn.core.findings import Finding, failure_line, ok, problem, unknown, warning
from oneturn.errors import ConfigError, OneTurnError
from oneturn.lm import build_lm
from oneturn.tools.approvals import weakness_of
from oneturn.toolsets.mcp import mcp_tools


def lm(config: LMConfig) -> Iterator[Finding]:
    """Check the LM's weights or API key; a workspace endpoint is checked with the workspace."""
    if config.is_local:
        yield _weights(config)
        return
    if config.api_key_env:
        yield _variable("lm", config.api_key_env, f"the key for {config.model}")
    elif not config.model.startswith("databricks/"):
        yield from _provider_key(config)


def own_lm(agent: Agent) -> Iterator[Finding]:
    """Check that the program sets its own LM, because none is configured."""
    try:
        agent.program_lm(agent.build())
    except ConfigError as error:
        yield problem("lm", str(error), "")
    except Exception:
        return  # reported by the checks of the program
    else:
        yield ok("lm", "the program sets its own")


def _provider_key(config: LMConfig) -> Iterator[Finding]:
    """Check the key of an LM for which the configuration names no variable."""
    try:
        names = key_variables(build_lm(config))
    except OneTurnError as error:
        yield problem("lm", str(error), "")
        return
    for name in names:
        yield _variable("lm", name, f"the key for {config.model}")
    if not names:
        yield unknown("lm", f"{config.model}: not checked without a request", "Add --ask to send one.")


def lm_answers(agent: Agent) -> Iterator[Finding]:
    """Check that the LM answers a short question."""
    try:
        reply = agent.lm()("Reply with the word OK.", max_tokens=8)
    except Exception as error:
        yield problem(
            "lm answers", f"{agent.config.lm.model} doesn't answer: {failure_line(error)}", "Check the lm section."
        )
        return
    yield ok("lm answers", f"{agent.config.lm.model} replied {str(reply[0])[:40]!r}" if reply else "the reply is empty")


def variables(config: AgentConfig) -> Iterator[Finding]:
    """Check the environment variables that the configuration names."""
    if config.approvals.key_env:
        yield _signing_key(config.approvals.key_env)
    databases = {"approvals.ledger_env": config.approvals.ledger_env, "serve.store_env": config.serve.store_env}
    for setting, name in databases.items():
        if name:
            yield _database(setting, name)
    if config.serve.api_key_env:
        yield _variable("serve", config.serve.api_key_env, "the key that clients send")
    if (embeddings := config.retriever.embeddings) is not None and (name := _embeddings_key(embeddings)):
        yield _variable("retriever", name, f"the key for {embeddings.model}")
    for each in [*filter(None, [config.compile.teacher]), *config.compile.lms]:
        if each.api_key_env and not os.environ.get(each.api_key_env):
            fix = f"Before a compile: export {each.api_key_env}=…"
            yield warning("compile", f"{each.api_key_env} isn't set: it must contain the key for {each.model}", fix)
    for entry in config.tools:
        names = [*getattr(entry, "env", []), *getattr(entry, "headers", {}).values()]
        for name in names:
            yield _variable(f"tools {entry.kind}", name, "a value for the server")


def _embeddings_key(config: EmbeddingsConfig) -> str | None:
    """Return the variable with the key of the embeddings, if they need one."""
    if config.api_key_env or config.api_base is not None or config.model.startswith(("local/", "databricks/")):
        return config.api_key_env
    return "OPENAI_API_KEY"


def port(config: AgentConfig) -> Iterator[Finding]:
    """Check that ``oneturn serve`` can listen on its port."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((config.serve.host, config.serve.port))
        except OSError as error:
            observation = f"{config.serve.host}:{config.serve.port} isn't available ({error.strerror})"
            yield warning("serve", observation, "Stop the process that uses it, or set serve.port.")
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
    return warning("lm", f"the weights of {config.model} aren't here", f"They are downloaded on first use: {size}.")


def _variable(subject: str, name: str, what: str) -> Finding:
    if os.environ.get(name):
        return ok(subject, f"{name} is set")
    return problem(subject, f"{name} isn't set: it must contain {what}", f"Run: export {name}=…")


def _database(setting: str, name: str) -> Finding:
    """Check that the database whose address is in a variable can be reached; its tables aren't created."""
    from sqlalchemy.exc import SQLAlchemyError

    from oneturn.core.database import check_database, database_problem

    address = os.environ.get(name)
    if not address:
        return _variable(setting, name, "the address of a database, such as sqlite:////data/store.db")
    try:
        return ok(setting, f"the {check_database(address)} database in {name} can be reached")
    except (SQLAlchemyError, ImportError, ValueError, OneTurnError) as error:  # its text may repeat the address
        fix = 'Check the address, its driver (pip install "oneturn[store]" for Postgres), and that the database runs.'
        return problem(setting, f"the database in {name} can't be reached ({database_problem(error)})", fix)


def _signing_key(name: str) -> Finding:
    weakness = weakness_of(os.environ.get(name) or "")
    if os.environ.get(name) and weakness:
        return problem("approvals", f"the signing key in {name} {weakness}", "Set a stronger one.")
    return _variable("approvals", name, "the key that signs approvals")


def recipe(config: AgentConfig, recipes: Collection[str]) -> Iterator[Finding]:
    """Check that the configured recipe is one of the agent's; an agent without recipes isn't compiled."""
    name = config.compile.recipe
    if name in recipes or not recipes:
        return
    report = problem if "recipe" in config.compile.model_fields_set else warning
    yield report(
        "compile.recipe", f"there is no recipe {name!r}", f"Set compile.recipe to one of: {', '.join(recipes)}."
    )


_OPTUNA_RECIPES = {"miprov2"}


def python() -> Iterator[Finding]:
    """Check Python's version."""
    installed = platform.python_version()
    try:
        required = SpecifierSet(metadata("oneturn")["Requires-Python"] or "")
    except PackageNotFoundError:
        yield unknown("python", f"{installed}; oneturn isn't installed as a package, so its requirement is unknown")
        return
    if required.contains(installed, prereleases=True):
        yield ok("python", installed)
    else:
        yield problem("python", f"{installed}, but oneturn requires {required}", "Use a newer Python.")


_CODE_EXECUTION = "MLFLOW_ALLOW_MODEL_CODE_EXECUTION"


def model_code() -> Iterator[Finding]:
    """Check that MLflow may load models whose code is Python, as every logged agent is."""
    if _is_false(os.environ.get(_CODE_EXECUTION)):
        observation = f"{_CODE_EXECUTION} is false: MLflow loads no logged agent, so none can be logged or served"
        yield warning("mlflow", observation, f"Run: unset {_CODE_EXECUTION}")


def _is_false(value: str | None) -> bool:
    return value is not None and value.strip().lower() in ("false", "0")


def packages(config: AgentConfig) -> Iterator[Finding]:
    """Check oneturn's requirements, and those of the extras that the configuration needs."""
    try:
        listed = [Requirement(text) for text in requires("oneturn") or ()]
    except PackageNotFoundError:
        return
    yield from _group("packages", [each for each in listed if each.marker is None], "pip install --upgrade oneturn")
    for extra, purpose in _extras(config).items():
        needed = [each for each in listed if each.marker is not None and each.marker.evaluate({"extra": extra})]
        yield from _group(f"packages for {purpose}", needed, f'pip install --upgrade "oneturn[{extra}]"')


def _extras(config: AgentConfig) -> dict[str, str]:
    """The extras that a configuration needs, each with its purpose."""
    on_databricks = config.lm.model.startswith("databricks/") or config.mlflow.tracking_uri.startswith("databricks")
    mcp = [entry for entry in config.tools if isinstance(entry, McpTools)]
    purposes = {
        "local": "the embedded LM" if config.needs_weights else "",
        "databricks": "Databricks" if on_databricks or len(config.tools) > len(mcp) else "",
        "mcp": "MCP servers" if mcp else "",
        "optimizers": f"the recipe {config.compile.recipe}" if config.compile.recipe in _OPTUNA_RECIPES else "",
    }
    return {extra: purpose for extra, purpose in purposes.items() if purpose}


def _group(subject: str, needed: list[Requirement], fix: str) -> Iterator[Finding]:
    problems = [message for each in needed if (message := _version_problem(each))]
    if problems:
        yield problem(subject, "; ".join(problems), f"Run: {fix}")
    elif needed:
        yield ok(subject, ", ".join(f"{each.name} {version(each.name)}" for each in needed))


def _version_problem(needed: Requirement) -> str:
    try:
        installed = version(needed.name)
    except PackageNotFoundError:
        return f"{needed.name} isn't installed"
    if needed.specifier.contains(installed, prereleases=True):
        return ""
    return f"{needed.name} is {installed}, but {needed.specifier} is required"


def servers(entries: Iterable[ToolConfig]) -> Iterator[Finding]:
    """Check each MCP server by listing its tools."""
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


def deployable(config: AgentConfig, app: bool = False) -> Iterator[Finding]:
    """Check the configuration's settings for a deployment: tracking, model name and environment variables.

    Args:
        config: the agent's configuration.
        app: whether it is deployed as an app, whose server reads further variables.
    """
    findings = list(_deploy_problems(config, app))
    yield from findings or [ok("deploy", "the configuration can be deployed")]


_SCHEMA_SERVER = re.compile(r"/api/2\.0/mcp/(?:functions|vector-search)/[^/?#]+/[^/?#]+/?(?:[?#]|$)")


def _deploy_problems(config: AgentConfig, app: bool) -> Iterator[Finding]:
    uri = config.mlflow.tracking_uri
    if not uri.startswith("databricks"):
        yield problem("mlflow.tracking_uri", f"it is {uri!r}", "Set it to 'databricks', which a deployment requires.")
    name = config.mlflow.model_name
    if len([part for part in name.split(".") if part]) != 3:
        yield problem("mlflow.model_name", f"it is {name!r}", "Unity Catalog requires '<catalog>.<schema>.<name>'.")
    if _is_false(config.deploy.environment.get(_CODE_EXECUTION)):
        observation = f"it sets {_CODE_EXECUTION} to false, so that the deployment refuses to load the agent"
        yield problem("deploy.environment", observation, f"Remove {_CODE_EXECUTION}.")
    for number, tool in enumerate(config.tools):
        if not isinstance(tool, McpTools) or tool.who != "agent" or tool.tools is not None:
            continue
        if _SCHEMA_SERVER.search(tool.url or ""):
            fix = "List the tools that the agent uses: access can be granted to named functions and indexes only."
            yield warning(f"tools.{number}.tools", "it is null for a server of a whole schema", fix)
    for key, variable in _variables(config, app):
        if variable not in config.deploy.environment:
            entry = f"{variable}: '{{{{secrets/<scope>/<key>}}}}'"
            observation = f"it names {variable}, which isn't set in the deployment"
            yield problem(key, observation, f"Add to deploy.environment: {entry}")


def _variables(config: AgentConfig, app: bool) -> Iterator[tuple[str, str]]:
    """The environment variables that a run of the agent reads, and an app's server, each with the key that names it."""
    named: list[tuple[str, str | None]] = [
        ("lm.api_key_env", config.lm.api_key_env),
        ("approvals.key_env", config.approvals.key_env),
        ("approvals.ledger_env", config.approvals.ledger_env),
    ]
    if app:
        named += [("serve.api_key_env", config.serve.api_key_env), ("serve.store_env", config.serve.store_env)]
    if config.retriever.embeddings is not None:
        named.append(("retriever.embeddings.api_key_env", config.retriever.embeddings.api_key_env))
    for number, tool in enumerate(config.tools):
        if isinstance(tool, McpTools):
            named += [(f"tools.{number}.env", variable) for variable in tool.env]
            named += [(f"tools.{number}.headers", variable) for variable in tool.headers.values()]
    yield from ((key, variable) for key, variable in named if variable is not None)
