"""The 360 sentences that CLIB-FIQA compares a face with, and their tokens."""

from __future__ import annotations

import importlib
import itertools
from typing import TYPE_CHECKING

from data_manifests.tables.stages import CLASSES, QUALITY_CLASSES, Factor

if TYPE_CHECKING:
    from torch import Tensor

FACTOR_SIZES = tuple(len(CLASSES[factor]) for factor in Factor)
"""Classes of every factor, in the order of `Factor`: (3, 2, 3, 2, 2)."""

JOINT_SIZES = (*FACTOR_SIZES, len(QUALITY_CLASSES))
"""The axes of the joint distribution: blur, occlusion, pose, expression, lighting, quality."""

CONTEXT = 77
"""Tokens of a text, as CLIP was trained."""


TEMPLATE = (
    "a photo of a {blur}, {occlusion}, and {pose} face with {expression} under {lighting}, "
    "which is of {quality} quality"
)
"""The sentence, in the order of words of CLIB-FIQA's Figure 2 and released code."""

PROMPTS = tuple(
    TEMPLATE.format(**dict(zip((*Factor, "quality"), words, strict=True)))
    for words in itertools.product(*(CLASSES[factor] for factor in Factor), QUALITY_CLASSES)
)
"""All sentences (CLIB-FIQA section 3.1): the last axis of `JOINT_SIZES` runs fastest, the first sentence is worst."""


def tokenize_prompts(context: int = CONTEXT) -> Tensor:
    """The tokens of every sentence by CLIP's own lower-cased byte pair encoding.

    Args:
        context: tokens of a text that the tower reads.

    Returns:
        int64 [360, context].

    Raises:
        ValueError: if a sentence does not fit.
    """
    tokenizer = importlib.import_module("open_clip").SimpleTokenizer()
    longest = max(len(tokenizer.encode(prompt)) for prompt in PROMPTS) + 2  # with the start and the end of text
    if longest > context:
        raise ValueError(f"the prompts take {longest} tokens, but the text tower reads {context}: choose another tower")
    tokens: Tensor = tokenizer(list(PROMPTS), context_length=context)
    return tokens
