"""What the configuration itself says that would keep a deployed agent from answering; nobody is asked."""

from __future__ import annotations

from collections.abc import Iterator

from oneturn.config import AgentConfig
from oneturn.doctor.finding import Finding, ok, problem


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
    for key, variable in (("lm.api_key_env", config.lm.api_key_env), ("approvals.key_env", config.approvals.key_env)):
        if variable is not None and variable not in config.deploy.environment:
            wanted = f"{variable}: '{{{{secrets/<scope>/<key>}}}}'"
            said = f"it names {variable}, which the deployed agent won't have"
            yield problem(key, said, f"Add to deploy.environment: {wanted}")
