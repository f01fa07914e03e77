"""The measurement of speed: its pieces run, count what they say they count, and re-enact what they say they do."""

from __future__ import annotations

import argparse
import json
import multiprocessing
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from benchmarks import recognition_speed
from benchmarks.our_loop import BOTH, LOADER, MODEL, Rows, compare_workers
from benchmarks.released_loop import ReleasedFaces, ReleasedLearner, ReleasedLoader
from benchmarks.speed_data import find_faces
from benchmarks.speed_probe import MemoryWatch, Part, Timing, count_flops, time_steps
from benchmarks.speed_report import Report, print_report
from benchmarks.train_speed import (
    RELEASED_IMAGES,
    Bench,
    estimate_released,
    find_aims,
    measure_ours,
    name_released,
    parse,
)
from data_manifests.tables.stages import Factor
from labelers.faces import SIDE, decode
from training.backbones.names import Backbone
from training.backbones.networks import build_backbone
from training.clip.backbone import build_clip, find_clip_config
from training.dataset.training_set import TrainingSet, load_training_set
from training.quality.config import TrainingConfig
from training.quality.model import ModelConfig
from training.trainer.ranks import Ranks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from training.quality.model import QualityModel

TOWER = "test-resnet"
IMAGES = 64
PROCESSOR = torch.device("cpu")


@pytest.fixture(scope="module")
def repeated_faces(tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    faces = find_faces(tmp_path_factory.mktemp("speed"), None, None, IMAGES)
    return load_training_set(faces.labels, faces.images)


def tiny_config() -> TrainingConfig:
    return TrainingConfig(model=ModelConfig(tower=TOWER, pretrained=""), batch=24, epochs_one=1000)


def parts_of(rates: dict[str, float]) -> dict[str, Part]:
    return {
        name: Part(
            name=name, timing=Timing(images=8, steps=1, seconds=8 / rate), trains=True, rss_mib=1.0, gpu_mib=None
        )
        for name, rate in rates.items()
    }


def test_sample_is_repeated_with_labels_of_every_kind(repeated_faces: TrainingSet) -> None:
    assert len(repeated_faces) == IMAGES
    assert np.unique(repeated_faces.labels.identities).tolist() == list(range(8))
    for factor, found in list(repeated_faces.counts().items())[1:]:
        assert all(found.values()), factor
    assert repeated_faces.counts()["quality"]["labelled"] == IMAGES


def test_our_parts_are_measured(
    repeated_faces: TrainingSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(1)
    bench = Bench(config=tiny_config(), data=repeated_faces, device=PROCESSOR, seconds=0.3, prompts=1)
    report = Report(machine={"tower": TOWER})
    measure_ours(report, bench, Ranks(device=PROCESSOR), tmp_path / "run")
    assert list(report.parts) == [LOADER, MODEL, BOTH]
    trained = report.parts[BOTH].timing
    # 64 images in batches of 24 are 24, 20, 20; the first step of all is the warm-up.
    assert trained.steps >= 3
    assert trained.images == sum((24, 20, 20)[step % 3] for step in range(1, trained.steps + 1))
    assert (tmp_path / "run" / "checkpoints").is_dir()
    assert report.ideal == pytest.approx(report.matrix_tflops["float32"] * 1e3 / report.gflop_per_image)
    assert report.rate(BOTH) > 0
    assert report.parts[MODEL].rss_mib > 100
    figures = json.loads(json.dumps(report.to_json()))
    assert [part["name"] for part in figures["parts"]] == [LOADER, MODEL, BOTH]
    assert figures["parts"][0]["share_of_ideal"] is None
    print_report(report)
    assert "loader alone" in capsys.readouterr().out


def test_the_training_of_a_recogniser_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.set_num_threads(1)
    words = ["--backbone", "mobilefacenet", "--batch", "24", "--images", "64", "--classes", "50", "--seconds", "0.2"]
    words += ["--threads", "1", "--sample-rate", "0.5", "--json", str(tmp_path / "speed.json")]
    recognition_speed.main(words)
    assert "loader alone" in capsys.readouterr().out
    figures = json.loads((tmp_path / "speed.json").read_text())
    about, ideal = figures["machine"], figures["ideal"]
    assert (about["backbone"], about["classes"], about["batch"]) == ("mobilefacenet", 50, 24)
    assert [part["name"] for part in figures["parts"]] == [LOADER, MODEL, BOTH]
    assert figures["parts"][2]["steps"] >= 3
    backbone = count_flops(build_backbone(Backbone.MOBILEFACENET), SIDE)
    assert ideal["gflop_per_image"] * 1e9 == pytest.approx(backbone + 2.5 * 2 * 50 * 512)
    assert ideal["images_per_second"] == pytest.approx(
        ideal["matrix_tflops"]["float32"] * 1e3 / ideal["gflop_per_image"]
    )


def test_threads_stand_beside_spawned_processes(repeated_faces: TrainingSet) -> None:
    (row,) = compare_workers(repeated_faces, 0, 0.1, counts=(1, 1 << 20))
    assert row["workers"] == 1
    assert row["threads"] > 0
    assert row["processes"] > 0


def test_rows_are_those_of_the_training() -> None:
    rows = iter(Rows(images=10, batch=4, seed=1))
    epochs = [np.sort(np.concatenate([next(rows) for _ in range(3)])).tolist() for _ in range(2)]
    assert epochs == [list(range(10))] * 2


def test_released_faces_are_what_our_tower_sees(
    repeated_faces: TrainingSet, small_model: Callable[[str], QualityModel]
) -> None:
    torch.manual_seed(0)
    model = small_model(TOWER)
    pixels, quality, classes = ReleasedFaces(repeated_faces, model.tower)[5]
    face = torch.from_numpy(decode(repeated_faces.images.read(5)))[None]
    ours = [model.prepare(face, torch.tensor([flip]))[0] for flip in (False, True)]
    # PIL rounds to whole levels of brightness, ours does not: 1 / 255 / 0.26 at the most.
    assert min(float((pixels - one).abs().max()) for one in ours) < 0.02
    assert quality == repeated_faces.quality[5]
    assert classes.tolist() == repeated_faces.classes[5].tolist()


def test_released_loader_goes_on_until_it_is_left(repeated_faces: TrainingSet) -> None:
    tower = find_clip_config(TOWER)
    with ReleasedLoader(repeated_faces, tower, 16, pinned=False) as loader:
        loader.drain()
        shapes = [tuple(part.shape for part in loader.next()) for _ in range(2 * IMAGES // 16)]
    assert set(shapes) == {((16, 3, tower.image_size, tower.image_size), (16,), (16, len(Factor)))}
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("half", [False, True])
def test_released_step_moves_what_the_released_code_trains(half: bool) -> None:
    torch.set_num_threads(1)
    learner = ReleasedLearner(tiny_config(), PROCESSOR, half=half, prompts=12)
    size = find_clip_config(TOWER).image_size
    batch = [torch.randn(4, 3, size, size), torch.rand(4).double(), torch.randint(0, 2, (4, len(Factor)))]
    before = {name: value.clone() for name, value in learner._clip.named_parameters()}
    assert learner.learn(batch) == 4
    moved = {name for name, value in learner._clip.named_parameters() if not torch.equal(value, before[name])}
    text = {name for name in before if not name.startswith("visual.")} - {"logit_scale"}
    assert moved & text == {"token_embedding.weight", "ln_final.weight", "ln_final.bias"}
    assert "visual.conv1.weight" in moved
    assert "visual.attnpool.positional_embedding" not in moved
    kinds = {value.dtype for value in learner._clip.parameters()}
    assert kinds == ({torch.float16, torch.float32} if half else {torch.float32})


def test_flops_of_the_papers_tower() -> None:
    tower = find_clip_config("RN50-quickgelu")
    with torch.device("meta"):
        visual = build_clip(tower, seed=0).get_submodule("visual")
    assert count_flops(visual, tower.image_size) / 1e9 == pytest.approx(36.6, abs=0.1)


def test_flops_of_the_papers_recogniser() -> None:
    """6,309 million multiply-adds forward, twice as many backward, but for the gradient of the image."""
    first = 3 * 64 * 9 * SIDE**2
    flops = count_flops(build_backbone(Backbone.IRESNET50), SIDE)
    assert flops == pytest.approx(2 * (3 * 6309e6 - first), rel=1e-3)


def test_estimate_of_the_released_way() -> None:
    # 8 images take 2 s, and with 60 of 360 prompts 5 s: all prompts take 18 s.
    assert estimate_released(8 / 5, 8 / 2, batch=8, prompts=60, at=8) == pytest.approx(8 / 20)
    assert estimate_released(8 / 5, 8 / 2, batch=8, prompts=60, at=256) == pytest.approx(256 / (18 + 64))


def test_aims_say_what_is_estimated() -> None:
    report = Report(machine={})
    report.parts = parts_of({LOADER: 30.0, MODEL: 10.0, BOTH: 9.0, RELEASED_IMAGES: 4.0, name_released(60): 1.6})
    reached = {aim.text: aim.reached for aim in find_aims(report, 8, 60)}
    assert reached["loader alone over model alone"] == pytest.approx(3.0)
    assert reached["loader and model over the released way, batch 8, estimated"] == pytest.approx(9 / 0.4)
    report.parts = parts_of({LOADER: 30.0, MODEL: 10.0, BOTH: 9.0, RELEASED_IMAGES: 4.0, name_released(360): 2.0})
    reached = {aim.text: aim.reached for aim in find_aims(report, 256, 360)}
    assert reached["loader and model over the released way, batch 256"] == pytest.approx(4.5)
    assert not any("estimated" in text for text in reached)


def test_warm_up_does_not_count_unless_it_is_all_there_is_time_for() -> None:
    done: list[int] = []

    def step() -> int:
        done.append(1)
        return 2

    timing = time_steps(step, 0.0, PROCESSOR, impatient=True)
    assert (timing.cold, timing.steps, timing.images, len(done)) == (True, 1, 2, 1)
    timing = time_steps(step, 0.02, PROCESSOR, warm_up=3)
    assert not timing.cold
    assert timing.images == 2 * timing.steps == 2 * (len(done) - 4)


def test_memory_is_seen_while_it_is_held() -> None:
    size = 200 << 20
    with MemoryWatch() as watch:
        before = watch.peak
        held = np.ones(size, np.uint8)
    assert watch.peak - before > 0.9 * held.nbytes


@pytest.mark.parametrize(
    "words", [["--labels", "somewhere"], ["--batch", "0"], ["--seconds", "-1"], ["--prompts", "361"]]
)
def test_wrong_options_are_told(words: list[str]) -> None:
    with pytest.raises(SystemExit):
        parse(words)


def test_other_options_go_to_the_training() -> None:
    options, others = parse(["--batch", "4", "--compiled", "no", "--threads", "3"])
    assert isinstance(options, argparse.Namespace)
    assert (options.batch, options.seconds, options.prompts) == (4, 6.0, 60)
    assert others == ["--compiled", "no", "--threads", "3"]
