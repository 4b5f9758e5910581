"""A compiled program: its file, what it must fit, and how a program that has changed since takes it."""

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
