"""Compiled programs: save them, load them, and detect that the program has changed since."""

from oneturn.programs.state.artifact import (
    Manifest,
    check_savable,
    check_secrets,
    compiled_interface,
    drift_of,
    finish_order_of,
    load_compiled,
    read_compiled,
    read_manifest,
    refuse_secrets_in,
    save_compiled,
    thoughts_of,
    tool_calling_change,
)

__all__ = [
    "Manifest",
    "check_savable",
    "check_secrets",
    "compiled_interface",
    "drift_of",
    "finish_order_of",
    "load_compiled",
    "read_compiled",
    "read_manifest",
    "refuse_secrets_in",
    "save_compiled",
    "thoughts_of",
    "tool_calling_change",
]
