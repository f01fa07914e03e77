"""The services of docker/compose.yaml, started here as processes by the very commands that stand in it."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
import yaml

from tests.pipeline.conftest import ROOT, Factory

if TYPE_CHECKING:
    from collections.abc import Iterator

COMPOSE = ROOT / "docker" / "compose.yaml"
PORTS = ("8082", "8786", "8787", "6006")
HOSTS = ("luigid", "dask-scheduler")


def free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


@dataclass(slots=True, kw_only=True)
class Composed:
    """What an engine would run, on this machine: its hosts are this one, its ports free ones."""

    services: dict[str, dict[str, Any]]
    workspace: Path
    settings: Path
    ports: dict[str, str]
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def words(self, service: str, key: str = "command") -> list[str]:
        text = self.here(re.sub(r"\$\{\w+:-(\w+)\}", r"\1", self.services[service][key]))
        program, *rest = shlex.split(text)
        return [str(Path(sys.executable).with_name(program)), *rest]

    def here(self, text: str) -> str:
        """A text of the folder docker/ with this machine's hosts, ports and workspace."""
        for old, new in self.ports.items():
            text = re.sub(rf"\b{old}\b", new, text)
        for host in HOSTS:
            text = re.sub(rf"\b{host}(?=:|$)", "127.0.0.1", text, flags=re.MULTILINE)
        return text.replace("/workspace", str(self.workspace))

    def environment(self, service: str) -> dict[str, str]:
        return {
            **os.environ,
            **self.services[service].get("environment", {}),
            "LUIGI_CONFIG_PATH": str(self.settings),
            "FIQA_WORKSPACE": str(self.workspace),
        }

    def start(self, service: str) -> None:
        log = (self.workspace.parent / f"{service}.log").open("wb")
        self.started.append(
            subprocess.Popen(
                self.words(service), cwd=ROOT, env=self.environment(service), stdout=log, stderr=log,
                start_new_session=True,
            )
        )  # fmt: skip

    def answer(self, port: str, path: str, seconds: float = 60) -> requests.Response:
        """What a page says, as soon as it answers."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return requests.get(f"http://127.0.0.1:{self.ports[port]}{path}", timeout=10)
            except requests.ConnectionError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def stop(self) -> None:
        for process in self.started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def composed(sample_weights: None, tmp_path: Path) -> Iterator[Composed]:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    settings = tmp_path / "luigi.cfg"
    result = Composed(
        services=services, workspace=workspace, settings=settings, ports={port: free_port() for port in PORTS}
    )
    text = result.here((ROOT / "docker" / "luigi.cfg").read_text())
    settings.write_text(text.replace("[core]\n", f"[core]\nscheduler_port = {result.ports['8082']}\n"))
    assert "luigid" not in text
    try:
        yield result
    finally:
        result.stop()


def test_the_services_label_the_sample_together(composed: Composed, labelled_sample: Factory) -> None:
    for service in ("luigid", "dask-scheduler", "worker-cpu", "tensorboard"):
        composed.start(service)
    assert composed.answer("8082", "/").ok
    command = [*composed.words("label", "entrypoint"), "--dataset", "sample"]
    done = subprocess.run(
        command, cwd=ROOT, env=composed.environment("label"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    made = Factory(workspace=composed.workspace)
    assert made.files("sample", "labels") == labelled_sample.files("sample", "labels")
    tasks = composed.answer("8082", '/api/task_list?data={"status": "DONE", "upstream_status": ""}').json()["response"]
    assert {"LabelAll", "Labels", "Pose", "Embeddings"} <= {task["name"] for task in tasks.values()}
    assert "/api/task_list" not in done.stderr
    log = (composed.workspace.parent / "dask-scheduler.log").read_text()
    assert log.count("Register worker") >= 4
    assert composed.answer("6006", "/").ok


def test_the_file_says_what_an_engine_needs() -> None:
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    for name, service in services.items():
        assert service["image"] == "fiqa-factory", name
        folders = [volume.partition("}:")[2] for volume in service["volumes"]]
        assert folders == ["/data:ro", "/models:ro", "/workspace"], name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), f"{name} is open to the world"
    for worker in ("worker-cpu", "worker-gpu"):
        assert services[worker]["environment"] == {"FIQA_WORKER": "1"}


def test_what_is_copied_into_the_image_is_there() -> None:
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert all((ROOT / name).exists() for name in kept)
    copied = re.findall(r"^COPY (.+) \S+$", (ROOT / "docker" / "Dockerfile").read_text(), re.MULTILINE)
    names = [name for line in copied for name in line.split() if name != "."]
    assert names
    for name in names:
        assert (ROOT / name).is_file()
        assert name.split("/")[0] in kept
