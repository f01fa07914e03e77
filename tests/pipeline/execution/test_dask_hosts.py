"""A Dask cluster over several hosts: network namespaces with a bridge between them, and real processes in each."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from data_manifests.recordio.writer import write_ms1mv2
from data_manifests.sample import draw_images
from tests.pipeline.conftest import ROOT, Factory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOSTS = {"fiqa-main": "10.213.7.1", "fiqa-near": "10.213.7.2", "fiqa-far": "10.213.7.3"}
BRIDGE = "fiqa-br"
IMPATIENT = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "11s", "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "3s"}
COPIES = 24
"""The sample's images so often: some seconds of work on two hosts."""


def ip(*words: str, check: bool = True) -> None:
    subprocess.run(["ip", *words], check=check, capture_output=True)


@dataclass(slots=True, kw_only=True)
class Hosts:
    """Three hosts on one network."""

    folder: Path
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def build(self) -> None:
        ip("link", "add", BRIDGE, "type", "bridge")
        ip("link", "set", BRIDGE, "up")
        for number, (host, address) in enumerate(HOSTS.items()):
            ip("netns", "add", host)
            ip("link", "add", f"fiqa{number}", "type", "veth", "peer", "name", "eth0", "netns", host)
            ip("link", "set", f"fiqa{number}", "master", BRIDGE, "up")
            ip("-n", host, "addr", "add", f"{address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                ip("-n", host, "link", "set", device, "up")

    def start(self, host: str, *words: str) -> Path:
        log = self.folder / f"{host}-{words[0]}.log"
        command = ["ip", "netns", "exec", host, sys.executable, "-m", f"distributed.cli.{words[0]}", *words[1:]]
        environment = {**os.environ, **IMPATIENT, "FIQA_WORKER": "1", "PYTHONPATH": str(ROOT)}
        with log.open("wb") as out:
            process = subprocess.Popen(command, env=environment, stdout=out, stderr=out, start_new_session=True)
        self.started.append(process)
        return log

    def take_away(self, host: str) -> None:
        """Nobody tells anybody: packets to and from the host are lost, connections stay open."""
        ip("-n", host, "link", "set", "eth0", "down")

    def remove(self) -> None:
        for process in self.started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for host in HOSTS:
            ip("netns", "delete", host, check=False)
        ip("link", "delete", BRIDGE, check=False)


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and the program ip (package iproute2)")
    result = Hosts(folder=tmp_path)
    try:
        try:
            result.build()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces cannot be made here: {error.stderr.decode().strip()}")
        yield result
    finally:
        result.remove()


def wait_for(log: Path, pattern: str, count: int, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while len(re.findall(pattern, log.read_text())) < count:
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


def test_a_host_that_vanishes_from_the_network_costs_its_parts_alone(
    hosts: Hosts, sample_weights: None, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    images = list(draw_images())
    write_ms1mv2(folder, ((i.identity, i.encoded) for i in images for _ in range(COPIES))).close()
    manifest = tmp_path / "large.toml"
    manifest.write_text(f'name = "large"\nformat = "recordio"\nroot = "{folder}"\n')
    log = hosts.start(
        "fiqa-main", "dask_scheduler", "--host", HOSTS["fiqa-main"], "--port", "8786", "--no-dashboard"
    )  # fmt: skip
    wait_for(log, r"Scheduler at:\s+tcp://", 1)
    address = f"tcp://{HOSTS['fiqa-main']}:8786"
    for host in ("fiqa-near", "fiqa-far"):
        words = ("--host", HOSTS[host], "--nthreads", "1", "--nworkers", "1", "--no-nanny", "--memory-limit", "0")
        hosts.start(host, "dask_worker", address, *words, "--no-dashboard", "--local-directory", str(tmp_path))
    wait_for(log, r"Register worker", 2)

    over_network = Factory(workspace=tmp_path / "over_network")
    luigi = [sys.executable.removesuffix("python") + "luigi", "--module", "pipeline", "BlurAll"]
    run = subprocess.Popen(
        ["ip", "netns", "exec", "fiqa-main", *luigi, "--dataset", str(manifest), "--execution-dask", address],
        cwd=ROOT, env=over_network.environment(**IMPATIENT), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    staging = over_network.workspace / "large" / "_staging" / "blur"
    deadline = time.monotonic() + 60
    while not list(staging.rglob("*.parquet")):
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    hosts.take_away("fiqa-far")
    assert run.poll() is None, "the run ended before the host was taken away"
    out, error = run.communicate(timeout=120)
    assert run.returncode == 0, out + error
    assert f"worker tcp://{HOSTS['fiqa-far']}" in error

    here = Factory(workspace=tmp_path / "here")
    here.luigi("BlurAll", "--dataset", str(manifest))
    assert over_network.files("large", "blur") == here.files("large", "blur")
