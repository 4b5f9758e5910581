"""Compiled programs: save and load them, detect drift, and migrate their state to a changed program."""

from oneturn.programs.state.artifact import (
    Manifest,
    OnDrift,
    check_secrets,
    drift_of,
    load_compiled,
    read_compiled,
    read_manifest,
    save_compiled,
)

__all__ = [
    "Manifest",
    "OnDrift",
    "check_secrets",
    "drift_of",
    "load_compiled",
    "read_compiled",
    "read_manifest",
    "save_compiled",
]
