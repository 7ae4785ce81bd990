"""Hotlines by country. A model never supplies a number: it writes a slot, and this dated table fills it.

The rows were written down in `written`, from general knowledge and without looking at the services' own pages; `source` is where to
verify one before relying on it. `findahelpline.com`, which keeps a current list for most countries, stands for every country without a row.
"""

import re
from dataclasses import dataclass

SLOT = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True, slots=True)
class CrisisResources:
    """What to offer in one country.

    Attributes:
        country: ISO 3166 alpha-2 code, or `any`.
        crisis_line: A free emotional crisis service, as a phrase that fits in a sentence.
        emergency_number: The ambulance and police number, as a phrase that fits in a sentence.
        source: Where the row can be verified.
        written: Year and month the row was written down; it has not been verified since.
    """

    country: str
    crisis_line: str
    emergency_number: str
    source: str
    written: str


_988 = "the 988 Suicide & Crisis Lifeline (call or text 988)"
_SAMARITANS = "Samaritans (call 116 123, free, day and night)"

ANYWHERE = CrisisResources(
    "any",
    "a free crisis line near you (findahelpline.com lists them)",
    "your local emergency number",
    "findahelpline.com",
    "2026-11",
)
COUNTRIES: dict[str, CrisisResources] = {
    row.country: row
    for row in (
        CrisisResources("US", _988, "911", "988lifeline.org", "2026-11"),
        CrisisResources("CA", "9-8-8, the Suicide Crisis Helpline (call or text 988)", "911", "988.ca", "2026-11"),
        CrisisResources("GB", _SAMARITANS, "999", "samaritans.org", "2026-11"),
        CrisisResources("IE", _SAMARITANS, "112 or 999", "samaritans.org/ireland", "2026-11"),
        CrisisResources("AU", "Lifeline (call 13 11 14)", "000", "lifeline.org.au", "2026-11"),
    )
}
SLOTS: tuple[str, ...] = ("crisis_line", "emergency_number")


def resources(country: str | None) -> CrisisResources:
    """The row of a country, or the row for anywhere when the country is unknown or has none.

    Args:
        country: ISO 3166 alpha-2 code in any case, `UK` for GB, or None.
    """
    code = (country or "").upper()
    return COUNTRIES.get({"UK": "GB"}.get(code, code), ANYWHERE)


def fill_slots(text: str, country: str | None = None) -> str:
    """Replace `{crisis_line}` and `{emergency_number}` by the country's phrases; other braces stay as they are."""
    row = resources(country)
    return text.replace("{crisis_line}", row.crisis_line).replace("{emergency_number}", row.emergency_number)


def unknown_slots(text: str) -> list[str]:
    """Slots in a text that `fill_slots` would leave unfilled."""
    return [name for name in SLOT.findall(text) if name not in SLOTS]
