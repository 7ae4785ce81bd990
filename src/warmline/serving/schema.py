"""What a chat request may hold: OpenAI's fields that mean something here, and one of ours."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from warmline.serving.engine import Generation

MOST_MESSAGES = 500
HARMLESS = (
    "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "parallel_tool_calls",
    "reasoning_effort", "verbosity", "prediction",
)  # fmt: skip
"""Fields of OpenAI's API that clients send and that change nothing here."""
REFUSED = {
    "tools": "this model calls no tools",
    "tool_choice": "this model calls no tools",
    "functions": "this model calls no functions",
    "function_call": "this model calls no functions",
    "response_format": "replies are plain text",
    "logit_bias": "tokens cannot be weighted",
    "logprobs": "probabilities of tokens are not given",
    "top_logprobs": "probabilities of tokens are not given",
    "frequency_penalty": "there are no penalties",
    "presence_penalty": "there are no penalties",
    "audio": "text only",
    "modalities": "text only",
    "web_search_options": "this model searches nothing",
}
"""Fields that would change the reply, and why they cannot; unset, empty and zero are let through."""
_IN_MESSAGE = ("refusal", "annotations", "audio", "tool_calls", "function_call")
_SOMETHING = r"[^\s\x1c-\x1f\x85]"  # what Python calls white space is more than a schema's \s
_TEXT = {"type": {"type": "string", "const": "text"}, "text": {"type": "string", "pattern": _SOMETHING}}


def _joined(content: Any) -> Any:
    """Text as it is; a list of text parts as one text."""
    if not isinstance(content, list):
        return content
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            kind = part.get("type") if isinstance(part, dict) else None
            raise ValueError(f"only text can be read, not a part of type {kind!r}")
    return "\n".join(part["text"] for part in content)


def _in_unicode(content: Any) -> Any:
    if isinstance(content, str) and any("\ud800" <= character <= "\udfff" for character in content):
        raise ValueError("half a surrogate pair is no text")
    return content


def _whole(number: Any) -> Any:
    """JSON Schema calls 3.0 an integer."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


Content = Annotated[
    str,
    BeforeValidator(_in_unicode),
    BeforeValidator(_joined),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": _SOMETHING},
                {"type": "array", "minItems": 1, "items": {"type": "object", "properties": _TEXT, "required": ["type", "text"]}},
            ]
        }
    ),
]
Finite = Field(allow_inf_nan=False)


Whole = BeforeValidator(_whole)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ChatMessage(_Strict):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Content
    name: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_empty(cls, data: Any) -> Any:
        """What the openai client's own messages carry when they are sent back."""
        return _without(data, [name for name in _IN_MESSAGE if isinstance(data, dict) and not data.get(name)])


class StreamOptions(_Strict):
    """What a stream carries besides text."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class WarmlineOptions(_Strict):
    """Ours."""

    country: Annotated[str, Field(pattern="^[A-Za-z]{2}$", description="ISO 3166 code: whose hotlines are shown.")] | None = None
    crisis_message: Literal["inline", "card"] = Field(
        "inline", description="Where the guard's message goes: into the content, or only into `warmline.risk.message`."
    )


class ChatRequest(_Strict):
    """OpenAI's chat completion request, as far as it means something here."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MOST_MESSAGES)]
    model: str | None = Field(None, description="An id of /v1/models; the tuned model by default.")
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1), Whole] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1), Whole] | None = None
    temperature: Annotated[float, Field(ge=0, le=2), Finite] | None = None
    top_p: Annotated[float, Field(gt=0, le=1), Finite] | None = None
    min_p: Annotated[float, Field(ge=0, le=1), Finite] | None = None
    seed: Annotated[int, Field(description="The same reply again; counts modulo 2 to the 63rd."), Whole] | None = None
    stop: (
        Annotated[str, Field(min_length=1, max_length=200)]
        | Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], Field(max_length=4)]
        | None
    ) = None
    n: Annotated[int, Field(ge=1, le=1, description="One reply a request."), Whole] | None = None
    warmline: WarmlineOptions = WarmlineOptions()

    @model_validator(mode="before")
    @classmethod
    def _known_fields(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        messages = data.get("messages")
        if isinstance(messages, list) and len(messages) > MOST_MESSAGES:  # before each of them is looked at
            raise ValueError(f"{len(messages)} messages, expected at most {MOST_MESSAGES}")
        for name, reason in REFUSED.items():
            if data.get(name):
                raise ValueError(f"`{name}` is not supported: {reason}")
        return _without(data, [*HARMLESS, *REFUSED])

    @property
    def generation(self) -> Generation:
        """How the reply is made; what is not given is `Generation`'s own."""
        given: dict[str, Any] = {
            "max_tokens": self.max_completion_tokens or self.max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "min_p": self.min_p,
            "seed": None if self.seed is None else self.seed % 2**63,
            "stop": (self.stop,) if isinstance(self.stop, str) else self.stop and tuple(self.stop),
        }
        return Generation()._replace(**{name: value for name, value in given.items() if value is not None})


def _without(data: Any, names: list[str]) -> Any:
    return {key: value for key, value in data.items() if key not in names} if isinstance(data, dict) else data
