"""The model: the joint distribution, its marginals, what the tower sees, and where its weights come from."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from PIL import Image
from torch import Tensor, nn

from data_manifests.recipes import Recipe
from data_manifests.storage.atomic import sha256_of
from data_manifests.tables.stages import CLASSES, QUALITY_CLASSES, Factor
from training.clip.backbone import (
    CLIP_MEAN,
    CLIP_STD,
    ClipConfigError,
    build_clip,
    find_clip_config,
    import_open_clip,
    load_pretrained,
)
from training.losses import QUALITY_WEIGHT, emd, focal, soft_map
from training.prompts import JOINT_SIZES, PROMPTS, tokenize_prompts
from training.quality.model import (
    MERGED_HIDDEN,
    MergedFactors,
    ModelConfig,
    Prompts,
    QualityModel,
    build_merged,
    build_model,
    log_factors,
    log_marginals,
    quality_score,
)
from training.trainer.weights import WeightsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    SmallModel = Callable[[str], QualityModel]

WORDS = {**CLASSES, "quality": QUALITY_CLASSES}


def some_log_joint(count: int = 6, spread: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return (spread * torch.randn(count, 360, generator=generator, dtype=torch.float64)).log_softmax(-1)


class TestMarginals:
    def test_and_losses_are_those_of_the_released_code(self, real_data: Path) -> None:
        data = {k: torch.from_numpy(v) for k, v in np.load(real_data / "oracles/losses/joint_losses.npz").items()}
        found = log_marginals(data["logits"].log_softmax(-1))
        short = {"blur": "blur", "occlusion": "occ", "pose": "pose", "expression": "exp", "lighting": "ill"}
        target = soft_map(data["qs"].float(), recipe=Recipe.RELEASED)
        losses = [QUALITY_WEIGHT * emd(found.quality.exp(), target, recipe=Recipe.RELEASED)]
        wanted = [data["loss_quality_x10"]]
        np.testing.assert_allclose(found.quality.exp(), data["marg_quality"], rtol=1e-6, atol=2e-6)
        for factor, name in short.items():
            log_p = found.of(Factor(factor))
            np.testing.assert_allclose(log_p.exp(), data[f"marg_{name}"], rtol=1e-6, atol=2e-6)
            losses.append(focal(log_p, data[f"label_{name}"], recipe=Recipe.RELEASED))
            wanted.append(data[f"loss_{name}"])
        np.testing.assert_allclose(losses, wanted, rtol=1e-6, atol=2e-6)
        np.testing.assert_allclose(sum(losses), data["total"], rtol=1e-6, atol=4e-6)

    @pytest.mark.parametrize("name", list(WORDS))
    def test_sum_over_the_prompts_that_say_the_word(self, name: str) -> None:
        log_joint = some_log_joint()
        found = getattr(log_marginals(log_joint), name).exp()
        frames = {"blur": "a {},", "occlusion": ", {},", "pose": "and {} face", "expression": "with {} under"}
        frames |= {"lighting": "under {},", "quality": "of {} quality"}
        for index, word in enumerate(WORDS[name]):
            said = torch.tensor([frames[name].format(word) in prompt for prompt in PROMPTS])
            assert torch.allclose(found[:, index], log_joint[:, said].exp().sum(-1))

    def test_are_distributions_without_overflow(self) -> None:
        far = (1e4 * torch.eye(360)[[0, 100, 359]]).log_softmax(-1).requires_grad_()
        found = log_marginals(far)
        parts = [found.quality, *map(found.of, Factor), log_factors(far)]
        for part in parts:
            assert part.isfinite().all()
            assert torch.allclose(part.exp().sum(-1), torch.ones(3))
        sum(part.sum() for part in parts).backward()
        assert far.grad is not None
        assert far.grad.isfinite().all()

    def test_combinations_of_factors_keep_the_order_of_the_prompts(self) -> None:
        log_joint = some_log_joint()
        by_hand = torch.stack([log_joint[:, 5 * i : 5 * i + 5].exp().sum(-1) for i in range(72)], dim=1)
        assert torch.allclose(log_factors(log_joint).exp(), by_hand)


def test_the_score_of_one_level_is_its_anchor() -> None:
    assert quality_score(torch.eye(5)).tolist() == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9])
    assert quality_score(torch.full((1, 5), 0.2)).item() == pytest.approx(0.5)


class TestMergedFactors:
    def test_has_the_layers_of_the_paper(self) -> None:
        """CLIB-FIQA section 4.1: FC(72)-PReLU-FC(128)-PReLU-FC(64)-PReLU-FC(5)."""
        layers = list(MergedFactors().layers)
        assert [type(layer) for layer in layers] == [nn.Linear, nn.PReLU] * 3 + [nn.Linear]
        shapes = [(layer.in_features, layer.out_features) for layer in layers if isinstance(layer, nn.Linear)]
        assert shapes == [(72, 72), (72, 128), (128, 64), (64, 5)]
        assert MERGED_HIDDEN == ModelConfig().merged_hidden == (72, 128, 64)

    def test_gives_a_distribution(self) -> None:
        p = MergedFactors((8,))(log_factors(some_log_joint().float()).exp())
        assert p.shape == (6, 5)
        assert torch.allclose(p.sum(-1), torch.ones(6))

    def test_is_decided_by_the_seed_alone(self) -> None:
        state = torch.random.get_rng_state()
        first, same, other = (build_merged(ModelConfig(), seed) for seed in (1, 1, 2))
        assert torch.equal(first.layers[0].weight, same.layers[0].weight)
        assert not torch.equal(first.layers[0].weight, other.layers[0].weight)
        assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("tower", ["test-resnet", "test-vit"])
class TestJoint:
    def test_is_that_of_both_towers_side_by_side(
        self, small_model: SmallModel, noisy_faces: Tensor, tower: str
    ) -> None:
        clip = build_clip(find_clip_config(tower), seed=1)
        model = small_model(tower)
        with torch.no_grad():
            logits, _ = clip.get_logits(model.prepare(noisy_faces), tokenize_prompts())
            found = model(noisy_faces)
        assert found.shape == (4, 360)
        assert torch.allclose(found.exp(), logits.softmax(-1), atol=1e-6)

    def test_trains_the_image_tower_and_the_temperature_only(
        self, small_model: SmallModel, noisy_faces: Tensor, tower: str
    ) -> None:
        model = small_model(tower).train()
        focal(log_marginals(model(noisy_faces)).blur, torch.tensor([0, 1, 2, 1])).backward()
        assert {name.split(".")[0] for name, _ in model.named_parameters()} == {"visual", "logit_scale"}
        # In a fresh residual tower the last norm of every block is 0, and hides what lies before it.
        reached = [name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()]
        assert {"logit_scale", "visual.conv1.weight"} <= set(reached)
        assert "text_features" in model.state_dict()
        assert torch.allclose(model.text_features.norm(dim=-1), torch.ones(360))

    def test_mirrors_the_images_that_are_asked_for(
        self, small_model: SmallModel, noisy_faces: Tensor, tower: str
    ) -> None:
        model = small_model(tower)
        flip = torch.tensor([True, False, False, True])
        mirrored = torch.where(flip[:, None, None, None], noisy_faces.flip(2), noisy_faces)
        with torch.no_grad():
            assert torch.equal(model(noisy_faces, flip), model(mirrored))
            assert not torch.allclose(model(noisy_faces, flip), model(noisy_faces), atol=1e-4)

    def test_stays_in_single_precision_under_autocast(
        self, small_model: SmallModel, noisy_faces: Tensor, tower: str
    ) -> None:
        model = small_model(tower)
        with torch.no_grad():
            exact = model(noisy_faces)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                rough = model(noisy_faces)
        assert rough.dtype is torch.float32
        assert torch.allclose(rough.exp().sum(-1), torch.ones(4), atol=1e-5)
        assert not torch.equal(rough, exact)
        assert torch.allclose(rough, exact, atol=0.2)


class TestPrepare:
    @pytest.mark.parametrize("size", [64, 112, 224])
    def test_resizes_as_pil_does(self, noisy_faces: Tensor, size: int) -> None:
        tower = find_clip_config("test-resnet")
        tower = replace(tower, vision={**tower.vision, "image_size": size})
        model = QualityModel(tower, nn.Identity(), torch.zeros(360, 64), torch.zeros(()))
        seen = model.prepare(noisy_faces)
        assert seen.shape == (4, 3, size, size)
        mean, std = torch.tensor(CLIP_MEAN), torch.tensor(CLIP_STD)
        levels = 255.0 * (seen.permute(0, 2, 3, 1) * std + mean)
        for found, image in zip(levels.numpy(), noisy_faces.numpy(), strict=True):
            wanted = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR), np.float32)
            assert np.abs(found - wanted).max() <= 1.01  # PIL rounds to whole levels after each axis

    @pytest.mark.parametrize(
        ("shape", "kind"),
        [((1, 112, 112, 3), torch.float32), ((1, 3, 112, 112), torch.uint8), ((1, 96, 112, 3), torch.uint8)],
    )
    def test_refuses_what_is_no_aligned_picture(
        self, small_model: SmallModel, shape: tuple[int, ...], kind: torch.dtype
    ) -> None:
        with pytest.raises(ValueError, match=r"uint8 \[N, 112, 112, 3\].*align"):
            small_model("test-vit")(torch.zeros(shape, dtype=kind))


class TestBuild:
    def test_is_decided_by_the_seed_alone(self, small_model: SmallModel) -> None:
        state = torch.random.get_rng_state()
        config = ModelConfig(tower="test-vit", pretrained="")
        same, other = (build_model(config, seed).state_dict() for seed in (1, 2))
        first = small_model("test-vit").state_dict()
        assert all(torch.equal(first[name], same[name]) for name in first)
        assert not torch.equal(first["visual.conv1.weight"], other["visual.conv1.weight"])
        assert not torch.equal(first["text_features"], other["text_features"])
        assert torch.equal(torch.random.get_rng_state(), state)

    def test_random_text_tells_the_prompts_apart(self, small_model: SmallModel) -> None:
        features = small_model("test-resnet").text_features
        similarity = features @ features.T - 2.0 * torch.eye(360)
        assert similarity.max() < 1.0 - 1e-6

    def test_spread_prompts_differ_by_their_words_alone(self) -> None:
        config = ModelConfig(tower="test-vit", pretrained="", prompts=Prompts.SPREAD)
        features = build_model(config, seed=1).text_features.double()
        words = torch.cartesian_prod(*(torch.arange(size) for size in JOINT_SIZES))  # [360, 6]
        differs = words[:, None] != words[None]  # [360, 360, 6]
        weight = torch.tensor([size / 11 for size in JOINT_SIZES], dtype=torch.float64)
        wanted = 1.0 - differs.double() @ weight
        # A word of a factor with n words is as far from every other one: the simplex of n corners in n - 1 directions.
        assert torch.allclose(features @ features.T, wanted, atol=1e-5)

    def test_takes_weights_of_a_file(self, tmp_path: Path, noisy_faces: Tensor, small_model: SmallModel) -> None:
        file = tmp_path / "weights.pt"
        tower = find_clip_config("test-vit")
        torch.save({"state_dict": build_clip(tower, seed=1).state_dict()}, file)
        model = build_model(ModelConfig(tower="test-vit", pretrained=str(file)), seed=99).eval()
        with torch.no_grad():
            assert torch.equal(model(noisy_faces), small_model("test-vit")(noisy_faces))

    def test_names_what_does_not_fit(self, tmp_path: Path) -> None:
        file = tmp_path / "weights.pt"
        state = build_clip(find_clip_config("test-vit"), seed=1).state_dict()
        state["surplus"] = state.pop("visual.proj")
        state["ln_final.bias"] = state["ln_final.bias"][:3]
        torch.save(state, file)
        wanted = r"missing: visual.proj; not of this model: surplus; of another shape: ln_final.bias \[3\] instead of"
        with pytest.raises(WeightsError, match=wanted):
            build_model(ModelConfig(tower="test-vit", pretrained=str(file)), seed=1)

    @pytest.mark.parametrize(
        ("name", "tag", "remedy"),
        [("RN50", "openai", "'RN50-quickgelu'"), ("ViT-B-32", "openai", "'ViT-B-32-quickgelu'")],
    )
    def test_refuses_another_gelu_than_the_weights_were_trained_with(self, name: str, tag: str, remedy: str) -> None:
        with pytest.raises(ClipConfigError, match=f"trained with QuickGELU.*computes GELU: name the tower {remedy}"):
            load_pretrained(nn.Module(), find_clip_config(name), tag)

    def test_refuses_openais_own_file_for_another_gelu(self, tmp_path: Path) -> None:
        tower = find_clip_config("test-resnet")
        clip = build_clip(tower, seed=1)
        file = tmp_path / "rn.pt"
        extras = {"input_resolution": torch.tensor(64), "context_length": torch.tensor(77)}
        torch.save({**clip.state_dict(), **extras}, file)
        load_pretrained(build_clip(tower, seed=2), tower, str(file))
        with pytest.raises(ClipConfigError, match="trained with QuickGELU"):
            load_pretrained(clip, replace(tower, name="plain", quick_gelu=False), str(file))

    def test_takes_a_tags_file_from_the_registry(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        tower = find_clip_config("test-vit")
        state = build_clip(tower, seed=5).state_dict()
        file = tmp_path / "mine.pt"
        torch.save(state, file)
        files = (
            f'{{ name = "mine.pt", bytes = {file.stat().st_size}, sha256 = "{sha256_of(file)}", sources = [SOURCE] }}'
        )
        source = '{ type = "open_clip", model = "test-vit", tag = "mine" }'
        (tmp_path / "models.toml").write_text(
            '[mine]\nkind = "clip"\nversion = 1\nlicence = "none"\nbatch = 1\n'
            f"files = [{files.replace('SOURCE', source)}]\n"
            "input = { width = 64, height = 64, colour = 'rgb', mean = [0.0, 0.0, 0.0], std = [1.0, 1.0, 1.0] }\n"
            f"output = {{ kind = 'clip', dimension = {tower.embed_dim}, architecture = 'test-vit' }}\n"
        )
        monkeypatch.setenv("FIQA_MODELS", str(tmp_path))
        clip = build_clip(tower, seed=6)
        load_pretrained(clip, tower, "mine")
        assert all(torch.equal(value, state[name]) for name, value in clip.state_dict().items())

    def test_the_default_tower_fits_openais_weights(self) -> None:
        config = ModelConfig()
        source = import_open_clip().get_pretrained_cfg(config.tower, config.pretrained)
        tower = find_clip_config(config.tower)
        assert (tower.quick_gelu, tower.image_size, tower.embed_dim) == (True, 224, 1024)
        assert source["quick_gelu"]
        assert (tower.mean, tower.std) == (tuple(source["mean"]), tuple(source["std"])) == (CLIP_MEAN, CLIP_STD)

    def test_refuses_unknown_towers_and_weights(self) -> None:
        with pytest.raises(
            ClipConfigError, match="there is no tower 'RN51': choose one of resnet10t, small-resnet, test-resnet"
        ):
            find_clip_config("RN51")
        with pytest.raises(ClipConfigError, match=r"neither a file nor weights.*openai.*leave it empty"):
            load_pretrained(nn.Module(), find_clip_config("RN50-quickgelu"), "openia")

    @pytest.mark.parametrize("name", ["ViT-B-16-SigLIP", "coca_ViT-B-32", "roberta-ViT-B-32"])
    def test_refuses_towers_with_another_text(self, name: str) -> None:
        with pytest.raises(ClipConfigError, match="CLIP's tokenizer"):
            find_clip_config(name)

    def test_leaves_open_clips_towers_as_they_are(self) -> None:
        found = [find_clip_config("RN50-quickgelu").vision for _ in range(2)]
        assert found[0] == found[1] == import_open_clip().get_model_config("RN50-quickgelu")["vision_cfg"]


@pytest.mark.parametrize("hidden", [(), (0,), (72, -1)])
def test_a_merged_network_without_width_is_refused(hidden: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="merged_hidden"):
        ModelConfig(merged_hidden=hidden)


def test_every_level_of_every_factor_has_its_own_place() -> None:
    """The joint distribution of one prompt has exactly that prompt's words as marginals."""
    names = [*(factor.value for factor in Factor), "quality"]
    places = itertools.product(*(range(len(WORDS[name])) for name in names))
    log_joint = torch.full((360, 360), -200.0).fill_diagonal_(0.0).log_softmax(-1)
    found = log_marginals(log_joint)
    for index, place in enumerate(places):
        assert tuple(int(getattr(found, name)[index].argmax()) for name in names) == place


def test_weights_of_a_host_that_does_not_answer_are_asked_for_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """huggingface_hub by itself would try for 45 seconds."""
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    import_open_clip()
    started = time.monotonic()
    with pytest.raises(ClipConfigError, match="are not cached and cannot be fetched"):
        load_pretrained(nn.Identity(), find_clip_config("RN50-quickgelu"), "cc12m")
    assert time.monotonic() - started < 30
    assert not constants.HF_HUB_OFFLINE
