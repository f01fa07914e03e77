"""Whether the rows of a recogniser's last layer are the centres of a data set's people."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from labelers.anchors.copies import are_alike
from labelers.anchors.head import HeadError
from labelers.anchors.similarities import measure_anchors

if TYPE_CHECKING:
    from pathlib import Path

    from labelers.anchors.centres import Centres
    from labelers.anchors.nearest import CentreSearch

FEWEST = 4
"""Of fewer people chance is not told from a right head."""


def require_fit(path: Path, means: Centres, search: CentreSearch) -> None:
    """Refuse a head whose rows are no nearer to their own people than rows in any order would be.

    A person is found where the mean of its embeddings is nearer to its own row than to any other. Of P people and C
    rows chance finds P / C, and hardly ever three times the root of that more.

    Args:
        path: of the head, for the message.
        means: of some people of the data set.
        search: of the head's rows.

    Raises:
        HeadError: if it finds so few, and fewer than half. A recogniser that gives all people nearly the same embedding
            is no fault of the head's.
        IdentityError: if a person has no row.
    """
    people = len(means)
    if people < FEWEST:
        return
    measures = measure_anchors(means.sums, means.identities, search).columns
    found = int(np.count_nonzero(measures["ccs"] > measures["nnccs"]))
    chance = people / len(search.centres)
    fits = 2 * found >= people or found > chance + 3 * math.sqrt(chance)
    if not fits and not are_alike(means.sums):
        raise HeadError(
            f"{path}: its rows are not the centres of these people: {found:,} of {people:,} are nearest to their own "
            "row, as by chance; take the head that was trained with this recogniser on this data set, its rows in the "
            "order of the table `identities`, or set centres = mean"
        )
