"""What the data tests share: the official data, tokenizers, and small sources with known content."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

import warmline
from warmline.data.encoding import EncodedSource
from warmline.data.template import ChatTemplate
from warmline.errors import WarmlineError

NANO = Path(warmline.__file__).parent / "assets" / "nano"
SPECIALS = {
    "qwen3": ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"],
    "chatml": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    "gemma": ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"],
    "plain": ["<|endoftext|>"],
}

settings.register_profile("data", deadline=None, max_examples=50)
settings.load_profile("data")

Refused = Callable[..., str]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for encoded sources, never the user's own."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("WARMLINE_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def official(shared: Path) -> Path:
    """The copies of the official data sets beside the repository."""
    return shared / "data"


@pytest.fixture(scope="session")
def qwen_tokenizer(shared: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(shared / "models" / "qwen3-tokenizer")


@pytest.fixture(scope="session")
def nano_tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(NANO)


@pytest.fixture(scope="session")
def byte_tokenizer() -> Callable[..., PreTrainedTokenizerBase]:
    """Makes a tokenizer of single bytes that has the special tokens of one template, and further added ones."""

    def make(name: str, added: Sequence[str] = ()) -> PreTrainedTokenizerBase:
        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        backend = Tokenizer(models.BPE({letter: index for index, letter in enumerate(letters)}, []))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.decoder = decoders.ByteLevel()
        backend.add_special_tokens(SPECIALS[name])
        backend.add_tokens(list(added))
        return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<bos>" if name == "gemma" else None)

    return make


@pytest.fixture(params=["qwen3", "chatml", "gemma"])
def template(request: pytest.FixtureRequest, byte_tokenizer: Callable[..., PreTrainedTokenizerBase]) -> ChatTemplate:
    """Each of our templates, on bytes, so that every place in the text is a place in the tokens."""
    return ChatTemplate(byte_tokenizer(request.param))


@pytest.fixture(params=["qwen3-tokenizer", "nano"])
def real_template(request: pytest.FixtureRequest) -> ChatTemplate:
    """Our template on the real Qwen3 tokenizer and on the nano model's."""
    fixture = "qwen_tokenizer" if request.param == "qwen3-tokenizer" else "nano_tokenizer"
    return ChatTemplate(request.getfixturevalue(fixture))


@pytest.fixture
def refused() -> Refused:
    """Calls something that must be refused, and gives the message, which must be one line."""

    def call(function: Callable[..., Any], *arguments: Any, **named: Any) -> str:
        with pytest.raises(WarmlineError) as caught:
            function(*arguments, **named)
        message = str(caught.value)
        assert len(message.splitlines()) == 1
        return message

    return call


@pytest.fixture(scope="session")
def source_of() -> Callable[..., EncodedSource]:
    """Makes a source whose conversations have the given lengths and nothing to learn."""

    def make(lengths: Sequence[int], name: str = "made") -> EncodedSource:
        ends = np.cumsum(lengths).astype(np.int32)
        none, nothing = np.zeros((0, 2), np.int32), np.zeros(len(lengths), np.int32)
        tokens = np.arange(ends[-1], dtype=np.int32)
        return EncodedSource(name, ("lm",), tokens, ends, none, nothing, none, nothing, none, nothing, np.arange(len(ends), dtype=np.int32))

    return make


@pytest.fixture
def write_esconv(tmp_path: Path) -> Callable[..., Path]:
    """Writes dialogues, each a list of (speaker, annotation, content), as an ESConv.json with filled survey fields."""

    def write(*dialogues: list[tuple[str, dict[str, str], str]]) -> Path:
        content = [
            {
                "experience_type": "SURVEY",
                "emotion_type": "SURVEY",
                "problem_type": "SURVEY",
                "situation": "SURVEY",
                "survey_score": {"seeker": {"empathy": "SURVEY"}, "supporter": {}},
                "dialog": [{"speaker": speaker, "annotation": note, "content": text} for speaker, note, text in dialogue],
                "seeker_question1": "SURVEY",
                "supporter_question1": "SURVEY",
            }
            for dialogue in dialogues
        ]
        (tmp_path / "ESConv.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
        return tmp_path

    return write
