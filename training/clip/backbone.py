"""The CLIP towers: which there are, how they are built, and where their weights come from."""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import requests
import torch
from torch import Tensor, nn
from torch.nn import functional

from data_manifests.weights.entry import OpenClipSource
from data_manifests.weights.files import WeightsMissingError, find
from data_manifests.weights.registry import load_registry
from labelers.faces import SIDE
from training.backbones.iresnet import IResNet
from training.backbones.mobilefacenet import MobileFaceNet
from training.backbones.names import Backbone
from training.backbones.networks import DIMENSION, build_backbone, fill_backbone
from training.prompts import PROMPTS, tokenize_prompts
from training.trainer.weights import load_strictly, read_state_dict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import ModuleType

logger = logging.getLogger(__name__)

FOLDER = Path(__file__).with_name("configurations")
"""Towers of our own, small enough for a processor, in open_clip's form; the others come with open_clip."""

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
"""Mean of red, green, blue by which OpenAI's CLIP was trained (Radford et al. 2021, released code)."""

CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""Standard deviation of red, green, blue by which OpenAI's CLIP was trained."""

OPENAI_EXTRAS = frozenset({"input_resolution", "context_length", "vocab_size"})
"""What OpenAI's own archives hold beside weights."""

_RECOGNISER = "recogniser"
"""In `vision`: the backbone that is the whole image tower; its embedding is the image's."""
_HALVES = (0.5, 0.5, 0.5)
_NO_VISION = {"image_size": 16, "layers": 1, "width": 8, "head_width": 8, "patch_size": 16}
_ANSWER_SECONDS = 10.0
_TEXT_BATCH = 60
_SMALL_TEXT = {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 4, "layers": 4}
_NO_TEXT = {"context_length": 1, "vocab_size": 1, "width": 8, "heads": 1, "layers": 1}


class ClipConfigError(ValueError):
    """A tower that does not exist, that does not fit its weights, or that this method cannot use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipConfig:
    """What a CLIP model looks like, without its weights.

    Attributes:
        name: how it is called.
        embed_dim: dimension of the embeddings of image and text, K.
        quick_gelu: whether x sigmoid(1.702 x) stands for GELU, as in everything that OpenAI trained.
        vision: open_clip's `vision_cfg`.
        text: open_clip's `text_cfg`.
        custom_text: whether open_clip keeps the text tower's weights under `text.`.
        mean: of red, green and blue from 0 to 1.
        std: of red, green and blue from 0 to 1.
    """

    name: str
    embed_dim: int
    quick_gelu: bool
    vision: Mapping[str, Any]
    text: Mapping[str, Any]
    custom_text: bool = False
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD

    @property
    def image_size(self) -> int:
        """Side of the image that the tower sees, in pixels."""
        size = self.vision.get("image_size", 224)
        return int(size if isinstance(size, int) else size[0])

    def to_json(self) -> dict[str, Any]:
        """As plain values, which `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ClipConfig:
        """The tower of `to_json`."""
        return cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})


def import_open_clip() -> ModuleType:
    """The open_clip package; its import takes ten seconds and more, so it waits until a tower is built."""
    return importlib.import_module("open_clip")


def find_clip_config(name: str) -> ClipConfig:
    """The tower of that name: one of ours in training/clip, or one of open_clip's.

    Raises:
        ClipConfigError: if there is none, or if its text is not read by CLIP's own tokenizer.
    """
    if name in set(Backbone):
        return ClipConfig(
            name=name, embed_dim=DIMENSION, quick_gelu=True, vision={"image_size": SIDE, _RECOGNISER: name},
            text=_SMALL_TEXT, mean=_HALVES, std=_HALVES,
        )  # fmt: skip
    own = FOLDER / f"{name}.json"
    known = sorted(path.stem for path in FOLDER.glob("*.json"))
    config = json.loads(own.read_text()) if name in known else import_open_clip().get_model_config(name)
    if config is None:
        raise ClipConfigError(
            f"there is no tower {name!r}: choose one of {', '.join([*known, *Backbone])}, or of "
            "open_clip.list_models(), such as RN50-quickgelu or ViT-B-32-quickgelu"
        )
    vision, text = config["vision_cfg"], config["text_cfg"]
    if "multimodal_cfg" in config or {"hf_model_name", "hf_tokenizer_name"} & set(text):
        raise ClipConfigError(
            f"the tower {name!r} does not read text by CLIP's tokenizer: choose one that does, such as RN50-quickgelu"
        )
    return ClipConfig(
        name=name,
        embed_dim=config["embed_dim"],
        quick_gelu=bool(config.get("quick_gelu", False)),
        vision={**vision, "timm_model_pretrained": False} if "timm_model_name" in vision else vision,
        text=text,
        custom_text=bool(config.get("custom_text", False)),
    )


def build_clip(tower: ClipConfig, seed: int) -> nn.Module:
    """Both towers with random weights, on the CPU, in evaluation mode; the global random state stays as it was."""
    open_clip = import_open_clip()
    build = open_clip.CustomTextCLIP if tower.custom_text else open_clip.CLIP
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        recogniser = tower.vision.get(_RECOGNISER)
        clip: nn.Module = build(
            tower.embed_dim,
            vision_cfg=dict(_NO_VISION if recogniser else tower.vision),
            text_cfg=dict(tower.text),
            quick_gelu=tower.quick_gelu,
        )
        if recogniser:
            clip.visual = build_backbone(Backbone(recogniser))
    return clip.eval()


def build_image_encoder(tower: ClipConfig) -> nn.Module:
    """The image tower alone, to be filled with weights that were saved."""
    return build_clip(replace(tower, text=_NO_TEXT, custom_text=False), seed=0).get_submodule("visual")


def load_pretrained(clip: nn.Module, tower: ClipConfig, pretrained: str) -> ClipConfig:
    """Fill a model with weights that were trained before.

    Args:
        clip: made by `build_clip`.
        tower: what it looks like.
        pretrained: one of open_clip's tags for this tower, such as `openai`, or a file: a state dict in open_clip's or
            OpenAI's layout (.safetensors, or saved by torch.save), or the archive that OpenAI published. A tag's file
            is looked for among the weights of models.toml, and downloaded when it is not there. For a tower that is a
            recogniser's backbone: what `fill_backbone` reads.

    Returns:
        The tower with the colour statistics of these weights.

    Raises:
        ClipConfigError: if there are no such weights, if they cannot be downloaded, or if they were trained with the
            other kind of GELU.
        WeightsError: if a file cannot be read, or if a weight is missing, left over, or of another shape.
    """
    if isinstance(visual := getattr(clip, "visual", None), IResNet | MobileFaceNet):
        fill_backbone(visual, pretrained)
        return tower
    open_clip = import_open_clip()
    source = open_clip.get_pretrained_cfg(tower.name, pretrained)
    at_hand = find_published(tower.name, pretrained)
    if source:
        _check_activation(tower, quick_gelu=source.get("quick_gelu", False), whose=f"the weights {pretrained!r}")
        tower = replace(tower, mean=tuple(source["mean"]), std=tuple(source["std"]))
        if at_hand is None:
            open_clip.load_checkpoint(clip, _download(source, tower, pretrained))
            return tower
    path = at_hand or Path(pretrained)
    if not path.is_file():
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(tower.name)) or "none"
        raise ClipConfigError(
            f"{pretrained!r} is neither a file nor weights of the tower {tower.name!r} (which has: {tags}); "
            "leave it empty to start from random weights"
        )
    state = read_state_dict(path)
    if OPENAI_EXTRAS & set(state):
        _check_activation(tower, quick_gelu=True, whose=f"OpenAI's weights in {path}")
    load_strictly(clip, {name: value for name, value in state.items() if name not in OPENAI_EXTRAS}, path)
    return tower


def find_published(name: str, tag: str) -> Path | None:
    """The verified file of a tag where models.toml knows it and it is at hand (FIQA_MODELS, or fetched before)."""
    for entry in load_registry().entries.values():
        (file, *_) = entry.files
        if not any(isinstance(s, OpenClipSource) and (s.model, s.tag) == (name, tag) for s in file.sources):
            continue
        with contextlib.suppress(WeightsMissingError):
            return find(entry)[0]
    return None


def _download(source: Mapping[str, Any], tower: ClipConfig, tag: str) -> str:
    """The file of published weights, from open_clip's cache or from where they are published."""
    try:
        with _ask_cache_where_unreachable():
            path: str = import_open_clip().download_pretrained(source)
    except (OSError, RuntimeError) as error:
        raise ClipConfigError(
            f"the weights {tag!r} of {tower.name!r} are not cached and cannot be fetched ({error}): fetch them on "
            "a machine with a connection and name the file instead of the tag"
        ) from error
    return path


@contextlib.contextmanager
def _ask_cache_where_unreachable() -> Iterator[None]:
    """Let huggingface_hub look into its cache alone where its host does not answer; it would try for 45 seconds."""
    constants: Any = importlib.import_module("huggingface_hub.constants")
    before = constants.HF_HUB_OFFLINE
    try:
        requests.head(constants.ENDPOINT, timeout=_ANSWER_SECONDS)
    except requests.RequestException:
        logger.warning("%s does not answer: what was fetched from there before has to do", constants.ENDPOINT)
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _check_activation(tower: ClipConfig, *, quick_gelu: bool, whose: str) -> None:
    """Refuse what open_clip only warns of: the text features would be those of another model."""
    if quick_gelu != tower.quick_gelu:
        kinds = ("GELU", "QuickGELU")
        base = tower.name.removesuffix("-quickgelu")
        raise ClipConfigError(
            f"{whose} were trained with {kinds[quick_gelu]}, but the tower {tower.name!r} computes "
            f"{kinds[tower.quick_gelu]}: name the tower {base + '-quickgelu' if quick_gelu else base!r}"
        )


@torch.no_grad()
def encode_prompts(clip: nn.Module, tower: ClipConfig) -> Tensor:
    """The text tower's embeddings of the 360 prompts, of unit length: float32 [360, K]."""
    tokens = tokenize_prompts(int(tower.text.get("context_length", 77)))  # [360, 77]
    encode = cast("Callable[[Tensor], Tensor]", clip.encode_text)
    features = torch.cat([encode(part).float() for part in torch.split(tokens, _TEXT_BATCH)])  # [360, K]
    if features.shape != (len(PROMPTS), tower.embed_dim):
        given = list(features.shape)
        raise ClipConfigError(f"the text tower of {tower.name!r} gives {given} instead of one row a prompt")
    return functional.normalize(features, dim=-1)
