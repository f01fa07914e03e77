"""How many threads may read and decode."""

from __future__ import annotations

import os

MOST_READERS = 8
"""Beyond this many threads even a GPU that learns 20,000 images a second does not wait for them."""


def share_of_cores() -> int:
    """The cores that this process may use, shared out among the processes of this machine; 1 to 8.

    torchrun says in LOCAL_WORLD_SIZE how many processes it starts here.
    """
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(MOST_READERS, len(os.sched_getaffinity(0)) // processes))
