"""Stage `card`: what the finished model predicts and says, measured beside Gemma 3 270M and a random model, and the card that tells it.

Bits per byte: nats over the tokens that spell the turns' text, user's and assistant's alike, each turn with everything before it; over the
UTF-8 bytes of that text. What marks the turns is given and costs nothing: our chat template where a model was trained on it, else lines
`A: ...` and `B: ...`, the only difference between the models. Every model sees the same dialogues, cut after the same turn.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from nano.tutor import Clock
from warmline.config import DataConfig
from warmline.conversation import Conversation
from warmline.data.enabled import enabled_sources
from warmline.data.template import ChatTemplate
from warmline.evaluation.qualitative import draw_prompts
from warmline.model.backbone import Sampling
from warmline.model.generation import generation_settings, until

RULE = " ".join((__doc__ or "").split("\n\n", 1)[1].split())
TURNS = 12
"""Of each dialogue: ESConv's run to a hundred, and Gemma must read them on a CPU."""
PROMPTS_PER_SOURCE = 5
DECODING = {
    "greedy": Sampling(max_new_tokens=40, temperature=0),
    "sampled": Sampling(max_new_tokens=40, temperature=0.7, top_p=0.9),
}
SPEAKERS = {"user": "A", "assistant": "B"}
Marked = list[tuple[str, bool]]
"""Pieces of a rendered dialogue, and whether each is a turn's text."""


def as_template(conversation: Conversation) -> Marked:
    """Rendered in our chat template."""
    pieces: Marked = []
    for turn in conversation.turns[:TURNS]:
        pieces += [(f"<|im_start|>{turn.role}\n", False), (" ".join(turn.text.split()), True), ("<|im_end|>\n", False)]
    return pieces


def as_lines(conversation: Conversation) -> Marked:
    """Rendered as plain lines; the space before a turn goes to its first token, as Gemma's tokenizer has it."""
    pieces: Marked = [("<bos>", False)]
    for turn in conversation.turns[:TURNS]:
        pieces += [(f"{SPEAKERS[turn.role]}:", False), (" " + " ".join(turn.text.split()), True), ("\n", False)]
    return pieces


def encode(pieces: Marked, tokenizer: PreTrainedTokenizerBase) -> tuple[Tensor, Tensor]:
    """[tokens] ids, and [tokens] whether each spells a turn."""
    ids: list[int] = []
    spelt: list[bool] = []
    for text, is_turn in pieces:
        tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
        ids += tokens
        spelt += [is_turn] * len(tokens)
    return torch.tensor(ids), torch.tensor(spelt)


@torch.no_grad()
def bits_per_byte(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, dialogues: Sequence[Conversation], plain: bool) -> float:
    """Over all dialogues, by RULE."""
    nats, size = 0.0, 0
    for dialogue in dialogues:
        ids, spelt = encode(as_lines(dialogue) if plain else as_template(dialogue), tokenizer)
        hidden = model.model(input_ids=ids[None]).last_hidden_state[0, :-1]
        logits = F.linear(hidden[spelt[1:]], model.get_output_embeddings().weight)
        nats += F.cross_entropy(logits, ids[1:][spelt[1:]], reduction="sum").item()
        size += sum(len(" ".join(turn.text.split()).encode()) for turn in dialogue.turns[:TURNS])
    return nats / math.log(2) / size


def test_dialogues(data: Path, limit: int) -> dict[str, list[Conversation]]:
    """The first dialogues of each test split: the official two, and the sample data's two together."""
    found: dict[str, list[Conversation]] = {}
    for folder, prefix in ((str(data), ""), ("sample", "sample ")):
        config = DataConfig(dir=folder)
        for source in enabled_sources(config):
            if source.name in ("empathetic_dialogues", "esconv"):
                found[prefix + source.name] = list(source.load("test").conversations[:limit])
    return found


@torch.no_grad()
def replies(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, seed: int) -> list[dict[str, str]]:
    """Greedy and sampled replies to prompts of the sample data's test split, drawn by `evaluation/qualitative.py`'s rule."""
    template = ChatTemplate(tokenizer)
    end = tokenizer.eos_token_id
    drawn = [prompt for prompt in draw_prompts(DataConfig(dir="sample"), seed, PROMPTS_PER_SOURCE) if prompt.source != "safety"]
    torch.manual_seed(seed)
    found = []
    for prompt in drawn:
        text = template.render(prompt.messages, add_generation_prompt=True)
        ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
        said = {"source": prompt.source, "conversation": prompt.conversation, "prompt": prompt.messages[-1]["content"]}
        for name, sampling in DECODING.items():
            settings = generation_settings(sampling, end)
            output = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **settings)
            said[name] = tokenizer.decode(until(output[0, ids.shape[1] :].tolist(), end)).strip()
        found.append(said)
    return found


def card_stage(folder: Path, gemma: Path, data: Path, limit: int, seed: int) -> None:
    """Write `evaluation.json` and `README.md` into the model folder."""
    clock = Clock()
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    nano = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False, use_safetensors=True).eval()
    torch.manual_seed(seed)
    untrained = AutoModelForCausalLM.from_config(
        AutoConfig.from_pretrained(folder, trust_remote_code=False), dtype=torch.float32, trust_remote_code=False
    ).eval()
    large = AutoModelForCausalLM.from_pretrained(gemma, dtype=torch.float32, trust_remote_code=False, use_safetensors=True).eval()
    gemmas = PreTrainedTokenizerFast(tokenizer_file=str(gemma / "tokenizer.json"), bos_token="<bos>")
    models = {
        "warmline-nano": (nano, tokenizer, False),
        "random, same size": (untrained, tokenizer, False),
        "Gemma 3 270M": (large, gemmas, True),
    }
    sets = test_dialogues(data, limit)
    scores: dict[str, dict[str, Any]] = {}
    for name, dialogues in sets.items():
        scores[name] = {"dialogues": len(dialogues)}
        for model, (network, its_tokenizer, plain) in models.items():
            scores[name][model] = round(bits_per_byte(network, its_tokenizer, dialogues, plain), 4)
        clock.say(f"{name}: {scores[name]}")
    evaluation = {
        "context": {"seed": seed, "split": "test", "rule": RULE, "turns": TURNS, "limit": limit, "torch": torch.__version__},
        "bits_per_byte": scores,
        "decoding": {name: sampling._asdict() for name, sampling in DECODING.items()},
        "replies": replies(nano, tokenizer, seed),
    }
    (folder / "evaluation.json").write_text(json.dumps(evaluation, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    write_card(folder)
    clock.say(f"wrote {folder / 'evaluation.json'} and {folder / 'README.md'}")


def write_card(folder: Path) -> None:
    """`README.md` from the folder's own records alone, so that its words can change without measuring again."""
    records = {name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in ("corpus", "pretraining", "evaluation")}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["cell"] = lambda text: text.replace("|", "\\|").replace("\n", " ")
    page = environment.get_template("card.md.j2").render(records | {"size": (folder / "model.safetensors").stat().st_size / 2**20})
    page = "\n".join(line.rstrip() for line in page.rstrip().split("\n")) + "\n"
    (folder / "README.md").write_text(page, encoding="utf-8")
