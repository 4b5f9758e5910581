"""Unity Catalog's registered models in the stand-in of a workspace, as MLflow's client and the SDK's files API ask."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict
from mlflow.protos import databricks_uc_registry_messages_pb2 as messages

from tests.databricks.workspace import Answer, Call, Workspace, refused

_REGISTRY = "/api/2.0/mlflow/unity-catalog"
_MODELS, _VERSIONS = f"{_REGISTRY}/registered-models", f"{_REGISTRY}/model-versions"
_FILES = "/api/2.0/fs/(?P<kind>files|directories)/(?P<path>Models/.+)"


class Registry:
    """The registered models of a workspace.

    Attributes:
        models: by full name; protocol buffers of MLflow's.
        versions: by full name and number.
        aliases: version numbers by full name and alias.
        dependencies: what the versions said that they need: types and names, by full name and number.
        files: the folder that holds the versions' files.
    """

    def __init__(self, workspace: Workspace, files: Path):
        self.models: dict[str, Any] = {}
        self.versions: dict[tuple[str, str], Any] = {}
        self.aliases: dict[tuple[str, str], str] = {}
        self.dependencies: dict[tuple[str, str], list[tuple[str, str]]] = {}
        self.files = files
        self._lock = threading.Lock()
        routes = {
            ("GET", f"{_MODELS}:is-databricks-sdk-models-artifact-repository-enabled"): _sdk_keeps_files,
            ("POST", f"{_MODELS}/create"): self._create_model,
            ("GET", f"{_MODELS}/get"): self._get_model,
            ("POST", f"{_MODELS}/alias"): self._set_alias,
            ("GET", f"{_MODELS}/alias"): self._get_by_alias,
            ("POST", f"{_VERSIONS}/create"): self._create_version,
            ("POST", f"{_VERSIONS}/finalize"): self._finalize,
            ("GET", f"{_VERSIONS}/get"): self._get_version,
            ("GET", f"{_VERSIONS}/search"): self._search,
            ("POST", f"{_VERSIONS}/set-tag"): self._set_tag,
            ("POST", f"{_VERSIONS}/emit-lineage"): lambda call: {},
            ("POST", "/api/2.0/fs/create-download-url"): lambda call: _missing("Presigned URLs"),
            ("PUT", _FILES): self._write,
            ("GET", _FILES): self._read,
            ("HEAD", _FILES): self._look,
        }
        for (method, pattern), handler in routes.items():
            workspace.on(method, pattern, handler)

    def version(self, name: str, number: int | str) -> dict[str, Any]:
        """A version as plain values."""
        return _plain(self.versions[name, str(number)])

    def duplicate(self, name: str, number: str) -> str:
        """Register the same version again, without its upload; gives its number."""
        again = messages.ModelVersion()
        again.CopyFrom(self.versions[name, number])
        again.version = str(1 + sum(model == name for model, _ in self.versions))
        self.versions[name, again.version] = again
        folder = self.files / "Models" / name.replace(".", "/")
        shutil.copytree(folder / number, folder / again.version)
        return str(again.version)

    def _create_model(self, call: Call) -> Any:
        asked = _read(call, messages.CreateRegisteredModelRequest)
        if asked.name in self.models:
            return refused(400, "RESOURCE_ALREADY_EXISTS", f"Function '{asked.name}' already exists.")
        self.models[asked.name] = messages.RegisteredModel(name=asked.name, description=asked.description)
        return {"registered_model": _plain(self.models[asked.name])}

    def _get_model(self, call: Call) -> Any:
        name = _read(call, messages.GetRegisteredModelRequest).name
        if name not in self.models:
            return _missing(name)
        found = messages.RegisteredModel()
        found.CopyFrom(self.models[name])
        for (model, alias), number in self.aliases.items():
            if model == name:
                found.aliases.add(alias=alias, version=number)
        return {"registered_model": _plain(found)}

    def _create_version(self, call: Call) -> Any:
        asked = _read(call, messages.CreateModelVersionRequest)
        with self._lock:
            number = str(1 + sum(model == asked.name for model, _ in self.versions))
            made = messages.ModelVersion(
                name=asked.name,
                version=number,
                source=asked.source,
                run_id=asked.run_id,
                model_id=asked.model_id,
                status=messages.ModelVersionStatus.Value("PENDING_REGISTRATION"),
                tags=asked.tags,
            )
            self.versions[asked.name, number] = made
        needed = [(found["type"], found["name"]) for found in _plain(asked).get("model_version_dependencies", [])]
        self.dependencies[asked.name, number] = needed
        return {"model_version": _plain(made)}

    def _finalize(self, call: Call) -> Any:
        asked = _read(call, messages.FinalizeModelVersionRequest)
        made = self.versions[asked.name, asked.version]
        made.status = messages.ModelVersionStatus.Value("READY")
        return {"model_version": _plain(made)}

    def _get_version(self, call: Call) -> Any:
        asked = _read(call, messages.GetModelVersionRequest)
        return self._version_response(asked.name, asked.version)

    def _get_by_alias(self, call: Call) -> Any:
        asked = _read(call, messages.GetModelVersionByAliasRequest)
        number = self.aliases.get((asked.name, asked.alias))
        return _missing(f"{asked.name}@{asked.alias}") if number is None else self._version_response(asked.name, number)

    def _version_response(self, name: str, number: str) -> Any:
        if (name, number) not in self.versions:
            return _missing(f"{name}, version {number}")
        found = messages.ModelVersion()
        found.CopyFrom(self.versions[name, number])
        for (model, alias), of in self.aliases.items():
            if (model, of) == (name, number):
                found.aliases.add(alias=alias, version=number)
        return {"model_version": _plain(found)}

    def _search(self, call: Call) -> Any:
        name = _read(call, messages.SearchModelVersionsRequest).filter.split("'")[1]
        return {"model_versions": [_plain(made) for (model, _), made in self.versions.items() if model == name]}

    def _set_alias(self, call: Call) -> Any:
        asked = _read(call, messages.SetRegisteredModelAliasRequest)
        if (asked.name, asked.version) not in self.versions:
            return _missing(f"{asked.name}, version {asked.version}")
        self.aliases[asked.name, asked.alias] = asked.version
        return {}

    def _set_tag(self, call: Call) -> Any:
        asked = _read(call, messages.SetModelVersionTagRequest)
        kept = self.versions[asked.name, asked.version].tags
        others = [tag for tag in kept if tag.key != asked.key]
        del kept[:]
        kept.extend([*others, messages.ModelVersionTag(key=asked.key, value=asked.value)])
        return {}

    def _write(self, call: Call) -> Answer:
        path = self.files / call.parts["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(call.body or b"")
        return Answer(204, b"")

    def _read(self, call: Call) -> Any:
        path = self.files / call.parts["path"]
        if call.parts["kind"] == "files":
            kept = {"Content-Type": "application/octet-stream", "Last-Modified": "Mon, 23 Nov 2026 12:00:00 GMT"}
            return Answer(body=path.read_bytes(), headers=kept) if path.is_file() else _missing(str(path))
        return {"contents": [_entry(found, self.files) for found in sorted(path.iterdir())]}

    def _look(self, call: Call) -> Answer:
        path = self.files / call.parts["path"]
        there = path.is_file() if call.parts["kind"] == "files" else path.is_dir()
        return Answer(200 if there else 404, b"")


def _sdk_keeps_files(call: Call) -> Any:
    return {"is_databricks_sdk_models_artifact_repository_enabled": True}


def _read(call: Call, message: Any) -> Any:
    """What was asked as MLflow's own message; a field that it doesn't know is an error of the sender."""
    return ParseDict(call.body or dict(call.query), message())


def _plain(message: Any) -> Any:
    return MessageToDict(message, preserving_proto_field_name=True)


def _missing(what: str) -> Answer:
    return refused(404, "RESOURCE_DOES_NOT_EXIST", f"{what} does not exist.")


def _entry(path: Path, root: Path) -> dict[str, Any]:
    size = {} if path.is_dir() else {"file_size": path.stat().st_size}
    return {"path": f"/{path.relative_to(root)}", "name": path.name, "is_directory": path.is_dir(), **size}
