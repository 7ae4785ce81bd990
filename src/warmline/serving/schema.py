"""What a chat request may hold: OpenAI's fields that mean something here, and one of ours."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, field_validator, model_validator

from warmline.errors import refuse_half_characters
from warmline.serving.engine import Generation

MOST_MESSAGES = 500
MOST_STOPS = 16
LONGEST_STOP = 200
_NO_EFFECT: dict[str, dict[str, list[Any]]] = {
    "this model calls no tools": {
        "tools": [[]], "tool_choice": ["none", "auto"], "functions": [[]], "function_call": ["none", "auto"],
    },
    "this model searches nothing": {"web_search_options": []},
    "text only": {"audio": [], "modalities": [["text"]]},
    "replies are plain text of any form": {
        "response_format": [{"type": "text"}], "structured_outputs": [], "guided_json": [], "guided_regex": [], "guided_choice": [],
        "guided_grammar": [], "grammar": [""], "json_schema": [], "format": [""],
    },
    "probabilities of tokens are not given": {"logprobs": [False], "top_logprobs": [0]},
    "tokens cannot be weighted": {"logit_bias": [{}, []]},
    "one reply a request": {"n": [1], "best_of": [1], "use_beam_search": [False]},
    "there are no penalties": {
        "frequency_penalty": [0], "presence_penalty": [0], "repetition_penalty": [1], "repeat_penalty": [1], "dry_multiplier": [0],
    },
    "tokens are drawn by temperature, top_p and min_p alone": {
        "top_k": [0, -1], "top_a": [0], "typical_p": [1], "tfs_z": [1], "xtc_probability": [0], "dynatemp_range": [0], "mirostat": [0],
    },
    "a reply ends where the model ends it": {"min_tokens": [0], "ignore_eos": [False], "echo": [False]},
}  # fmt: skip
UNSUPPORTED = {name: (reason, neutral) for reason, fields in _NO_EFFECT.items() for name, neutral in fields.items()}
"""Fields of OpenAI's API, vLLM's and llama.cpp's that would change the reply: why they cannot, and what, beside null, asks for nothing."""


def _joined(content: Any) -> Any:
    """Text as it is; a list of text parts as one text, nothing as an empty one."""
    if not isinstance(content, list):
        return "" if content is None else content
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            kind = part.get("type") if isinstance(part, dict) else None
            raise ValueError(f"only text can be read, not a part of type {_in_json(kind)}")
    return "\n".join(part["text"] for part in content)


def _in_unicode(content: Any) -> Any:
    if isinstance(content, str):
        refuse_half_characters(content)
    return content


def _whole(number: Any) -> Any:
    """JSON Schema calls 3.0 an integer."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


def _listed(stop: Any) -> Any:
    """One text as a list of it; empty ones stop nothing."""
    texts = [stop] if isinstance(stop, str) else stop
    fits = isinstance(texts, list) and all(isinstance(text, str) and len(text) <= LONGEST_STOP for text in texts)
    if not fits or len(texts) > MOST_STOPS:
        raise ValueError(
            f"got {_in_json(stop)}, expected a text or a list of at most {MOST_STOPS}, each of at most {LONGEST_STOP} characters"
        )
    return [text for text in texts if text]


_TEXT = {"type": {"type": "string", "const": "text"}, "text": {"type": "string"}}
_PARTS = {"type": "array", "items": {"type": "object", "properties": _TEXT, "required": ["type", "text"]}}
Content = Annotated[
    str,
    BeforeValidator(_in_unicode),
    BeforeValidator(_joined),
    WithJsonSchema({"anyOf": [{"type": "string"}, _PARTS, {"type": "null"}]}),
]
_STOP = {"type": "string", "maxLength": LONGEST_STOP}
Stops = Annotated[
    list[str], BeforeValidator(_listed), WithJsonSchema({"anyOf": [_STOP, {"type": "array", "items": _STOP, "maxItems": MOST_STOPS}]})
]
Finite = Field(allow_inf_nan=False)
Whole = BeforeValidator(_whole)
Longest = Annotated[int, Field(ge=-1, description="Of the reply; 0 and -1 are the server's own, and so is all beyond its limit."), Whole]


class _Read(BaseModel):
    """What is not known is left unread, as clients send much that concerns others."""

    model_config = ConfigDict(extra="ignore", strict=True)


class ChatMessage(_Read):
    """One turn; clients send empty ones back, such as a reply that was stopped before its first word."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Content = ""


class StreamOptions(_Read):
    """What a stream carries besides text."""

    include_usage: bool | None = None


class WarmlineOptions(BaseModel):
    """Ours."""

    model_config = ConfigDict(extra="forbid", strict=True)

    country: Annotated[str, Field(pattern="^[A-Za-z]{2}$", description="ISO 3166 code: whose hotlines are shown.")] | None = None
    crisis_message: Literal["inline", "card"] = Field(
        "inline", description="Where the guard's message goes: into the content, or only into `warmline.risk.message`."
    )


def _publish(schema: dict[str, Any]) -> None:
    for name, (reason, neutral) in UNSUPPORTED.items():
        schema["properties"][name] = {"enum": [None, *neutral], "description": f"Of no effect: {reason}."}


class CompletionRequest(_Read):
    """OpenAI's chat completion request, as far as it means something here."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_publish)

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MOST_MESSAGES)]
    model: str | None = Field(None, description="An id of /v1/models; the tuned model by default.")
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Longest | None = None
    max_completion_tokens: Longest | None = None
    temperature: Annotated[float, Field(ge=0, le=2), Finite] | None = None
    top_p: Annotated[float, Field(gt=0, le=1), Finite] | None = None
    min_p: Annotated[float, Field(ge=0, le=1), Finite] | None = None
    seed: Annotated[int, Field(description="The same reply again; counts modulo 2 to the 63rd, and -1 is chance."), Whole] | None = None
    stop: Stops | None = None
    warmline: WarmlineOptions = WarmlineOptions()

    @model_validator(mode="before")
    @classmethod
    def _check_fields(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        messages = data.get("messages")
        if isinstance(messages, list) and len(messages) > MOST_MESSAGES:  # before each of them is looked at
            raise ValueError(f"{len(messages)} messages, expected at most {MOST_MESSAGES}")
        for name, (reason, neutral) in UNSUPPORTED.items():
            if name in data and not any(_same(data[name], value) for value in (None, *neutral)):
                least = f", or send {' or '.join(json.dumps(value) for value in neutral)}" if neutral else ""
                raise ValueError(f"`{name}` is not supported, and is {_in_json(data[name])}: {reason}; leave it out{least}")
        return data

    @field_validator("messages")
    @classmethod
    def _something_said(cls, messages: list[ChatMessage]) -> list[ChatMessage]:
        if messages and messages[-1].role == "user" and not messages[-1].content.strip():
            raise ValueError("the last one is empty, expected the user's words")
        if messages and not any(message.content.strip() for message in messages):
            raise ValueError("all are empty, expected the user's words")
        return messages

    @property
    def longest(self) -> int | None:
        """Tokens that were asked for; None leaves them to the server."""
        asked = self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens
        return asked if asked is not None and asked > 0 else None

    @property
    def unread(self) -> list[str]:
        """Names of the fields that meant nothing here."""
        return sorted(name for name in self.model_extra or {} if name not in UNSUPPORTED)

    def generation(self, most: int) -> Generation:
        """How the reply is made, of at most so many tokens; what is not given is `Generation`'s own."""
        given: dict[str, Any] = {
            "max_tokens": self.longest and min(self.longest, most),
            "temperature": self.temperature,
            "top_p": self.top_p,
            "min_p": self.min_p,
            "seed": None if self.seed is None or self.seed == -1 else self.seed % 2**63,
            "stop": self.stop and tuple(self.stop),
        }
        return Generation()._replace(**{name: value for name, value in given.items() if value is not None})


def explain(error: Mapping[str, Any]) -> tuple[str, str]:
    """The field that one of pydantic's errors is about, empty for the whole body, and in one line what was given and what is expected."""
    field = ".".join(str(part) for part in error["loc"][1:])
    words = str(error["msg"])
    if error["type"] == "json_invalid":
        return "", f"the body is not JSON: {error.get('ctx', {}).get('error', words)}"
    if error["type"] == "value_error":
        return field, words.removeprefix("Value error, ")
    if error["type"] == "missing":
        return field, "missing"
    kind, _, expected = words.partition("Input should be ")
    return (
        field,
        f"got {_in_json(error['input'])}, expected {expected}" if not kind and expected else f"got {_in_json(error['input'])}: {words}",
    )


def _in_json(value: Any) -> str:
    """A value from a request as its client wrote it, short and on one line."""
    if isinstance(value, (list, dict)) and value:
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
    text = json.dumps(value, default=str)
    return text if len(text) <= 40 else f"{text[:40]}..."


def _same(value: Any, other: Any) -> bool:
    """Equal as JSON has it, where true is not 1."""
    return bool(value == other) and isinstance(value, bool) == isinstance(other, bool)
