"""Python and the packages that a configuration needs, against what oneturn itself says it works with."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires, version

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from oneturn.config import AgentConfig
from oneturn.config.tools import McpTools
from oneturn.doctor.finding import Finding, ok, problem, unknown

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
