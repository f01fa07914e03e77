"""Checkpoints of OpenAI's layout: scored like a plain re-computation, and refused by name where they do not fit."""

from __future__ import annotations

import functools
import io
import math
import pickle
import warnings
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - as PyTorch's own documentation names it

from training.clip.backbone import find_clip_config, import_open_clip
from training.prompts import PROMPTS
from training.quality.model import log_marginals, quality_score
from training.quality.released import infer_clip_config, load_released
from training.trainer.weights import WeightsError, read_state_dict

if TYPE_CHECKING:
    from pathlib import Path

State = dict[str, Tensor]
WIDTH, EMBED, TEXT, LAYERS, SIZE = 4, 48, 64, 2, 224
HEADS, BLOCKS = WIDTH * 32 // 64, (1, 2, 1, 1)


class PlainWeights:
    """Random weights under the names of OpenAI's residual CLIP, made without any CLIP code."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(11)
        self.state: State = {"logit_scale": torch.tensor(math.log(100.0))}
        self.add_image_tower()
        self.add_text_tower()

    def rand(self, *shape: int, scale: float = 1.0) -> Tensor:
        return scale * torch.randn(*shape, generator=self.generator)

    def add_convolution(self, conv: str, bn: str, inside: int, outside: int, kernel: int) -> None:
        self.state[f"{conv}.weight"] = self.rand(outside, inside, kernel, kernel, scale=(inside * kernel**2) ** -0.5)
        self.add_norm(bn, outside)
        self.state[f"{bn}.running_mean"] = self.rand(outside, scale=0.1)
        self.state[f"{bn}.running_var"] = 0.15 + 0.3 * torch.rand(outside, generator=self.generator)
        self.state[f"{bn}.num_batches_tracked"] = torch.tensor(7)

    def add_norm(self, name: str, channels: int) -> None:
        self.state[f"{name}.weight"] = 1.0 + self.rand(channels, scale=0.2)
        self.state[f"{name}.bias"] = self.rand(channels, scale=0.2)

    def add_linear(self, name: str, inside: int, outside: int, joint: str = ".") -> None:
        self.state[f"{name}{joint}weight"] = self.rand(outside, inside, scale=inside**-0.5)
        self.state[f"{name}{joint}bias"] = self.rand(outside, scale=0.1)

    def add_image_tower(self) -> None:
        stem = [(3, WIDTH // 2), (WIDTH // 2, WIDTH // 2), (WIDTH // 2, WIDTH)]
        for index, (inside, outside) in enumerate(stem, 1):
            self.add_convolution(f"visual.conv{index}", f"visual.bn{index}", inside, outside, 3)
        inside = WIDTH
        for stage, blocks in enumerate(BLOCKS, 1):
            for block in range(blocks):
                inside = self.add_block(f"visual.layer{stage}.{block}", inside, WIDTH * 2 ** (stage - 1), block == 0)
        places = (SIZE // 32) ** 2 + 1
        self.state["visual.attnpool.positional_embedding"] = self.rand(places, inside, scale=inside**-0.5)
        for name, outside in (("k_proj", inside), ("q_proj", inside), ("v_proj", inside), ("c_proj", EMBED)):
            self.add_linear(f"visual.attnpool.{name}", inside, outside)

    def add_block(self, base: str, inside: int, planes: int, first: bool) -> int:
        layers = [(inside, planes, 1), (planes, planes, 3), (planes, 4 * planes, 1)]
        for index, (a, b, kernel) in enumerate(layers, 1):
            self.add_convolution(f"{base}.conv{index}", f"{base}.bn{index}", a, b, kernel)
        if first:
            self.add_convolution(f"{base}.downsample.0", f"{base}.downsample.1", inside, 4 * planes, 1)
        return 4 * planes

    def add_text_tower(self) -> None:
        self.state["token_embedding.weight"] = self.rand(49408, TEXT, scale=0.5)
        self.state["positional_embedding"] = self.rand(77, TEXT, scale=0.1)
        for layer in range(LAYERS):
            base = f"transformer.resblocks.{layer}"
            self.add_norm(f"{base}.ln_1", TEXT)
            self.add_norm(f"{base}.ln_2", TEXT)
            self.add_linear(f"{base}.attn", TEXT, 3 * TEXT, joint=".in_proj_")
            self.add_linear(f"{base}.attn.out_proj", TEXT, TEXT)
            self.add_linear(f"{base}.mlp.c_fc", TEXT, 4 * TEXT)
            self.add_linear(f"{base}.mlp.c_proj", 4 * TEXT, TEXT)
        self.add_norm("ln_final", TEXT)
        self.state["text_projection"] = self.rand(TEXT, EMBED, scale=TEXT**-0.5)


def attend(x: Tensor, q: Tensor, k: Tensor, v: Tensor, heads: int, *, causal: bool = False) -> Tensor:
    """Softmax attention of x's rows [B, L, C], written out."""
    batch, length, channels = x.shape
    q, k, v = (part.reshape(batch, length, heads, channels // heads) for part in (q, k, v))
    scores = torch.einsum("bihc,bjhc->bhij", q, k) / math.sqrt(channels // heads)
    if causal:
        scores = scores.masked_fill(torch.ones(length, length, dtype=torch.bool).triu(1), float("-inf"))
    return torch.einsum("bhij,bjhc->bihc", scores.softmax(-1), v).reshape(batch, length, channels)


def see(state: State, pixels: Tensor) -> Tensor:
    """The residual image tower, pixels float [N, 3, S, S] to [N, K]."""

    def cbn(x: Tensor, conv: str, bn: str, stride: int = 1) -> Tensor:
        weight = state[f"{conv}.weight"]
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        shape = (1, -1, 1, 1)
        mean, var = state[f"{bn}.running_mean"].reshape(shape), state[f"{bn}.running_var"].reshape(shape)
        return (x - mean) / (var + 1e-5).sqrt() * state[f"{bn}.weight"].reshape(shape) + state[f"{bn}.bias"].reshape(
            shape
        )

    x = pixels
    for index in (1, 2, 3):
        x = cbn(x, f"visual.conv{index}", f"visual.bn{index}", stride=2 if index == 1 else 1).relu()
    x = F.avg_pool2d(x, 2)
    for stage, blocks in enumerate(BLOCKS, 1):
        for block in range(blocks):
            base, stride = f"visual.layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = cbn(x, f"{base}.conv1", f"{base}.bn1").relu()
            y = cbn(y, f"{base}.conv2", f"{base}.bn2").relu()
            y = cbn(F.avg_pool2d(y, stride), f"{base}.conv3", f"{base}.bn3")
            if block == 0:
                x = cbn(F.avg_pool2d(x, stride), f"{base}.downsample.0", f"{base}.downsample.1")
            x = (x + y).relu()
    x = x.flatten(2).mT  # [N, places, C]
    x = torch.cat([x.mean(1, keepdim=True), x], dim=1) + state["visual.attnpool.positional_embedding"]

    def project(name: str, values: Tensor) -> Tensor:
        return values @ state[f"visual.attnpool.{name}.weight"].T + state[f"visual.attnpool.{name}.bias"]

    pooled = attend(x, project("q_proj", x), project("k_proj", x), project("v_proj", x), HEADS)
    return project("c_proj", pooled[:, 0])


def read(state: State, tokens: Tensor) -> Tensor:
    """The text tower, tokens [L, 77] to [L, K]."""
    x = state["token_embedding.weight"][tokens] + state["positional_embedding"]

    def norm(values: Tensor, name: str) -> Tensor:
        centred = values - values.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]

    for layer in range(LAYERS):
        base = f"transformer.resblocks.{layer}"
        y = norm(x, f"{base}.ln_1")
        q, k, v = (y @ state[f"{base}.attn.in_proj_weight"].T + state[f"{base}.attn.in_proj_bias"]).chunk(3, dim=-1)
        y = attend(y, q, k, v, TEXT // 64, causal=True)
        x = x + y @ state[f"{base}.attn.out_proj.weight"].T + state[f"{base}.attn.out_proj.bias"]
        y = norm(x, f"{base}.ln_2") @ state[f"{base}.mlp.c_fc.weight"].T + state[f"{base}.mlp.c_fc.bias"]
        y = y * torch.sigmoid(1.702 * y)
        x = x + y @ state[f"{base}.mlp.c_proj.weight"].T + state[f"{base}.mlp.c_proj.bias"]
    ends = norm(x, "ln_final")[torch.arange(len(tokens)), tokens.argmax(-1)]
    return ends @ state["text_projection"]


def enlarge(images: Tensor) -> Tensor:
    """Bilinear from 112 to 224 and CLIP's statistics, uint8 [N, 112, 112, 3] to [N, 3, 224, 224]."""
    place = (torch.arange(SIZE) + 0.5) / 2 - 0.5
    hat = (1.0 - (place[:, None] - torch.arange(112.0)).abs()).clamp_min(0.0)  # [224, 112]
    hat = hat / hat.sum(1, keepdim=True)
    pixels = torch.einsum("yh,xw,nhwc->ncyx", hat, hat, images.float() / 255.0)
    mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    return (pixels - torch.tensor(mean).reshape(3, 1, 1)) / torch.tensor(std).reshape(3, 1, 1)


def recompute(state: State, images: Tensor) -> Tensor:
    """Joint probabilities [N, 360] from a checkpoint, step by step."""
    state = {name: value.float() for name, value in state.items()}
    tokens = import_open_clip().SimpleTokenizer()(list(PROMPTS), context_length=77)
    text = torch.cat([read(state, part) for part in torch.split(tokens, 60)])
    image = see(state, enlarge(images))
    cosine = (image / image.norm(dim=-1, keepdim=True)) @ (text / text.norm(dim=-1, keepdim=True)).T
    return (state["logit_scale"].exp() * cosine).softmax(-1)


@pytest.fixture(scope="module")
def checkpoint() -> State:
    torch.set_num_threads(1)
    return PlainWeights().state


@pytest.mark.parametrize("half", [False, True])
def test_scores_are_those_of_a_plain_recomputation(
    checkpoint: State, noisy_faces: Tensor, tmp_path: Path, half: bool
) -> None:
    """Saved as the authors' script saves: by torch.save, from several GPUs, in half precision or not."""
    stored = {
        f"module.{name}": value.half() if half and value.is_floating_point() else value
        for name, value in checkpoint.items()
    }
    torch.save(stored, tmp_path / "released.pth")
    model = load_released(tmp_path / "released.pth")
    wanted = recompute({name.removeprefix("module."): value for name, value in stored.items()}, noisy_faces)
    with torch.no_grad():
        found = model(noisy_faces)
    assert not model.training
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    np.testing.assert_allclose(found.exp(), wanted, atol=1e-4, rtol=0.0)
    np.testing.assert_allclose(found, wanted.log(), atol=1e-3)
    assert wanted.amax(-1).min() > 0.01, "a flat distribution would hide a mistake"
    assert wanted.std(0).max() > 0.01, "images that look the same would hide a mistake"
    score = quality_score(log_marginals(found).quality.exp())
    by_hand = wanted.reshape(-1, 72, 5).sum(1) @ torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9])
    np.testing.assert_allclose(score, by_hand, atol=1e-4)


@pytest.mark.parametrize("name", ["RN50-quickgelu", "RN50x4-quickgelu", "ViT-B-32-quickgelu"])
def test_sizes_of_openais_towers_are_told_from_their_weights(name: str) -> None:
    config = import_open_clip().get_model_config(name)
    with torch.device("meta"):
        clip = import_open_clip().CLIP(**config)
    found, wanted = infer_clip_config(clip.state_dict(), "weights"), find_clip_config(name)
    assert {**wanted.vision, "patch_size": wanted.vision["patch_size"]} == dict(found.vision)
    assert wanted.text == found.text
    assert (found.embed_dim, found.image_size) == (wanted.embed_dim, wanted.image_size)
    assert found.quick_gelu


@pytest.mark.parametrize(
    "name",
    [
        "visual.layer1.0.conv1.weight",
        "visual.layer2.1.bn3.running_var",
        "visual.attnpool.positional_embedding",
        "token_embedding.weight",
        "transformer.resblocks.1.ln_2.bias",
        "ln_final.weight",
        "logit_scale",
    ],
)
def test_a_missing_weight_is_named(checkpoint: State, tmp_path: Path, name: str) -> None:
    torch.save({key: value for key, value in checkpoint.items() if key != name}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=rf"a\.pth.*missing: .*{name}"):
        load_released(tmp_path / "a.pth")


def test_a_weight_too_many_is_named(checkpoint: State, tmp_path: Path) -> None:
    torch.save({**checkpoint, "head.weight": torch.zeros(3)}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"not of this model: head\.weight"):
        load_released(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("visual.attnpool.positional_embedding", (8, 128), "7 places, which is no square map"),
        ("ln_final.weight", (60,), "width 60 is not a multiple of 64"),
        ("text_projection", (64,), "has 1 axes instead of 2"),
        ("visual.bn2.bias", (5,), r"visual\.bn2\.bias \[5\] instead of \[2\]"),
    ],
)
def test_an_impossible_shape_is_named(
    checkpoint: State, tmp_path: Path, name: str, shape: tuple[int, ...], message: str
) -> None:
    torch.save({**checkpoint, name: torch.zeros(shape)}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=message):
        load_released(tmp_path / "a.pth")


class Trap:
    """Runs code when it is unpickled."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return open, (self.mark, "w")


def test_code_in_a_checkpoint_is_never_run(checkpoint: State, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    torch.save({**checkpoint, "x": Trap(str(mark))}, tmp_path / "new.pth")
    torch.save({"x": Trap(str(mark))}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Trap(str(mark)), protocol=2))
    for name in ("new.pth", "old.pth", "bare.pth"):
        with pytest.raises(WeightsError, match=rf"{name} is not a file of weights.*state_dict\(\)"):
            load_released(tmp_path / name)
    assert not mark.exists()


def hostile_files() -> dict[str, bytes]:
    """Files that are no weights, by what is wrong with them."""
    whole = io.BytesIO()
    torch.save({"a": torch.zeros(1000)}, whole)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("archive/constants.pkl", b"no")
    listed = io.BytesIO()
    torch.save([torch.zeros(3)], listed)
    numbers = io.BytesIO()
    torch.save({"epoch": 3, "weights": torch.zeros(3)}, numbers)
    nothing = io.BytesIO()
    torch.save({}, nothing)
    buffers = {"archive": archive, "list": listed, "numbers": numbers, "nothing": nothing}
    files = {"empty": b"", "text": b"hello\n" * 99, "cut": whole.getvalue()[:-700]}
    return files | {name: buffer.getvalue() for name, buffer in buffers.items()}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kind", list(hostile_files()))
def test_files_that_are_no_weights_are_refused_by_name(tmp_path: Path, kind: str, suffix: str) -> None:
    path = tmp_path / f"{kind}{suffix}"
    path.write_bytes(hostile_files()[kind])
    with pytest.raises(WeightsError, match=rf"{kind}\{suffix}.*state"):
        read_state_dict(path)


@functools.cache
def whole_files() -> list[tuple[str, bytes]]:
    """The same weights by every way of saving: suffix and content."""
    state = {"a.weight": torch.ones(3, 4), "b": torch.ones(2, dtype=torch.half)}
    new, old, script = io.BytesIO(), io.BytesIO(), io.BytesIO()
    torch.save(state, new)
    torch.save(state, old, _use_new_zipfile_serialization=False)
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), script)
    parts = [(".pth", new.getvalue()), (".pth", old.getvalue()), (".pt", script.getvalue())]
    return [*parts, (".safetensors", save(state))]


@pytest.mark.parametrize("which", range(4))
@given(
    cut=st.floats(0.0, 1.0),
    flips=st.lists(st.tuples(st.floats(0.0, 1.0, exclude_max=True), st.integers(0, 255)), max_size=8),
)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_damaged_file_is_read_or_refused_by_name(
    tmp_path: Path, which: int, cut: float, flips: list[tuple[float, int]]
) -> None:
    suffix, content = whole_files()[which]
    damaged = bytearray(content[: round(len(content) * max(cut, 0.5))] if cut < 0.9 else content)
    for place, value in flips:
        damaged[int(place * len(damaged))] = value
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(damaged)
    try:
        found = read_state_dict(path)
    except WeightsError as error:
        assert str(path) in str(error)  # noqa: PT017 - either outcome is right
    else:
        assert all(isinstance(value, Tensor) for value in found.values())


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"there is no file .*gone\.pth"):
        load_released(tmp_path / "gone.pth")


class Archive(nn.Module):
    """Stands for OpenAI's published archive: code and weights in one, with three numbers that are no weights."""

    def __init__(self, state: State) -> None:
        super().__init__()
        self.visual = nn.Linear(2, 2)
        self.logit_scale = nn.Parameter(state["logit_scale"])
        self.register_buffer("input_resolution", torch.tensor(224))

    def forward(self, x: Tensor) -> Tensor:
        return self.visual(x) * self.logit_scale


def test_every_way_of_saving_gives_the_same_weights(checkpoint: State, tmp_path: Path) -> None:
    model = Archive(checkpoint)
    state = model.state_dict()
    torch.save(state, tmp_path / "plain.pt")
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "around.pt")
    torch.save({f"module.{name}": value for name, value in state.items()}, tmp_path / "gpus.pt")
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "safe.safetensors")
    with pytest.warns(FutureWarning, match="deprecated"):
        torch.jit.trace(model, torch.zeros(1, 2)).save(str(tmp_path / "script.pt"))
    for path in sorted(tmp_path.iterdir()):
        found = read_state_dict(path)
        assert found.keys() == state.keys(), path
        assert all(torch.equal(found[name], state[name]) for name in state), path
