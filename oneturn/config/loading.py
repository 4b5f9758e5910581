"""Load configuration keys from files, the files they extend, and overrides."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from mlflow.exceptions import MlflowException
from mlflow.models import ModelConfig

from oneturn.config.errors import yaml_problem
from oneturn.errors import ConfigError

CONFIG_VARIABLE = "ONETURN_CONFIG"
SET_VARIABLE = "ONETURN_SET"
EXTENDS = "extends"
"""The key of a file that names the file to inherit from."""

Keys = dict[str, Any]


def keys_of(default: str | Path | Mapping[str, Any], *folders: str | Path) -> tuple[Any, str]:
    """Load the effective keys.

    While MLflow loads a model, these are the keys it was logged with, unchanged. Otherwise they are those of
    ``default``, merged over the files it extends, with the overrides of ``ONETURN_SET``.

    Args:
        default: a YAML file, or a mapping of keys.
        *folders: the folders to resolve a relative path in.

    Returns:
        The keys, and a description of their source for error messages.

    Raises:
        ConfigError: a file is missing, isn't YAML, or extends itself; or an override isn't ``key=value``.
    """
    probe = {"probe": True}  # a ModelConfig without it is that of the model being loaded
    try:
        model_config = ModelConfig(development_config=probe)
    except FileNotFoundError:
        raise ConfigError(
            "This model was logged without a configuration: pass model_config=config.to_model_config() to log_model()."
        ) from None
    if model_config.config is not probe:
        return _read(model_config, "the logged model's model_config")
    if isinstance(default, Mapping):
        keys, source = dict(default), "the configuration"
    else:
        keys, source = _read_file(resolve(default, *folders), str(default), ()), str(default)
    lines = os.environ.get(SET_VARIABLE, "").splitlines()
    if not lines or not isinstance(keys, dict):
        return keys, source
    for line in lines:
        keys = merged(keys, setting(line))
    return keys, f"{source}, with {', '.join(line.partition('=')[0] for line in lines)} set"


def setting(text: str) -> Keys:
    """Parse an override such as ``"lm.model=local/0.5B"`` into nested keys; the value is parsed as YAML.

    Raises:
        ConfigError: it isn't ``key=value``, or the value isn't YAML.
    """
    key, equals, value = text.partition("=")
    names = key.strip().split(".")
    if not equals or not all(names):
        raise ConfigError(f"{text.partition('=')[0]!r} isn't KEY=VALUE, such as lm.model=local/0.5B.")
    try:
        keys: Any = yaml.safe_load(value)
    except yaml.YAMLError:
        raise ConfigError(f"The value of {key} isn't valid YAML; put quotes around it.") from None
    for name in reversed(names):
        keys = {name: keys}
    return dict(keys)


@contextmanager
def setting_all(settings: Sequence[str]) -> Iterator[None]:
    """Override these keys for ``AgentConfig.read`` inside the block, in child processes too.

    Raises:
        ConfigError: an override isn't ``key=value``.
    """
    for text in settings:
        setting(text)
    lines = [*os.environ.get(SET_VARIABLE, "").splitlines(), *(text.replace("\n", " ") for text in settings)]
    with environment_variable(SET_VARIABLE, "\n".join(lines)):
        yield


@contextmanager
def environment_variable(name: str, value: str) -> Iterator[None]:
    """Set an environment variable inside the block, for child processes too."""
    previous = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if previous is None:
            del os.environ[name]
        else:
            os.environ[name] = previous


def merged(base: Keys, overrides: Keys) -> Keys:
    """Merge ``overrides`` over ``base``, nested mappings recursively."""
    nested = {
        name: merged(base[name], overrides[name])
        for name in base.keys() & overrides.keys()
        if isinstance(base[name], dict) and isinstance(overrides[name], dict)
    }
    return {**base, **overrides, **nested}


def resolve(path: str | Path, *folders: str | Path) -> Path:
    """Find a file named in a configuration: in the first of the folders that has it.

    Args:
        path: absolute or relative; ``~`` is the home directory.
        *folders: such as the working directory, and the agent's folder or the ``code`` folder of a logged model.

    Raises:
        ConfigError: the file is in none of them.
    """
    file = Path(path).expanduser()
    candidates = [Path(folder).absolute() / file for folder in folders]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    searched = " or ".join(str(parent) for parent in dict.fromkeys(each.parent for each in candidates))
    raise ConfigError(f"There is no file {str(path)!r}: {file.name!r} isn't in {searched}.")


def _read_file(path: Path, source: str, extending: tuple[Path, ...]) -> Any:
    """Read a file's keys, merged over those of the file it extends, whose path is relative to the file's folder."""
    keys = _read(ModelConfig(development_config=str(path)), source)[0]
    if not isinstance(keys, dict) or EXTENDS not in keys:
        return keys
    extended = keys.pop(EXTENDS)
    if not isinstance(extended, str):
        raise ConfigError(f"{source}: extends should name a file, such as prod.yaml, not {extended!r:.60}.")
    chain = (*extending, path.resolve())
    try:
        other = resolve(extended, path.parent)
    except ConfigError as error:
        raise ConfigError(f"{source}: extends: {error}") from None
    if other.resolve() in chain:
        raise ConfigError(f"{source}: extends {extended!r}, which is circular.")
    base = _read_file(other, str(other), chain)
    return merged(base, keys) if isinstance(base, dict) else base


def _read(model_config: ModelConfig, source: str) -> tuple[Any, str]:
    try:
        return model_config.to_dict() or {}, source
    except UnicodeDecodeError:
        raise ConfigError(f"{source}: not a UTF-8 text file.") from None
    except MlflowException as error:
        raise ConfigError(f"{source}: invalid YAML: {yaml_problem(error)}.") from None
