"""Reset the settings, the cache and tracing before and after every test."""

from __future__ import annotations

import copy
import importlib
import os
from collections.abc import Iterator

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import dspy
import mlflow
import pytest
from hypothesis import settings
from mlflow.tracking._model_registry import utils as registries

# import_module, because dspy.dsp.utils has an object of the same name that hides the module.
dspy_settings = importlib.import_module("dspy.dsp.utils.settings")

# Thousands of streams per property: pytest tests/proof --hypothesis-profile=proof
settings.register_profile("proof", max_examples=2000)
settings.register_profile("open-responses", max_examples=10_000)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option of ``make notebooks WRITE=1``."""
    parser.addoption("--write-notebooks", action="store_true", help="store the outputs of the notebooks that are run")


@pytest.fixture(autouse=True)
def _clean_state(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Reset DSPy to its defaults, with a memory cache only, and disable MLflow tracing."""
    monkeypatch.delenv("ONETURN_CONFIG", raising=False)
    configured = dict(dspy_settings.main_thread_config)
    owner = dspy_settings.config_owner_thread_id, dspy_settings.config_owner_async_task
    cache = dspy.cache
    dspy_settings.main_thread_config.update(copy.deepcopy(dict(dspy_settings.DEFAULT_CONFIG)))
    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=True)
    mlflow.tracing.disable()
    monkeypatch.setattr(mlflow.tracking.fluent, "_active_experiment_id", None)
    for variable in ("MLFLOW_EXPERIMENT_ID", "MLFLOW_TRACKING_URI"):  # MLflow sets them as a side effect
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)
    monkeypatch.setattr(os, "fsync", lambda file: None)  # faster; no power loss is tested
    registry = registries._registry_uri, os.environ.get("MLFLOW_REGISTRY_URI")
    yield
    registries._registry_uri = registry[0]  # databricks-agents sets both as a side effect
    os.environ.pop("MLFLOW_REGISTRY_URI", None)
    os.environ.update({} if registry[1] is None else {"MLFLOW_REGISTRY_URI": registry[1]})
    mlflow.tracing.disable()
    dspy.cache = cache
    dspy_settings.main_thread_config.clear()
    dspy_settings.main_thread_config.update(configured)
    dspy_settings.config_owner_thread_id, dspy_settings.config_owner_async_task = owner


@pytest.fixture(scope="session")
def _trace_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the URI of one SQLite store for all traced tests, because creating one takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture
def traced(_trace_store: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Write traces synchronously to the tests' store."""
    monkeypatch.setenv("MLFLOW_ENABLE_ASYNC_TRACE_LOGGING", "false")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(_trace_store)
    mlflow.tracing.reset()
    mlflow.tracing.enable()
    yield
    mlflow.tracing.disable()
    mlflow.set_tracking_uri(before)
