"""Numbers in words: formatting, and prose that cannot say more than its interval does."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

Better = Literal["higher", "lower"]
Format = Callable[[float], str]

NOTHING = "\u2013"
"""What stands where nothing was measured: an en dash."""

NO_INTERVAL = "no interval, so nothing follows from it"


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many decimals, as a power of ten when they would all be 0; a dash where it was not measured."""
    if value is None:
        return NOTHING
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.1e}" if 0 < abs(value) < 0.5 * 10**-digits else f"{value:,.{digits}f}"


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage."""
    return NOTHING if value is None else f"{value * 100:.{digits}f} %"


def hundredths(value: float) -> str:
    """A share, or a difference of shares, times 100, without its unit."""
    return f"{value * 100:.1f}"


def tenths(value: float | None) -> str:
    """A number with one decimal."""
    return number(value, 1)


def whole(value: float | None) -> str:
    """A number without decimals."""
    return number(value, 0)


def between(interval: Sequence[float] | None, form: Format) -> str:
    """Both ends of an interval."""
    if interval is None:
        return "no interval"
    low, high = interval
    return f"{form(low)} to {form(high)}"


def with_interval(value: float | None, interval: Sequence[float] | None, form: Format) -> str:
    """A number and its interval, as a cell of a table."""
    if value is None:
        return NOTHING
    return f"{form(value)} ({between(interval, form)})" if interval is not None else form(value)


def share(found: Mapping[str, Any] | None, hits: str, total: int | str, interval: str) -> str:
    """A counted share: `3 of 20, 15.0 % (5.2 % to 36.0 %)`.

    Args:
        found: Holds the count, the share and its interval; None where nothing was counted.
        hits: Key of the count.
        total: How many there were, or the key of that.
        interval: Key of the interval.
    """
    if found is None:
        return NOTHING
    of = found[total] if isinstance(total, str) else total
    return f"{number(found[hits])} of {number(of)}, {with_interval(found['share'], found[interval], percent)}"


def verdict(
    difference: float | None, interval: Sequence[float] | None, better: Better | None = None, form: Format = number, unit: str = ""
) -> str:
    """What a difference and its 95 % interval allow to be said.

    Args:
        difference: Tuned minus base, or variant minus full; None where it was not measured.
        interval: Its ends; None where there is none.
        better: Which way is better; None where that depends on what is wanted.
        form: Formats a number.
        unit: Stands behind the difference, with its space.

    Returns:
        `lower by 0.12 (95 % interval 0.05 to 0.19), which is better`; `no measurable difference (...)` when the interval holds 0 or lies
        on the other side of it than the difference; and without an interval, that nothing follows.
    """
    if difference is None:
        return "not measured"
    if interval is None:
        return f"{signed(difference, form)}{unit}, {NO_INTERVAL}"
    low, high = interval
    direction: Better = "higher" if difference > 0 else "lower"
    if difference == 0 or not differs(interval) or (low > 0) != (direction == "higher"):
        return f"no measurable difference ({signed(difference, form)}{unit}, 95 % interval {signed(low, form)} to {signed(high, form)})"
    judged = "" if better is None else ", which is better" if better == direction else ", which is worse"
    return f"{direction} by {form(abs(difference))}{unit} (95 % interval {between(sorted((abs(low), abs(high))), form)}){judged}"


def ratio_verdict(ratio: float, interval: Sequence[float] | None, better: Better | None = None) -> str:
    """`verdict` of a ratio, as the percentage by which it is above or below 1."""
    return verdict(ratio - 1, interval and [end - 1 for end in interval], better, hundredths, " %")


def signed(value: float, form: Format = number) -> str:
    """A difference with its sign."""
    return f"{'-' if value < 0 else '+'}{form(abs(value))}"


def differs(interval: Sequence[float] | None) -> bool:
    """Whether an interval of a difference leaves 0 out."""
    return interval is not None and not interval[0] <= 0 <= interval[1]


def quoted(text: str, most: int = 600) -> str:
    """Somebody's words on one line, so that nothing in them becomes markup of the report; very long ones are cut, and say so."""
    line = " ".join(text.split()) or "(empty)"
    if len(line) > most:
        line = f"{line[:most]} ... ({len(text):,} characters)"
    for mark in "\\`*_[]|~$":
        line = line.replace(mark, f"\\{mark}")
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def cell(text: Any) -> str:
    """A text inside a table."""
    return " ".join(str(text).split()).replace("|", "\\|")


def likeliest(probabilities: Mapping[str, float]) -> str:
    """Labels with their probabilities, as they come."""
    return ", ".join(f"{name} {percent(probability, 0)}" for name, probability in probabilities.items())
