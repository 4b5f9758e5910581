"""Find a compiled program: in a file, a registered or logged model, or a git revision."""

from __future__ import annotations

import subprocess
from pathlib import Path

import dspy
import mlflow
from mlflow.exceptions import MlflowException

from oneturn.errors import ProgramError
from oneturn.programs.state.artifact import read_manifest, save_compiled, thoughts_of


def compiled_file(wanted: str, configured: Path | None, folder: Path) -> Path:
    """Return the path of a compiled program's file; download it to ``folder`` if it isn't a local file.

    Args:
        wanted: a path; ``models:/…`` or ``runs:/…``; or a git revision, such as ``HEAD`` or ``main~3``.
        configured: the configured path of the compiled program, which is read from a git revision.
        folder: an empty directory.

    Raises:
        ProgramError: the compiled program doesn't exist or can't be read.
    """
    if wanted.startswith(("models:/", "runs:/")):
        return _download_from_model(wanted, folder)
    if Path(wanted).is_file() or wanted.endswith(".json"):
        return Path(wanted)
    if configured is None:
        raise ProgramError(
            f"There is no file {wanted!r}, and no compiled program is configured whose git revision could be read."
        )
    return _read_from_git(wanted, configured, folder)


def uncompiled_file(program: dspy.Module, compiled: Path, folder: Path) -> Path:
    """Write an uncompiled program as if it had been compiled, and return the file, to compare a compiled one with it.

    Args:
        program: the uncompiled program.
        compiled: the file of a compiled one, whose compile measured the uncompiled program, too.
        folder: an empty directory.

    Raises:
        ProgramError: ``compiled`` doesn't exist or isn't a compiled program.
    """
    manifest = read_manifest(compiled)
    scores = {"after": manifest.scores["before"]} if "before" in manifest.scores else {}
    nothing_kept = {
        "finish_order": None,
        "thoughts": thoughts_of(program),
        "front": None,
        "overlap": None,
        "stopped": None,
    }
    origin = {"recipe": "uncompiled", "scores": scores, "spend": {}, "estimate": None}
    path = folder / compiled.name
    save_compiled(program, manifest.model_copy(update={**origin, **nothing_kept}), path)
    return path


def _download_from_model(uri: str, folder: Path) -> Path:
    """Download the compiled program that ``oneturn log`` stored with the run of the model."""
    try:
        run_id = uri.split("/")[1] if uri.startswith("runs:/") else mlflow.models.get_model_info(uri).run_id
        directory = mlflow.artifacts.download_artifacts(f"runs:/{run_id}/compiled", dst_path=str(folder))
    except (MlflowException, OSError) as error:
        raise ProgramError(f"{uri} has no compiled program that can be read: {error}") from None
    files = sorted(Path(directory).glob("*.json"))
    if not files:
        raise ProgramError(f"{uri} was logged without a compiled program.")
    return files[0]


def _read_from_git(revision: str, configured: Path, folder: Path) -> Path:
    command = ["git", "show", "--end-of-options", f"{revision}:./{configured.name}"]
    try:
        completed = subprocess.run(command, cwd=configured.parent, capture_output=True, check=False)  # noqa: S603  # no shell
    except OSError as error:
        raise ProgramError(f"git can't read {revision!r} of {configured}: {error}") from None
    if completed.returncode:
        reason = (completed.stderr.decode(errors="replace").strip().splitlines() or ["git gave no reason"])[0]
        raise ProgramError(
            f"There is no file {revision!r}, and git has no {configured.name} of that revision ({reason}). Name a "
            "file, models:/…, or a revision that has it."
        )
    path = folder / configured.name
    path.write_bytes(completed.stdout)
    return path
