"""What the server says of itself."""

from typing import Any, NamedTuple

import warmline
from warmline.paths import public_name
from warmline.safety.crisis import COUNTRIES
from warmline.serving.engine import LONGEST_REPLY, Engine
from warmline.serving.schema import MOST_MESSAGES

NOTICE = (
    "You are talking to an AI: a language model tuned to listen. It is not a person and not a therapist, it can be wrong, and it cannot "
    "call anyone for you. If you or somebody else is in danger, contact your local emergency services."
)
COUNTRY_NAMES = {
    "US": "United States", "CA": "Canada", "GB": "United Kingdom", "IE": "Ireland", "AU": "Australia", "NZ": "New Zealand", "IN": "India",
    "DE": "Germany", "FR": "France", "ES": "Spain", "NL": "Netherlands",
}  # fmt: skip


class Limits(NamedTuple):
    """What one request may ask for.

    Attributes:
        body_bytes: Longest body.
        body_seconds: Longest time that sending it may take.
        message_characters: Longest message.
        max_tokens: Longest reply that may be asked for.
    """

    body_bytes: int = 2**20
    body_seconds: float = 30.0
    message_characters: int = 20_000
    max_tokens: int = 1024


def about(engine: Engine, limits: Limits, country: str | None, needs_key: bool) -> dict[str, Any]:
    """Everything that a page needs to introduce the model.

    Args:
        engine: Who answers.
        limits: Of a request.
        country: Whose hotlines are shown where a request names none.
        needs_key: Whether `/v1` asks for an API key.
    """
    return {
        "warmline": warmline.__version__,
        "run": engine.name,
        "base_model": public_name(engine.base_model).removeprefix("./"),
        "models": {"tuned": engine.tuned_id, "base": engine.base_id},
        "emotions": list(engine.labels.get("emotion", ())),
        "strategies": list(engine.labels.get("strategy", ())),
        "country": country,
        "countries": [{"code": code, "name": COUNTRY_NAMES[code]} for code in sorted(COUNTRIES, key=lambda code: COUNTRY_NAMES[code])],
        "limits": {
            **limits._asdict(),
            "messages": MOST_MESSAGES,
            "context_tokens": engine.context,
            "default_max_tokens": LONGEST_REPLY,
            "slots": engine.slots,
        },
        "needs_key": needs_key,
        "notice": NOTICE,
    }
