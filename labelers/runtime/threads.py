"""Threads that each make matrix products of their own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from threadpoolctl import ThreadpoolController

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

A = TypeVar("A")
T = TypeVar("T")


def processor_threads() -> int:
    """How many threads a matrix product may use, as the environment says."""
    libraries = ThreadpoolController().select(user_api="blas").info()
    return max((int(library["num_threads"]) for library in libraries), default=1)


def map_products(work: Callable[[A], T], items: Iterable[A], threads: int) -> Iterator[T]:
    """Do work that multiplies matrices for all items, on so many threads; what comes of it in the items' order.

    A thread of its own for each item, rather than several on one product, also divides what is not a product, and no
    thread waits for another within a product.
    """
    if threads == 1:
        yield from map(work, items)
        return
    with (
        ThreadpoolController().limit(limits=1, user_api="blas"),
        ThreadPoolExecutor(threads) as executor,
    ):
        yield from executor.map(work, items)
