"""Where a workspace keeps what the agent makes: its experiment, its registered model, the secrets it is given."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from oneturn.config import AgentConfig
from oneturn.doctor.asking import Asker, first_line, refused
from oneturn.doctor.finding import Finding, ok, problem, unknown, warning
from oneturn.doctor.grants import may

_SECRET = re.compile(r"\{\{secrets/(?P<scope>[^/}]+)/(?P<key>[^/}]+)\}\}")


def experiment(asker: Asker, name: str) -> Iterator[Finding]:
    """The experiment of runs and traces, or the folder in which it would be made."""
    from databricks.sdk.errors import NotFound
    from databricks.sdk.errors.base import DatabricksError

    subject = f"experiment {name}"
    if not name.startswith("/"):
        yield problem(subject, "it isn't a path", "Name it as the workspace does: /Shared/<name>, /Users/<you>/<name>.")
        return
    folder = str(PurePosixPath(name).parent)
    try:
        asker.client.experiments.get_by_name(name)
        yield ok(subject, "there")
    except NotFound:
        try:
            if folder != "/":
                asker.client.workspace.get_status(folder)
            yield ok(subject, "it is made when it is first used")
        except DatabricksError as error:
            fix = f"Run: databricks workspace mkdirs {folder}"
            yield problem(subject, f"its folder can't be seen ({first_line(error)})", fix)
    except DatabricksError as error:
        yield refused(subject, error, lambda: "Check the name.")


def model(asker: Asker, name: str) -> Iterator[Finding]:
    """The registered model, or the schema in which it would be made."""
    from databricks.sdk.errors import NotFound
    from databricks.sdk.errors.base import DatabricksError

    subject, schema = f"registered model {name}", name.rpartition(".")[0]
    try:
        found = asker.client.registered_models.get(name)
        yield ok(subject, f"there, owned by {found.owner}" if found.owner else "there")
    except NotFound:
        yield from _schema(asker, subject, schema)
    except DatabricksError as error:
        yield refused(subject, error, lambda: "Check the name.")


def _schema(asker: Asker, subject: str, schema: str) -> Iterator[Finding]:
    from databricks.sdk.errors.base import DatabricksError

    try:
        asker.client.schemas.get(schema)
    except DatabricksError as error:
        said = f"it isn't there, and its schema {schema} can't be seen ({first_line(error)})"
        yield problem(subject, said, f"CREATE SCHEMA {schema}; or name another in mlflow.model_name.")
        return
    if may(asker, "SCHEMA", schema, "CREATE_MODEL") is False:
        fix = f"Unless you own the schema: GRANT CREATE MODEL ON SCHEMA {schema} TO `{asker.name}`"
        yield warning(subject, f"it isn't there, and no grant of CREATE MODEL to {asker.name} is seen", fix)
    else:
        yield ok(subject, "it is made when a version is first registered")


def secrets(asker: Asker, config: AgentConfig) -> Iterator[Finding]:
    """The secrets that the deployed agent's environment refers to: their names; no value is read."""
    for variable, value in config.deploy.environment.items():
        if found := _SECRET.fullmatch(value):
            yield _secret(asker, f"deploy.environment {variable}", found["scope"], found["key"])


def _secret(asker: Asker, subject: str, scope: str, key: str) -> Finding:
    from databricks.sdk.errors.base import DatabricksError

    try:
        keys = {secret.key for secret in asker.client.secrets.list_secrets(scope)}
    except DatabricksError as error:
        return refused(subject, error, lambda: f"Run: databricks secrets create-scope {scope}")
    if key in keys:
        return ok(subject, f"the secret {scope}/{key} is there")
    fix = f"Run: databricks secrets put-secret {scope} {key}"
    return problem(subject, f"the scope {scope} has no secret {key}", fix)


def whose(config: AgentConfig, scopes: list[str]) -> Iterator[Finding]:
    """What is done on behalf of whoever asks: only a request can show whether they may."""
    if scopes:
        yield unknown(
            "on behalf of users",
            f"what they may do isn't known here; their tokens need {', '.join(scopes)}",
            "An admin has to let agents act on behalf of users; see docs/tools-from-elsewhere.md.",
        )
