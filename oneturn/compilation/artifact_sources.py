"""Where a compiled program may stand: a file, a registered or logged model, a git revision."""

from __future__ import annotations

import subprocess
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException

from oneturn.errors import ProgramError


def compiled_file(wanted: str, configured: Path | None, folder: Path) -> Path:
    """The file of a compiled program, copied to ``folder`` where it isn't a file here.

    Args:
        wanted: a file's path; ``models:/…`` or ``runs:/…``; or a git revision, such as ``HEAD`` or ``main~3``.
        configured: the compiled program's file, which a git revision is asked for.
        folder: an empty folder.

    Raises:
        ProgramError: there is no such compiled program.
    """
    if wanted.startswith(("models:/", "runs:/")):
        return _of_model(wanted, folder)
    if Path(wanted).is_file() or wanted.endswith(".json"):
        return Path(wanted)
    if configured is None:
        raise ProgramError(f"There is no file {wanted!r}, and no compiled program is configured to look it up in git.")
    return _of_revision(wanted, configured, folder)


def _of_model(uri: str, folder: Path) -> Path:
    """What ``oneturn log`` has kept on the run of the model."""
    try:
        run_id = uri.split("/")[1] if uri.startswith("runs:/") else mlflow.models.get_model_info(uri).run_id
        found = mlflow.artifacts.download_artifacts(f"runs:/{run_id}/compiled", dst_path=str(folder))
    except (MlflowException, OSError) as error:
        raise ProgramError(f"{uri} has no compiled program that can be read: {error}") from None
    files = sorted(Path(found).glob("*.json"))
    if not files:
        raise ProgramError(f"{uri} was logged without a compiled program.")
    return files[0]


def _of_revision(revision: str, configured: Path, folder: Path) -> Path:
    shown = ["git", "show", "--end-of-options", f"{revision}:./{configured.name}"]
    try:
        done = subprocess.run(shown, cwd=configured.parent, capture_output=True, check=False)  # noqa: S603  # no shell
    except OSError as error:
        raise ProgramError(f"git can't be asked for {revision!r} of {configured}: {error}") from None
    if done.returncode:
        reason = (done.stderr.decode(errors="replace").strip().splitlines() or ["git gave no reason"])[0]
        raise ProgramError(
            f"There is no file {revision!r}, and git has no {configured.name} of that revision ({reason}). Name a "
            "file, models:/…, or a revision that has it."
        )
    found = folder / configured.name
    found.write_bytes(done.stdout)
    return found
