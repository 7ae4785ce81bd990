"""What the data tests share: tokenizers, templates, and small sources with known content."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

import warmline
from warmline.data.encoding import EncodedSource
from warmline.data.template import ChatTemplate

NANO = Path(warmline.__file__).parent / "assets" / "nano"
SPECIALS = {
    "qwen3": ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"],
    "chatml": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    "gemma": ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"],
    "plain": ["<|endoftext|>"],
}

settings.register_profile("data", deadline=None, max_examples=50)
settings.load_profile("data")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for encoded sources, never the user's own."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("WARMLINE_CACHE", str(folder))
    return folder


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


@pytest.fixture(scope="session")
def source_of() -> Callable[..., EncodedSource]:
    """Makes a source whose conversations have the given lengths and nothing to learn."""

    def make(lengths: Sequence[int], name: str = "made") -> EncodedSource:
        ends = np.cumsum(lengths).astype(np.int32)
        none, nothing = np.zeros((0, 2), np.int32), np.zeros(len(lengths), np.int32)
        tokens = np.arange(ends[-1], dtype=np.int32)
        return EncodedSource(name, ("lm",), tokens, ends, none, nothing, {}, {}, np.arange(len(ends), dtype=np.int32))

    return make
