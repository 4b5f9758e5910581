"""What the agent needs of this machine: its LM, its environment variables, its compiled program, a port."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

from oneturn.agent import Agent
from oneturn.compiled import load_compiled
from oneturn.config import AgentConfig, LMConfig
from oneturn.doctor.finding import Finding, ok, problem, unknown, warning
from oneturn.errors import OneTurnError

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


def asked(agent: Agent) -> Iterator[Finding]:
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
        yield _variable("approvals", config.approvals.key_env, "the key that signs approvals")
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
    from oneturn.local.cache import cache_folder
    from oneturn.local.records import weights_for

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
