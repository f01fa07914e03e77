"""Denormal numbers are zero for the threads that compute, and only for them."""

from __future__ import annotations

import platform
import subprocess
import sys
import threading

import numpy as np
import pytest

from labelers.runtime.denormals import flush_denormals, flushes_denormals

pytestmark = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "aarch64"), reason="no switch is known for this kind of processor"
)

SMALL = 1e-39
"""Denormal in float32."""


def is_zero() -> bool:
    """Whether this thread's arithmetic takes a denormal number for zero."""
    return not np.any(np.full(64, SMALL, np.float32) * np.float32(1.0))


def test_within_the_block_denormals_are_zero_and_then_as_before() -> None:
    assert not flushes_denormals()
    assert not is_zero()
    with flush_denormals():
        assert flushes_denormals()
        assert is_zero()
        with flush_denormals():
            assert is_zero()
        assert is_zero()
    assert not flushes_denormals()
    assert not is_zero()


def test_double_precision_too() -> None:
    with flush_denormals():
        assert not np.any(np.full(64, 1e-310) * 1.0)


def test_an_error_puts_the_switch_back() -> None:
    with pytest.raises(KeyError), flush_denormals():
        raise KeyError
    assert not is_zero()


def test_threads_started_within_take_it_over_and_others_do_not() -> None:
    found: dict[str, bool] = {}

    def look(name: str, go: threading.Event) -> None:
        go.wait(5)
        found[name] = is_zero()

    go = threading.Event()
    before = threading.Thread(target=look, args=("before", go))
    before.start()
    with flush_denormals():
        within = threading.Thread(target=look, args=("within", go))
        within.start()
        go.set()
        before.join()
        within.join()
    assert found == {"before": False, "within": True}


def test_every_thread_of_pytorch_takes_it_over() -> None:
    code = f"""
import torch
from labelers.runtime.denormals import flush_denormals
torch.set_num_threads(4)
with flush_denormals():
    assert not (torch.full((1 << 22,), {SMALL}) * 1.0).any()
"""
    subprocess.run([sys.executable, "-c", code], check=True)
