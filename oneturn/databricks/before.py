"""What can be said of a configuration before anything is deployed."""

from __future__ import annotations

from collections.abc import Iterator

from oneturn.config import AgentConfig
from oneturn.errors import DeployError


def refuse_problems(config: AgentConfig) -> None:
    """Raise ``DeployError`` with all that would keep the deployed agent from answering, a line each."""
    if problems := list(problems_of(config)):
        raise DeployError("\n".join(["This configuration can't be deployed:", *problems]))


def problems_of(config: AgentConfig) -> Iterator[str]:
    """What would keep an agent with this configuration from answering on Databricks, each with what to do."""
    if not config.mlflow.tracking_uri.startswith("databricks"):
        yield f"mlflow.tracking_uri is {config.mlflow.tracking_uri!r}; deployed is what databricks keeps: 'databricks'."
    name = config.mlflow.model_name
    if len([part for part in name.split(".") if part]) != 3:
        yield f"mlflow.model_name is {name!r}; Unity Catalog wants '<catalog>.<schema>.<name>'."
    for key, variable in (("lm.api_key_env", config.lm.api_key_env), ("approvals.key_env", config.approvals.key_env)):
        if variable is not None and variable not in config.deploy.environment:
            wanted = f"{variable}: '{{{{secrets/<scope>/<key>}}}}'"
            yield f"{key} names {variable}, which the deployed agent won't have; add to deploy.environment: {wanted}"
