"""The pip requirement of the oneturn that runs: the version, wheel, folder or commit that it was installed from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from oneturn.errors import ProgramError


def installed_requirement(extras: Sequence[str] = ()) -> tuple[str, str]:
    """Return the requirement of the installed oneturn, and its version.

    The origin is read from ``direct_url.json`` (PEP 610), which pip and uv write for anything but an index.

    Args:
        extras: oneturn's extras to require.

    Raises:
        ProgramError: oneturn isn't installed here.
    """
    try:
        installed = distribution("oneturn")
    except PackageNotFoundError:
        raise ProgramError("oneturn isn't installed here, so a new project can't require it; install it.") from None
    text = installed.read_text("direct_url.json")
    return requirement(installed.version, json.loads(text) if text else None, extras), installed.version


def required_packages() -> set[str]:
    """Return the names of oneturn and of the packages that it requires, with any extras."""
    try:
        required = distribution("oneturn").requires or []
    except PackageNotFoundError:
        return set()
    return {"oneturn", *(canonicalize_name(Requirement(each).name) for each in required)}


def requirement(version: str, origin: Mapping[str, Any] | None, extras: Sequence[str] = ()) -> str:
    """Return the requirement of a oneturn.

    Args:
        version: its version.
        origin: the content of its ``direct_url.json``; ``None`` if it came from an index.
        extras: oneturn's extras to require.
    """
    name = f"oneturn[{','.join(sorted(extras))}]" if extras else "oneturn"
    if origin is None:
        return f"{name}=={version}"
    address: str = origin["url"]
    if vcs := origin.get("vcs_info"):
        address = f"{vcs['vcs']}+{address}@{vcs['commit_id']}"
    fragments = [f"subdirectory={origin['subdirectory']}"] if origin.get("subdirectory") else []
    return f"{name} @ {address}" + (f"#{'&'.join(fragments)}" if fragments else "")
