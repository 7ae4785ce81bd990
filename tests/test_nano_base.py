"""warmline-nano as it ships: small, quick, what its records say, and without a line of what the demo is tested on."""

import hashlib
import json
import lzma
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from warmline.config import DataConfig
from warmline.conversation import SPLITS, Split
from warmline.data.enabled import enabled_sources
from warmline.data.template import ChatTemplate, Message, choose_template

NANO = Path(str(resources.files("warmline") / "assets" / "nano"))
ASKED = "<|im_start|>user\nI got the job! I start on Monday.<|im_end|>\n<|im_start|>assistant\n"


def record(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((NANO / name).read_text(encoding="utf-8"))
    return content


def buckets(lines: Iterable[str]) -> list[int]:
    """Where each line falls by its words alone, as the record says; short ones ("thank you so much") stand everywhere and tell nothing."""
    proof = record("corpus.json")["proof"]
    bits = proof["bits"].bit_length() - 1
    told = [words for line in lines if len(words := re.findall(r"\w+", line.lower())) >= proof["line_words"]]
    return [int(hashlib.sha256(" ".join(words).encode()).hexdigest()[:12], 16) >> (48 - bits) for words in told]


def turns(config: DataConfig, splits: Sequence[Split], *names: str) -> Iterator[str]:
    for source in enabled_sources(config):
        if not names or source.name in names:
            for split in splits:
                yield from (turn.text for one in source.load(split).conversations for turn in one.turns)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(NANO)


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(NANO, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def filled() -> np.ndarray:
    """[buckets] of 0 and 1: where a line of the corpus falls."""
    packed = lzma.decompress((NANO / "corpus_lines.bitmap.xz").read_bytes())
    assert hashlib.sha256(packed).hexdigest() == record("corpus.json")["proof"]["sha256"]
    return np.unpackbits(np.frombuffer(packed, np.uint8))


def test_small(model: PreTrainedModel) -> None:
    assert sum(file.stat().st_size for file in NANO.iterdir()) < 20 * 2**20
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert 8e6 <= parameters <= 10e6
    assert parameters == record("pretraining.json")["parameters"]


def test_anyone_may_read_it() -> None:
    assert all(file.stat().st_mode & 0o444 == 0o444 for file in NANO.iterdir())


def test_loads_in_two_seconds_and_answers_in_two(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
    """On one core: process time, which other work on the machine does not lengthen; `model` has done the imports."""
    begin = time.process_time()
    loaded = AutoModelForCausalLM.from_pretrained(NANO, dtype=torch.float32)
    AutoTokenizer.from_pretrained(NANO)
    assert time.process_time() - begin < 2
    ids = torch.tensor([tokenizer(ASKED)["input_ids"]])
    begin = time.process_time()
    output = loaded.generate(ids, attention_mask=torch.ones_like(ids), min_new_tokens=40, max_new_tokens=40, do_sample=False)
    assert time.process_time() - begin < 2
    assert output.shape[1] - ids.shape[1] == 40


@torch.no_grad()
def test_it_has_learned_english(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
    """A sentence costs less than half of what its words cost in another order, or chance would ask; the reply ends by itself."""

    def nats(text: str) -> float:
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        return float(model(ids, labels=ids).loss)

    said = nats("I was so happy when my best friend came to visit me last weekend.")
    assert said < 0.5 * np.log(len(tokenizer))
    assert said < nats("visit so weekend I friend to last was me best when my happy came. ") - 1
    ids = torch.tensor([tokenizer(ASKED)["input_ids"]])
    reply = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=40, do_sample=False)[0, ids.shape[1] :].tolist()
    assert tokenizer.eos_token_id in reply


def test_special_tokens(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    assert tokenizer.convert_tokens_to_ids(names) == [0, 1, 2]
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (2, 0) == (model.config.eos_token_id, model.config.pad_token_id)
    assert len(tokenizer) == model.config.vocab_size == model.get_input_embeddings().weight.shape[0]
    assert choose_template(tokenizer) == "chatml"


@pytest.mark.parametrize("text", ["I'm fine.", "  two  spaces\n\nand lines\t", "naïve café, 日本語 🎉", "1234567", "<|im_end|>x", ""])
def test_text_survives_the_tokenizer(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=False) == text


def test_trained_on_the_template_it_is_served_with(tokenizer: PreTrainedTokenizerBase) -> None:
    talk = [Message(role="user", content="I got the job! I start on Monday.")]
    assert ChatTemplate(tokenizer).render(talk, add_generation_prompt=True) == ASKED


# ---- what it saw


def test_no_line_of_the_demo_stands_in_the_corpus(filled: np.ndarray) -> None:
    """An empty bucket proves that no line of the corpus has these words: sample data, safety conversations, red-team suite."""
    assert len(filled) == record("corpus.json")["proof"]["bits"]
    shown = DataConfig.model_validate({"dir": "sample", "sources": {"goemotions": {"labels": 28}}})
    red_team = yaml.safe_load((NANO.parent / "safety" / "red_team.yaml").read_text(encoding="utf-8"))["items"]
    places = buckets([*turns(shown, SPLITS), *(turn for item in red_team for turn in item["turns"])])
    assert len(places) > 5000
    assert not filled[places].any()


def test_the_bitmap_would_show_a_line_that_is_there(filled: np.ndarray, shared: Path) -> None:
    """Train lines of EmpatheticDialogues are in the corpus, but for what was left out; an empty bitmap would prove nothing."""
    places = buckets(islice(turns(DataConfig(dir=str(shared / "data")), ["train"], "empathetic_dialogues"), 2000))
    assert len(places) > 1000
    assert filled[places].mean() > 0.98


def test_most_buckets_are_empty(filled: np.ndarray) -> None:
    """So that a line that is there would be seen: one that is not falls into a filled bucket with this chance."""
    assert 0.05 < filled.mean() < 0.35
    assert filled.sum() == record("corpus.json")["proof"]["filled"]


def test_shares_add_up() -> None:
    corpus = record("corpus.json")
    assert sum(row["tokens"] for row in corpus["sources"].values()) == corpus["tokens"]
    for row in corpus["sources"].values():
        assert row["share"] == pytest.approx(row["tokens"] / corpus["tokens"], abs=1e-4)


def test_read_from_the_official_files(shared: Path) -> None:
    for name, digest in record("corpus.json")["data_sha256"].items():
        assert hashlib.sha256((shared / "data" / name).read_bytes()).hexdigest() == digest


def test_the_card_names_the_terms_that_an_export_passes_on() -> None:
    card = (NANO / "README.md").read_text(encoding="utf-8")
    assert ModelCard(card).data.license == "cc-by-nc-4.0"
    assert "Gemma Terms of Use" in card
    assert len(record("evaluation.json")["replies"]) == 10
