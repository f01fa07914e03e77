"""Colours that are told apart by people of any colour vision, on light and on dark paper."""

from __future__ import annotations

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Of Okabe and Ito (Color Universal Design, 2008), less black and yellow."""

GREY = "#808080"
