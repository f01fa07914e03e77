"""Times as a person says them."""

from __future__ import annotations


def describe_time_left(seconds: float) -> str:
    """A time left, in whole seconds or minutes.

    >>> describe_time_left(45), describe_time_left(240), describe_time_left(7500)
    ('45 s', '4 min', '2 h 5 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def describe_time_taken(seconds: float) -> str:
    """A time taken; a short one with a digit more.

    >>> describe_time_taken(0.42)
    '0.4 s'
    """
    return f"{seconds:.1f} s" if seconds < 10 else describe_time_left(seconds)
