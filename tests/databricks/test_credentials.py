"""Nobody's credentials are taken for another's."""

from __future__ import annotations

import pytest

from oneturn.core.databricks_auth import workspace_client
from oneturn.errors import ConfigError
from tests.databricks.workspace import OWNER, TOKEN, Workspace


def test_the_agent_has_those_of_its_environment(monkeypatch: pytest.MonkeyPatch):
    with Workspace() as workspace:
        monkeypatch.setenv("DATABRICKS_HOST", workspace.host)
        monkeypatch.setenv("DATABRICKS_TOKEN", TOKEN)
        assert workspace_client().current_user.me().user_name == OWNER


def test_the_agents_own_never_stand_for_a_users(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DATABRICKS_HOST", "http://127.0.0.1:1")
    monkeypatch.setenv("DATABRICKS_TOKEN", TOKEN)
    with pytest.raises(ConfigError, match="needs a calling user"):
        workspace_client("user")
