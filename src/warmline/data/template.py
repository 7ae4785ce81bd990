"""Our chat templates and the one place that turns messages into text and tokens, for training and for serving alike.

Qwen3's stock template strips the think blocks of past turns, so a served prompt is no prefix of the training sequence. Ours is a plain
concatenation of messages. For Qwen3 each assistant turn carries the empty think block that puts the model in non-thinking mode: the
next turn needs it (without it the model may start to think), and what the next turn has, past turns must have too, or the prefix
breaks. It costs four tokens a turn and belongs to the header, outside the loss.

The templates strip each message, as `ChatTemplate.clean` does, so another server that renders with the saved template gets the same
bytes, unless a message holds special tokens: only `clean` breaks those up.
"""

import re
from collections.abc import Sequence
from importlib import resources
from typing import Literal, NamedTuple, TypedDict

import jinja2.sandbox
from transformers import PreTrainedTokenizerBase

from warmline.conversation import Conversation
from warmline.errors import WarmlineError
from warmline.settings import TemplateName

END_OF_TURN: dict[TemplateName, str] = {"qwen3": "<|im_end|>", "chatml": "<|im_end|>", "gemma": "<end_of_turn>"}


class Message(TypedDict):
    """A chat message as OpenAI-compatible APIs have it; role is system, user or assistant."""

    role: str
    content: str


class Layout(NamedTuple):
    """How a template frames a turn, measured on the tokenizer.

    Attributes:
        end_of_turn: Token id that closes every turn.
        separator: Number of tokens between a turn's end and the next turn's header.
        reply_header: Token ids of the assistant's header, which the reply's first token follows.
        prefix: Number of tokens before the first turn's header: a BOS, the system prompt.
    """

    end_of_turn: int
    separator: int
    reply_header: tuple[int, ...]
    prefix: int


def template_source(name: TemplateName) -> str:
    """The Jinja source of a template."""
    return (resources.files("warmline.data") / "templates" / f"{name}.jinja").read_text(encoding="utf-8").rstrip("\n")


def choose_template(tokenizer: PreTrainedTokenizerBase) -> TemplateName:
    """The template that fits a tokenizer's special tokens.

    Raises:
        WarmlineError: none fits.
    """
    known = tokenizer.get_vocab()
    if "<start_of_turn>" in known:
        return "gemma"
    if "<|im_start|>" in known:
        return "qwen3" if "<think>" in known else "chatml"
    raise WarmlineError(
        "model.template: auto found neither <|im_start|> nor <start_of_turn> in this model's tokenizer; use a Qwen, Gemma or ChatML model"
    )


class ChatTemplate:
    """Renders and tokenises conversations, and knows where turns begin and end.

    Args:
        tokenizer: A fast tokenizer. Its `chat_template` is set to ours, so that saving it saves the template.
        name: Which of ours, or `auto`.
        system_prompt: Put before every conversation; None for none.

    Raises:
        WarmlineError: the template does not fit the tokenizer.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        name: TemplateName | Literal["auto"] = "auto",
        system_prompt: str | None = None,
    ) -> None:
        self.name: TemplateName = choose_template(tokenizer) if name == "auto" else name
        self.source = template_source(self.name)
        self.system_prompt = system_prompt
        self.tokenizer = tokenizer
        tokenizer.chat_template = self.source
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        self._compiled = environment.from_string(self.source)
        added = {str(token) for token in (*tokenizer.all_special_tokens, *tokenizer.get_added_vocab())}
        # runs of white space (Gemma has them as tokens) open and close nothing, and paragraphs need them
        specials = {token for token in added if len(token) > 1 and token.replace("\u2581", " ").strip()}
        self._specials = re.compile("|".join(re.escape(token) for token in sorted(specials, key=len, reverse=True)) or r"(?!)")
        self.layout = self._measure()

    def clean(self, text: str) -> str:
        """Strip a message and break up special tokens in it, so that nobody's text can open or close a turn."""
        return self._specials.sub(lambda match: match[0][0] + " " + match[0][1:], text.strip())

    def render(self, messages: Sequence[Message], add_generation_prompt: bool = False) -> str:
        """The exact text that the model sees; the system prompt comes first when the messages bring none of their own."""
        if self.system_prompt and not (messages and messages[0]["role"] == "system"):
            messages = [Message(role="system", content=self.system_prompt), *messages]
        cleaned = [Message(role=message["role"], content=self.clean(message["content"])) for message in messages]
        return self._compiled.render(
            messages=cleaned, add_generation_prompt=add_generation_prompt, bos_token=self.tokenizer.bos_token or ""
        )

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of rendered texts; nothing is added, since the template already holds every special token."""
        if not texts:
            return []
        ids: list[list[int]] = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return ids

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Token ids up to where the next reply begins."""
        return self.tokenize([self.render(messages, add_generation_prompt=True)])[0]

    def _measure(self) -> Layout:
        probe = [Message(role="user", content="a"), Message(role="assistant", content="b")]
        user, prompt, both, empty = self.tokenize(
            [
                self.render(probe[:1]),
                self.render(probe[:1], add_generation_prompt=True),
                self.render(probe),
                self.render([]),
            ]
        )
        end_of_turn = self.tokenizer.convert_tokens_to_ids(END_OF_TURN[self.name])
        if not isinstance(end_of_turn, int) or end_of_turn not in user or both[: len(prompt)] != prompt or prompt[: len(user)] != user:
            raise WarmlineError(f"model.template: {self.name} does not fit this model's tokenizer; choose another or `auto`")
        last = len(user) - 1 - user[::-1].index(end_of_turn)
        return Layout(end_of_turn, len(user) - 1 - last, tuple(prompt[len(user) :]), len(empty))


def as_messages(conversation: Conversation) -> list[Message]:
    """The conversation's turns as chat messages."""
    return [Message(role=turn.role, content=turn.text) for turn in conversation.turns]
