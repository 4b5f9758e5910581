"""A Postgres database on Databricks: its password is a credential that the SDK issues, and issues again."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import pytest
import sqlalchemy
from sqlalchemy.engine import make_url

from oneturn.core.database import check_database, database_engine
from oneturn.errors import ConfigError
from tests.databricks.workspace import TOKEN, Answer, Call, Workspace
from tests.postgres import PASSWORD, PostgresServer, postgres

__all__ = ["postgres"]

pytest.importorskip("databricks.sdk")


@pytest.fixture
def workspace(monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    with Workspace() as running:
        monkeypatch.setenv("DATABRICKS_HOST", running.host)
        monkeypatch.setenv("DATABRICKS_TOKEN", TOKEN)
        yield running


def lakebase(postgres: PostgresServer, parameter: str) -> str:
    """Return the address of a new database, without its password, and with a parameter that says who issues it."""
    url = make_url(postgres.new_database())
    user = f"{url.username}@{url.host}:{url.port}/{url.database}"
    return f"postgresql://{user}?{parameter}&sslmode=disable"


def issue(workspace: Workspace, seconds: float) -> None:
    """Let the workspace issue the password of the server's role for an instance or an endpoint."""
    expires = (datetime.now(timezone.utc) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def instance(call: Call) -> Answer:
        assert call.body["instance_names"] == ["desk"]
        return Answer(body={"token": PASSWORD, "expiration_time": expires})

    def endpoint(call: Call) -> Answer:
        assert call.body["endpoint"] == "projects/p/branches/b/endpoints/e"
        return Answer(body={"token": PASSWORD, "expire_time": expires})

    workspace.on("POST", "/api/2.0/database/credentials", instance)
    workspace.on("POST", "/api/2.0/postgres/credentials", endpoint)


@pytest.mark.parametrize(
    ("parameter", "path"),
    [
        ("lakebase_instance=desk", "/api/2.0/database/credentials"),
        ("lakebase_endpoint=projects/p/branches/b/endpoints/e", "/api/2.0/postgres/credentials"),
    ],
)
@pytest.mark.parametrize(("seconds", "issued"), [(3600, 1), (60, 2)], ids=["valid", "about to expire"])
def test_each_new_connection_has_a_valid_credential(
    workspace: Workspace, postgres: PostgresServer, parameter: str, path: str, seconds: float, issued: int
):
    issue(workspace, seconds)
    engine = database_engine(lakebase(postgres, parameter))
    with engine.connect() as first, engine.connect() as second:
        users = [each.execute(sqlalchemy.text("SELECT current_user")).scalar() for each in (first, second)]
    assert users == ["agent", "agent"]
    assert len(workspace.asked("POST", path)) == issued
    engine.dispose()


def test_a_refused_credential_is_an_error_of_the_database(workspace: Workspace, postgres: PostgresServer):
    workspace.on("POST", "/api/2.0/database/credentials", lambda call: Answer(403, {"error_code": "PERMISSION_DENIED"}))
    with pytest.raises(sqlalchemy.exc.SQLAlchemyError, match="Databricks issued no credential for the database"):
        check_database(lakebase(postgres, "lakebase_instance=desk"))


def test_two_sources_of_a_password_are_refused():
    with pytest.raises(ConfigError, match="leave the password out"):
        database_engine("postgresql://agent:secret@127.0.0.1/x?lakebase_instance=desk")
    with pytest.raises(ConfigError, match="leave one out"):
        database_engine("postgresql://agent@127.0.0.1/x?lakebase_instance=desk&lakebase_endpoint=e")
