"""Hotlines by country. A model never supplies a number: it writes a slot, and this dated table fills it.

Each row says when it was written, when its numbers were last found on a public page, and on which pages. "Found" means a stored copy of
that page, read on that day: the service itself was not rung, and the copy may be older than the day. `source` is where to verify a row
again before relying on it. `findahelpline.com`, which keeps a current list for most countries, stands for every country without a row.
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
        source: Where the row can be verified again: the service's own site.
        written: Year and month the row was written down.
        verified: Day on which both numbers were found on `pages`; None for a row that nobody has verified.
        pages: The pages they were found on, stored copies of them.
    """

    country: str
    crisis_line: str
    emergency_number: str
    source: str
    written: str
    verified: str | None
    pages: tuple[str, ...]


ANYWHERE = CrisisResources(
    "any",
    "a free crisis line near you (findahelpline.com lists them)",
    "your local emergency number",
    "findahelpline.com",
    "2026-11",
    "2026-11-22",
    ("findahelpline.com/AU", "lifeline-international.com/from-idea-to-impact-how-throughline-is-bridging-the-gap-in-global-crisis-support"),
)

_SAMARITANS = "Samaritans (call 116 123, free, day and night)"
_SAMARITANS_PAGE = "samaritans.org/how-we-can-help/contact-samaritan"
_EENA = "eena.org/knowledge-hub/news/three-digit-number-save-your-life"  # 112 in the EU and India, 999 in the UK, 15 in France
_WRITTEN, _VERIFIED = "2026-11", "2026-11-22"


def _row(country: str, crisis_line: str, emergency_number: str, source: str, *pages: str) -> CrisisResources:
    return CrisisResources(country, crisis_line, emergency_number, source, _WRITTEN, _VERIFIED, pages)


COUNTRIES: dict[str, CrisisResources] = {
    row.country: row
    for row in (
        _row(
            "US", "the 988 Suicide & Crisis Lifeline (call or text 988)", "911", "988lifeline.org",
            "mcphs.edu/student-life/counseling-services/emergency-services/988-suicide-and-crisis-lifeline", "contactlistens.org/get-help",
        ),
        _row(
            "CA", "9-8-8, the Suicide Crisis Helpline (call or text 988)", "911", "988.ca",
            "mentalhealthcommission.ca/catalyst/988-launches-in-canada", "cmhasaskatoon.ca/9-8-8",
        ),
        _row("GB", _SAMARITANS, "999", "samaritans.org", _SAMARITANS_PAGE, _EENA),
        _row(
            "IE", _SAMARITANS, "112 or 999", "samaritans.org/ireland",
            "irishhealthpro.com/content/news/show/name/big-jump-in-calls-to-samaritans-since-2014",
            "www2.hse.ie/emergencies/when-to-call-112-or-999",
        ),
        _row("AU", "Lifeline (call 13 11 14)", "000", "lifeline.org.au", "lifelineh2h.org.au/get-help/telephone-crisis-support/faqs"),
        _row(
            "NZ", "Need to talk? (call or text 1737, free, day and night)", "111", "1737.org.nz",
            "pegasus.health.nz/?p=6300", "nzherald.co.nz/nz/news/article.cfm?objectid=11898163",
        ),
        _row(
            "IN", "Tele-MANAS (call 14416, free)", "112", "telemanas.mohfw.gov.in",
            "livemint.com/news/india/govts-mental-health-helpline-tele-manas-receives-over-2-lakh-calls-since-launch-11690014660473.html",
            _EENA,
        ),
        _row(
            "DE", "TelefonSeelsorge (call 0800 1110111, free, day and night)", "112", "telefonseelsorge.de",
            "domradio.de/glossar/telefonseelsorge-0", _EENA,
        ),
        _row(
            "FR", "the 3114 suicide prevention line (call 3114, free, day and night)", "15 or 112", "3114.fr",
            "3114.fr/que-se-passe-t-il-quand-je-contacte-le-3114", "mayotte.ars.sante.fr/3114-le-numero-national-de-prevention-du-suicide",
            _EENA,
        ),
        _row(
            "ES", "the 024 suicide line (call 024, free, day and night)", "112", "sanidad.gob.es",
            "rtve.es/noticias/20220509/sanidad-presenta-telefono-prevencion-suicidio/2347183.shtml",
            "elnacional.cat/es/sociedad/telefono-024-detecta-585-suicidios-curso-primeros-meses-funcionamiento_852759_102.html",
        ),
        _row(
            "NL", "113 Zelfmoordpreventie (call 113 or 0800-0113, free)", "112", "113.nl",
            "upday.com/nl/binnenland/nummer-113-nu-gratis-betere-hulp-bij-zelfdodingsgedachten/pj8neqt", _EENA,
        ),
    )
}  # fmt: skip
SLOTS: tuple[str, ...] = ("crisis_line", "emergency_number")
_NUMBER = re.compile(r"\d[\d -]*\d|\d")


def resources(country: str | None) -> CrisisResources:
    """The row of a country, or the row for anywhere when the country is unknown or has none.

    Args:
        country: ISO 3166 alpha-2 code in any case, `UK` for GB, or None.
    """
    code = (country or "").upper()
    return COUNTRIES.get({"UK": "GB"}.get(code, code), ANYWHERE)


def numbers(row: CrisisResources) -> frozenset[str]:
    """Digits of every number that the row offers, such as `116123` and `999`."""
    return frozenset(re.sub(r"\D", "", found) for found in _NUMBER.findall(f"{row.crisis_line} {row.emergency_number}"))


def fill_slots(text: str, country: str | None = None) -> str:
    """Replace `{crisis_line}` and `{emergency_number}` by the country's phrases; other braces stay as they are."""
    row = resources(country)
    return text.replace("{crisis_line}", row.crisis_line).replace("{emergency_number}", row.emergency_number)


def unknown_slots(text: str) -> list[str]:
    """Slots in a text that `fill_slots` would leave unfilled."""
    return [name for name in SLOT.findall(text) if name not in SLOTS]
