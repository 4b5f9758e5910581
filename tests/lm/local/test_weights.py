"""Weights: the order of places, the publisher's repository, and the verification of the hash.

Offline: a tiny file, and huggingface_hub itself against a loopback server that answers like the publisher's.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub.constants
import pytest
from huggingface_hub import file_download

from oneturn.errors import WeightsError
from oneturn.lm.local.weights import WEIGHTS, Weights, cache_folder, fetch_weights

CONTENT = bytes(range(256)) * 40
TINY = Weights(
    size="tiny",
    model="tiny",
    filename="tiny.gguf",
    n_bytes=len(CONTENT),
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    hub_repo="nobody/tiny",
)


class Hub(ThreadingHTTPServer):
    """The publisher's repository: one file, at one commit. ``downloads`` counts complete GET requests."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.content = CONTENT
        self.downloads = 0
        self.cut_after: int | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class HubHandler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._head(0)

    def do_GET(self) -> None:
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        if not self._head(start):
            return
        body = self.server.content[start:]
        if self.server.cut_after is not None:
            body, self.server.cut_after = body[: self.server.cut_after], None
        else:
            self.server.downloads += 1
        self.wfile.write(body)

    def _head(self, start: int) -> bool:
        if self.path not in ("/", f"/{TINY.hub_repo}/resolve/main/{TINY.filename}"):
            self.send_error(404)
            return False
        self.send_response(206 if start else 200)
        self.send_header("X-Repo-Commit", "c" * 40)
        self.send_header("ETag", f'"{hashlib.sha256(self.server.content).hexdigest()}"')
        self.send_header("Content-Length", str(len(self.server.content) - start))
        if start:
            size = len(self.server.content)
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.end_headers()
        return True

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.url)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)  # before 1.0
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


# ----------------------------------------------------------------------------------------------------- order of places


def test_a_given_path_is_used_and_nothing_is_downloaded(tmp_path: Path, cache: Path, hub: Hub) -> None:
    mine = tmp_path / "mine.gguf"
    mine.write_bytes(CONTENT)
    assert fetch_weights(TINY, mine, cache) == mine
    assert (hub.downloads, cache.exists()) == (0, False)


def test_a_given_folder_is_searched(tmp_path: Path, cache: Path) -> None:
    (tmp_path / TINY.filename).write_bytes(CONTENT)
    assert fetch_weights(TINY, tmp_path, cache) == tmp_path / TINY.filename


def test_the_cache_comes_before_the_publisher(cache: Path, hub: Hub) -> None:
    cache.mkdir()
    (cache / TINY.filename).write_bytes(CONTENT)
    assert fetch_weights(TINY, cache=cache) == cache / TINY.filename
    assert hub.downloads == 0


def test_the_publisher_s_file_is_downloaded_once(cache: Path, hub: Hub) -> None:
    assert fetch_weights(TINY, cache=cache).read_bytes() == CONTENT
    assert fetch_weights(TINY, cache=cache).read_bytes() == CONTENT
    assert hub.downloads == 1


def test_a_downloaded_file_needs_no_network_later(cache: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch_weights(TINY, cache=cache)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert fetch_weights(TINY, cache=cache).read_bytes() == CONTENT


def test_the_cache_folder_can_be_set_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONETURN_CACHE", str(tmp_path / "elsewhere"))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / TINY.filename).write_bytes(CONTENT)
    assert fetch_weights(TINY) == tmp_path / "elsewhere" / TINY.filename
    monkeypatch.delenv("ONETURN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder().name == "oneturn"


# --------------------------------------------------------------------------------------------- verification by SHA-256


def test_a_corrupt_given_file_is_an_error_and_is_not_deleted(tmp_path: Path, cache: Path) -> None:
    mine = tmp_path / "mine.gguf"
    mine.write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(WeightsError) as caught:
        fetch_weights(TINY, mine, cache)
    assert TINY.sha256 in str(caught.value)
    assert hashlib.sha256(mine.read_bytes()).hexdigest() in str(caught.value)
    assert mine.exists()


def test_a_given_path_without_a_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"There is no file .*nowhere\.gguf"):
        fetch_weights(TINY, tmp_path / "nowhere.gguf")


DAMAGES = pytest.mark.parametrize(
    "damage", [CONTENT[:-1], CONTENT[:-1] + b"!", b""], ids=["shorter", "changed", "empty"]
)


@DAMAGES
def test_a_corrupt_cached_file_is_replaced(
    cache: Path, damage: bytes, hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    cache.mkdir()
    (cache / TINY.filename).write_bytes(CONTENT)
    fetch_weights(TINY, cache=cache)  # verified, and recorded as such
    (cache / TINY.filename).write_bytes(damage)
    assert fetch_weights(TINY, cache=cache).read_bytes() == CONTENT
    assert hub.downloads == 1
    assert "deleted and downloaded again" in caplog.text


@DAMAGES
def test_a_corrupt_downloaded_file_is_replaced(cache: Path, damage: bytes, hub: Hub) -> None:
    fetch_weights(TINY, cache=cache).resolve().write_bytes(damage)
    assert fetch_weights(TINY, cache=cache).read_bytes() == CONTENT
    assert hub.downloads == 2


def test_a_publisher_with_wrong_bytes_is_an_error(cache: Path, hub: Hub) -> None:
    hub.content = b"x" * len(CONTENT)
    with pytest.raises(WeightsError, match=f"its SHA-256 is .*, not {TINY.sha256}"):
        fetch_weights(TINY, cache=cache)
    hub.content = CONTENT
    assert fetch_weights(TINY, cache=cache).read_bytes() == CONTENT


def test_an_interrupted_download_is_resumed_and_verified(cache: Path, hub: Hub) -> None:
    hub.cut_after = len(CONTENT) // 3
    assert fetch_weights(TINY, cache=cache).read_bytes() == CONTENT  # huggingface_hub reconnects


# -------------------------------------------------------------------------------------------------------------- errors


def test_if_the_publisher_cannot_be_reached_the_error_says_what_to_do(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(WeightsError) as caught:
        fetch_weights(TINY, cache=cache)
    for expected in (TINY.hub_repo, "http://127.0.0.1:9 can't be reached", str(cache), "set its path"):
        assert expected in str(caught.value)


def test_offline_the_publisher_is_not_tried(cache: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE is set"):
        fetch_weights(TINY, cache=cache)


def test_a_file_that_the_publisher_does_not_have_is_an_error(cache: Path, hub: Hub) -> None:
    with pytest.raises(WeightsError, match=r"EntryNotFound|RepositoryNotFound|404"):
        fetch_weights(Weights(**{**TINY.__dict__, "filename": "other.gguf"}), cache=cache)


def test_an_unknown_size_names_the_available_sizes() -> None:
    with pytest.raises(WeightsError, match=r"'7B'; use one of: 0\.5B, 1\.5B"):
        fetch_weights("7B")


def test_the_catalog_is_complete() -> None:
    assert set(WEIGHTS) == {"0.5B", "1.5B"}
    assert all(len(weights.sha256) == 64 for weights in WEIGHTS.values())


def test_concurrent_threads_download_once(cache: Path, hub: Hub) -> None:
    with ThreadPoolExecutor(4) as pool:
        files = list(pool.map(lambda _: fetch_weights(TINY, cache=cache), range(4)))
    assert [file.read_bytes() for file in files] == [CONTENT] * 4
    assert hub.downloads == 1
