"""Where a configuration's keys come from: a file, the file that it extends, and what is set for this run."""

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
"""The key of a file that names the file whose keys hold where it says nothing."""

Keys = dict[str, Any]


def keys_of(wanted: str | Path | Mapping[str, Any], root: str | Path | None) -> tuple[Any, str]:
    """The keys that hold here, and the words that tell a person where they came from.

    Of a model that MLflow is loading: those that it was logged with, as they are. Otherwise those of ``wanted``, with
    the files that it extends below, and what ``ONETURN_SET`` sets above.

    Raises:
        ConfigError: a file is missing, isn't YAML, or extends itself; or what is set isn't ``key=value``.
    """
    probe = {"probe": True}  # a ModelConfig that doesn't hold it holds what MLflow is loading
    try:
        model_config = ModelConfig(development_config=probe)
    except FileNotFoundError:
        raise ConfigError(
            "This model was logged without a configuration: pass model_config=config.to_model_config() to log_model()."
        ) from None
    if model_config.config is not probe:
        return _read(model_config, "the logged model's model_config")
    if isinstance(wanted, Mapping):
        found, source = dict(wanted), "the configuration"
    else:
        found, source = _file(resolve(wanted, root), str(wanted), ()), str(wanted)
    lines = os.environ.get(SET_VARIABLE, "").splitlines()
    if not lines or not isinstance(found, dict):
        return found, source
    for line in lines:
        found = merged(found, setting(line))
    return found, f"{source}, with {', '.join(line.partition('=')[0] for line in lines)} set"


def setting(text: str) -> Keys:
    """``"lm.model=local/0.5B"`` as the keys that it sets; the value is read as YAML reads it.

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
        raise ConfigError(f"The value that is set for {key} isn't YAML; put quotes around it.") from None
    for name in reversed(names):
        keys = {name: keys}
    return dict(keys)


@contextmanager
def setting_all(settings: Sequence[str]) -> Iterator[None]:
    """Let ``AgentConfig.read`` set these keys meanwhile, here and in processes that are started.

    Raises:
        ConfigError: one isn't ``key=value``.
    """
    for text in settings:
        setting(text)
    lines = [*os.environ.get(SET_VARIABLE, "").splitlines(), *(text.replace("\n", " ") for text in settings)]
    with variable(SET_VARIABLE, "\n".join(lines)):
        yield


@contextmanager
def variable(name: str, value: str) -> Iterator[None]:
    """Let an environment variable have this value meanwhile, in processes that are started, too."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def merged(below: Keys, above: Keys) -> Keys:
    """The keys of both; where both have one, ``above`` holds, and mappings are merged in turn."""
    both = {
        name: merged(below[name], above[name])
        for name in below.keys() & above.keys()
        if isinstance(below[name], dict) and isinstance(above[name], dict)
    }
    return {**below, **above, **both}


def resolve(path: str | Path, root: str | Path | None = None) -> Path:
    """Find a file that a configuration names: in the working directory, then in ``root``.

    Args:
        path: absolute or relative; ``~`` is the home directory.
        root: the repository, or the ``code`` folder of a logged model.

    Raises:
        ConfigError: neither place has it.
    """
    given = Path(path).expanduser()
    candidates = [Path.cwd() / given, *([Path(root) / given] if root is not None else [])]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    looked = " or ".join(str(parent) for parent in dict.fromkeys(c.parent for c in candidates))
    raise ConfigError(f"There is no file {str(path)!r}: {given.name!r} isn't in {looked}.")


def _file(path: Path, named: str, above: tuple[Path, ...]) -> Any:
    """A file's keys, those of the file that it extends below them; its path is relative to the file's own folder."""
    keys = _read(ModelConfig(development_config=str(path)), named)[0]
    if not isinstance(keys, dict) or EXTENDS not in keys:
        return keys
    extended = keys.pop(EXTENDS)
    if not isinstance(extended, str):
        raise ConfigError(f"{named}: extends should name a file, such as prod.yaml, not {extended!r:.60}.")
    here = (*above, path.resolve())
    try:
        other = resolve(path.parent / Path(extended).expanduser())
    except ConfigError as error:
        raise ConfigError(f"{named}: extends: {error}") from None
    if other.resolve() in here:
        raise ConfigError(f"{named}: extends {extended!r}, which leads back to itself.")
    below = _file(other, str(other), here)
    return merged(below, keys) if isinstance(below, dict) else below


def _read(model_config: ModelConfig, source: str) -> tuple[Any, str]:
    try:
        return model_config.to_dict() or {}, source
    except UnicodeDecodeError:
        raise ConfigError(f"{source}: isn't a text file in UTF-8.") from None
    except MlflowException as error:
        raise ConfigError(f"{source}: isn't YAML: {yaml_problem(error)}.") from None
