"""The 360 sentences and their tokens."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from data_manifests.tables.stages import CLASSES, QUALITY_CLASSES, Factor
from training.prompts import FACTOR_SIZES, JOINT_SIZES, PROMPTS, tokenize_prompts

if TYPE_CHECKING:
    from pathlib import Path


def test_prompts_are_those_of_the_released_code(real_data: Path) -> None:
    assert list(PROMPTS) == json.loads((real_data / "oracles/losses/prompts.json").read_text())


def test_first_prompt_is_worst_and_last_is_best() -> None:
    assert PROMPTS[0] == (
        "a photo of a hazy, obstructed, and profile face with exaggerated expression under extreme lighting, "
        "which is of bad quality"
    )
    assert PROMPTS[-1] == (
        "a photo of a clear, unobstructed, and frontal face with typical expression under normal lighting, "
        "which is of perfect quality"
    )


def test_every_class_stands_where_the_axes_say() -> None:
    assert FACTOR_SIZES == (3, 2, 3, 2, 2)
    assert len(set(PROMPTS)) == math.prod(JOINT_SIZES) == 360
    words = [*(CLASSES[factor] for factor in Factor), QUALITY_CLASSES]
    for index, prompt in enumerate(PROMPTS):
        place = np.unravel_index(index, JOINT_SIZES)
        parts = [names[i] for names, i in zip(words, place, strict=True)]
        found = [prompt.index(part) for part in (parts[0] + ",", parts[1] + ",", parts[2] + " face", *parts[3:])]
        assert found == sorted(found)


def test_tokens_are_those_of_the_released_code(real_data: Path) -> None:
    oracle = np.load(real_data / "oracles/losses/prompt_tokens.npz")
    tokens = tokenize_prompts().numpy()
    np.testing.assert_array_equal(tokens, oracle["tokens"])
    np.testing.assert_array_equal(tokens.argmax(-1), oracle["eot"])


def test_a_text_tower_that_would_cut_the_prompts_is_refused() -> None:
    longest = 1 + int(tokenize_prompts().argmax(-1).max())
    assert tokenize_prompts(longest).shape == (360, longest)
    with pytest.raises(ValueError, match=f"take {longest} tokens, but the text tower reads {longest - 1}"):
        tokenize_prompts(longest - 1)
