"""What Databricks refuses, as one line of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mlflow.exceptions import MlflowException

from oneturn.errors import ConfigError, DeployError


@contextmanager
def told_in_a_line(what: str) -> Iterator[None]:
    """Turn what the SDKs raise meanwhile into a ``DeployError``; a decorator, too.

    Args:
        what: what can't be done then.

    Raises:
        DeployError: there are no credentials, or Databricks refuses something; says what it says.
        ConfigError: the extra isn't installed.
    """
    try:
        from databricks.sdk.errors.base import DatabricksError
    except ModuleNotFoundError:
        raise ConfigError('Databricks needs the extra: pip install "oneturn[databricks]"') from None
    try:
        yield
    except (DatabricksError, MlflowException, ValueError) as error:
        said = str(error).strip().splitlines()[0].partition(" Config: ")[0]
        raise DeployError(f"{what}: {said}") from error
