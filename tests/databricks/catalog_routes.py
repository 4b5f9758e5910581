"""What a workspace has beside runs and endpoints, in the stand-in: catalog, warehouses, spaces, secrets, folders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from databricks.sdk.service.catalog import (
    EffectivePermissionsList,
    EffectivePrivilege,
    EffectivePrivilegeAssignment,
    Privilege,
)
from databricks.sdk.service.workspace import ListSecretsResponse, SecretMetadata

from tests.databricks.workspace import Call, Workspace, refused

_UC = "/api/2.1/unity-catalog"


class Catalog:
    """What is there, by kind and name, as the API tells it; and who may use it.

    Attributes:
        things: answers by the kind's path and the thing's name.
        grants: privileges by ``(securable type, full name)`` and principal; of what isn't here nobody may see them.
        secrets: names of secrets by scope.
    """

    def __init__(self, workspace: Workspace):
        self.things: dict[tuple[str, str], dict[str, Any]] = {}
        self.grants: dict[tuple[str, str], dict[str, list[str]]] = {}
        self.secrets: dict[str, list[str]] = {}
        for path in (
            f"{_UC}/functions",
            f"{_UC}/tables",
            f"{_UC}/schemas",
            f"{_UC}/models",
            f"{_UC}/connections",
            "/api/2.0/sql/warehouses",
            "/api/2.0/genie/spaces",
            "/api/2.0/vector-search/indexes",
            "/api/2.0/vector-search/endpoints",
        ):
            workspace.on("GET", f"{path}/(?P<name>[^/]+)", self._thing(path.rpartition("/")[2]))
        workspace.on("GET", f"{_UC}/effective-permissions/(?P<kind>[^/]+)/(?P<name>[^/]+)", self._grants)
        workspace.on("GET", "/api/2.0/secrets/list", self._secrets)
        workspace.on("GET", "/api/2.0/workspace/get-status", self._folder)

    def add(self, kind: str, name: str, **fields: Any) -> None:
        """Let there be something: ``kind`` is the last part of its path, such as ``functions``."""
        self.things[kind, name] = {"name": name, **fields}

    def _thing(self, kind: str) -> Callable[[Call], Any]:
        return lambda call: self.things.get((kind, call.parts["name"])) or _missing(call.parts["name"])

    def _grants(self, call: Call) -> Any:
        held = self.grants.get((call.parts["kind"].upper(), call.parts["name"]))
        if held is None:
            return refused(403, "PERMISSION_DENIED", "User is not an owner.")
        assignments = [
            EffectivePrivilegeAssignment(who, [EffectivePrivilege(privilege=Privilege(each)) for each in privileges])
            for who, privileges in held.items()
        ]
        return EffectivePermissionsList(privilege_assignments=assignments).as_dict()

    def _secrets(self, call: Call) -> Any:
        keys = self.secrets.get(call.query["scope"])
        if keys is None:
            return _missing(call.query["scope"])
        return ListSecretsResponse([SecretMetadata(key) for key in keys]).as_dict()

    def _folder(self, call: Call) -> Any:
        found = self.things.get(("folders", call.query["path"]))
        return {"path": call.query["path"], "object_type": "DIRECTORY"} if found else _missing(call.query["path"])


def _missing(name: str) -> Any:
    return refused(404, "RESOURCE_DOES_NOT_EXIST", f"'{name}' does not exist.")
