"""Stage `listen`: teach the small base to take up what it was told, instead of saying that it is sure it will be fine.

A model of this size learns from its corpus how replies sound before it learns what they are about. What it can learn is what a listener
does first: mirror a word of the other, name the feeling, ask an open question. So the train splits' dialogues are cut behind a user's turn
and get a reply by rule: an opening that fits the feeling the turn is labelled with, then a question about a noun or a person of the turn.
The rules and their words are written for this project. Loss is on these replies; one document in ten stays as it was and is learned
whole, so that ordinary English is not forgotten.
"""

import json
import lzma
import random
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import transformers
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from nano.corpus import END, PROOF, Document, bitmap, bucket, forbidden, train_conversations, with_shares, write_proof
from nano.train import save
from nano.tutor import Clock
from warmline.conversation import Turn
from warmline.data.template import ChatTemplate, Message

LEARNING_RATE = 1e-3
AS_IT_WAS = 0.1
"""Share of the documents that keep their own replies."""
SOURCE = "listening"

FEELINGS = {
    "happy": "joyful excited proud grateful content hopeful confident impressed trusting faithful caring prepared "
    "admiration amusement approval excitement gratitude joy love optimism pride relief",
    "sad": "sad lonely devastated disappointed grief sadness disappointment remorse",
    "afraid": "afraid terrified anxious apprehensive fear nervousness",
    "angry": "angry annoyed furious disgusted jealous anger annoyance disapproval disgust",
    "ashamed": "ashamed embarrassed guilty embarrassment",
}
"""Labels of EmpatheticDialogues and GoEmotions, by the opening that fits them; the others have none."""
GROUP_OF = {label: group for group, labels in FEELINGS.items() for label in labels.split()}

OPENINGS = {
    "happy": ("I'm so glad!", "I'm so happy for you!", "I'm smiling with you."),
    "sad": ("I'm so sorry.", "I'm with you. That must hurt.", "I'm here. That sounds so hard."),
    "afraid": ("I'm with you. That sounds scary.", "I'm here. That would worry me too."),
    "angry": ("I'm with you. That sounds unfair.", "I'm on your side. That would bother me too."),
    "ashamed": ("I'm with you. It happens to all of us.", "I'm glad you told me."),
}
"""All begin as people's own replies most often do, so that a model tuned on such replies stays on this path."""
PLAIN = ("I'm with you.", "I'm listening.")
"""Fit whatever was said; what a model should fall back on when it cannot tell the feeling."""
PLAIN_SHARE = 0.3

ABOUT_PERSON = ("Tell me more about {}.", "How are things with {}?", "What did {} say?")
ABOUT_THING = ("Tell me more about {}.", "What happened with {}?", "How do you feel about {}?")
OPEN = {
    "happy": ("What was the best part?", "What happened next?", "Tell me more!"),
    None: ("What happened next?", "How do you feel about it now?", "Tell me more about that."),
}
AFTER_THANKS = (
    "You're welcome. I'm glad you told me.",
    "Of course. Take good care of yourself.",
    "Anytime. I'm here when you want to talk.",
)
AFTER_QUESTION = (
    "I'm not sure. What do you think?",
    "I'm not sure. What does your gut say?",
    "I'm not sure. What would help you most?",
)
AFTER_LITTLE = ("I'm with you. Take your time.", "I'm listening. What is on your mind?", "I'm with you. What else is there?")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


PEOPLE = _words("""
mother mom mum dad father nan gran grandma grandmother grandpa grandfather uncle aunt cousin brother sister son daughter baby kid kids
child children wife husband girlfriend boyfriend partner friend friends boss neighbor neighbour roommate teacher family parents niece
nephew fiance ex coworker colleague girl boy man woman guy doctor
""")
VAGUE = _words("""
lot way bit while same first best worst last next own good great old long end thing things one ones kind sort point other others rest past
moment whole only real different second most few fact reason hell fuck shit ass wonderful beautiful perfect special
""")
WORD = re.compile(r"[A-Za-z]+(?:'[a-z]+)?")
THANKS = re.compile(r"\b(?:thanks?|thank you|bye|goodbye|take care|good night)\b", re.IGNORECASE)
DETERMINERS = _words("the a an my your his her our their this that")
LITTLE = 4
"""Words of a turn that says next to nothing."""


def clauses(text: str) -> list[list[str]]:
    """The words, in small letters, between one punctuation mark and the next."""
    return [[word.lower() for word in WORD.findall(part)] for part in re.split(r"[.,!?;:]", text)]


class Nouns(NamedTuple):
    """Words that the train splits use as nouns, each with how often they occur."""

    counts: dict[str, int]

    @classmethod
    def of(cls, texts: Sequence[str]) -> "Nouns":
        """A word is a noun if it often stands right behind a determiner and often ends its part of the sentence."""
        total: Counter[str] = Counter()
        determined: Counter[str] = Counter()
        last: Counter[str] = Counter()
        for text in texts:
            for words in clauses(text):
                total.update(words)
                determined.update(word for before, word in zip(words, words[1:], strict=False) if before in DETERMINERS)
                last.update(words[-1:])
        noun = {
            word: count
            for word, count in total.items()
            if count >= 20
            and len(word) > 2
            and determined[word] > 0.25 * count
            and last[word] > 0.12 * count
            and word not in VAGUE | DETERMINERS
        }
        return cls(noun)

    def taken_up(self, text: str) -> tuple[str, bool] | None:
        """The person, else the rarest noun, behind a determiner, as the listener would name it ("your dog"); and whether it is a person."""
        found: list[tuple[bool, int, str]] = []
        for words in clauses(text):
            for place, word in enumerate(words):
                before = set(words[max(0, place - 2) : place])
                compound = place + 1 < len(words) and words[place + 1] in self.counts
                if word in self.counts and before & DETERMINERS and not compound:
                    owner = next((theirs for mine, theirs in OWNERS if mine in before), "the")
                    found.append((word not in PEOPLE, self.counts[word], f"{owner} {word}"))
        if not found:
            return None
        thing, _, named = min(found)
        return named, not thing


OWNERS = (("my", "your"), ("our", "your"), ("his", "his"), ("her", "her"), ("their", "their"))


def reply(text: str, feeling: str | None, nouns: Nouns, rng: random.Random) -> str:
    """What a listener says to a turn, by rule."""
    words = len(WORD.findall(text))
    if THANKS.search(text) and words < 15:
        return rng.choice(AFTER_THANKS)
    found = nouns.taken_up(text)
    if text.rstrip().endswith("?"):
        return rng.choice(AFTER_QUESTION)
    if words <= LITTLE and found is None:
        return rng.choice(AFTER_LITTLE)
    opening = rng.choice(PLAIN if feeling is None or rng.random() < PLAIN_SHARE else OPENINGS[feeling])
    if found is None:
        return f"{opening} {rng.choice(OPEN['happy' if feeling == 'happy' else None])}"
    named, person = found
    return f"{opening} {rng.choice(ABOUT_PERSON if person else ABOUT_THING).format(named)}"


class Told(NamedTuple):
    """A dialogue of the train splits, and the feeling of each user's turn, where one is labelled."""

    turns: tuple[Turn, ...]
    feelings: tuple[str | None, ...]


def told(data: Path) -> list[Told]:
    """The train splits; ESConv's turns and neutral comments have no feeling."""
    found = []
    for _, conversation in train_conversations(data):
        labels = [turn.emotions[0] if len(turn.emotions) == 1 else conversation.situation for turn in conversation.turns]
        found.append(Told(conversation.turns, tuple(GROUP_OF.get(label or "") for label in labels)))
    return found


def documents(dialogues: Sequence[Told], rng: random.Random) -> Iterator[tuple[Document, int | None]]:
    """Dialogues up to a user's turn and a reply by rule; with them the place of that reply, None for a dialogue as it was."""
    nouns = Nouns.of([turn.text for one in dialogues for turn in one.turns])
    for one in dialogues:
        if len(one.turns) > 1 and rng.random() < AS_IT_WAS:
            yield Document(SOURCE, turns=tuple((turn.role, turn.text) for turn in one.turns[:12])), None
            continue
        places = [place for place, turn in enumerate(one.turns) if turn.role == "user"]
        for place in rng.sample(places, min(len(places), 2)):
            history = [(turn.role, turn.text) for turn in one.turns[max(0, place - 4) : place + 1]]
            while history[0][0] != "user":
                history = history[1:]
            history.append(("assistant", reply(one.turns[place].text, one.feelings[place], nouns, rng)))
            yield Document(SOURCE, turns=tuple(history)), len(history) - 1


class Rows(NamedTuple):
    """Documents end to end, cut into rows.

    Attributes:
        tokens: [rows, context + 1] token ids.
        learned: [rows, context + 1] which of them count in the loss.
        row_of: The row of each document, in their order.
    """

    tokens: Tensor
    learned: Tensor
    row_of: list[int]


def rows_of(found: Sequence[tuple[Document, int | None]], tokenizer: PreTrainedTokenizerBase, context: int) -> Rows:
    """A document that would cross the end of a row begins the next; the row is filled up with <|endoftext|>, which counts for nothing."""
    template, end = ChatTemplate(tokenizer), tokenizer(END)["input_ids"]
    rows: list[list[int]] = [[]]
    learned: list[list[bool]] = [[]]
    row_of: list[int] = []
    for document, by_rule in found:
        ids, counts = list(end), [False]
        for place, (role, text) in enumerate(document.turns):
            said = tokenizer(template.render([Message(role=role, content=text)]))["input_ids"]
            ids += said
            counts += [by_rule in (None, place)] * len(said)
        if len(rows[-1]) + len(ids) > context + 1:
            rows.append([])
            learned.append([])
        rows[-1] += ids[: context + 1]
        learned[-1] += counts[: context + 1]
        row_of.append(len(rows) - 1)
    filled = [row + end * (context + 1 - len(row)) for row in rows]
    counted = [row + [False] * (context + 1 - len(row)) for row in learned]
    return Rows(torch.tensor(filled), torch.tensor(counted), row_of)


def listen_stage(model: Path, data: Path, out: Path, seconds: float, rows: int, context: int, seed: int) -> None:
    """Go on training a finished model, for so many seconds or once through the documents; write it with its records brought up to date."""
    clock, rng = Clock(), random.Random(seed)
    torch.manual_seed(seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    network = AutoModelForCausalLM.from_pretrained(
        model, dtype=torch.float32, attn_implementation="sdpa", trust_remote_code=False, use_safetensors=True
    ).to(device)
    keep_out = forbidden(data)
    found = [one for one in documents(told(data), rng) if not keep_out.forbids(one[0])]
    rng.shuffle(found)
    packed = rows_of(found, tokenizer, context)
    steps = len(packed.tokens) // rows
    clock.say(
        f"{len(found):,} documents, {packed.tokens.numel():,} tokens, {packed.learned.float().mean():.0%} of them learned, {steps} steps"
    )
    optimiser = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.0)
    begun, step, passed = time.monotonic(), 0, 0.0
    recent: list[float] = []
    while passed < 1:
        for group in optimiser.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, (step + 1) / 20, 1.25 * (1 - passed))
        tokens, learned = (part[step * rows : (step + 1) * rows].to(device) for part in packed[:2])
        with torch.autocast(device, torch.bfloat16):
            hidden = network.model(input_ids=tokens[:, :-1], attention_mask={"full_attention": None}, use_cache=False).last_hidden_state
            logits = F.linear(hidden[learned[:, 1:]], network.lm_head.weight)
        loss = F.cross_entropy(logits.float(), tokens[:, 1:][learned[:, 1:]])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        recent.append(loss.item())
        step += 1
        passed = max(step / steps, (time.monotonic() - begun) / seconds)
        if step % 10 == 0 or passed >= 1:
            clock.say(f"step {step}: loss {sum(recent) / len(recent):.3f}, {passed:.0%}")
            recent = []
    save(network, model, out)
    shutil.copy(model / "pretraining.json", out / "pretraining.json")
    seen = [document for (document, _), row in zip(found, packed.row_of, strict=True) if row < step * rows]
    record = {
        "seconds": round(time.monotonic() - begun, 1), "steps": step, "tokens": step * rows * context, "rows": rows, "context": context,
        "learning_rate": LEARNING_RATE, "as_it_was": AS_IT_WAS, "plain_share": PLAIN_SHARE, "seed": seed,
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }  # fmt: skip
    _bring_up_to_date(out, seen, packed.tokens[: step * rows].numel(), record)
    clock.say(f"wrote {out}")


def _bring_up_to_date(out: Path, seen: Sequence[Document], tokens: int, record: dict[str, object]) -> None:
    """Records and proof of the folder, with the documents of this stage in them."""
    pretraining = json.loads((out / "pretraining.json").read_text())
    (out / "pretraining.json").write_text(json.dumps(pretraining | {"listening": record}, indent=1) + "\n")
    corpus = json.loads((out / "corpus.json").read_text())
    corpus["sources"][SOURCE] = {
        "documents": len(seen),
        "tokens": tokens,
        "bytes": sum(len(line.encode()) for document in seen for line in document.lines),
    }
    corpus |= with_shares(corpus["sources"])
    packed = lzma.decompress((out / PROOF).read_bytes())
    added = bitmap(found for document in seen for line in document.lines if (found := bucket(line)) is not None)
    proof = np.bitwise_or(np.frombuffer(packed, np.uint8), np.frombuffer(added, np.uint8)).tobytes()
    corpus["proof"] = write_proof(out, proof)
    (out / "corpus.json").write_text(json.dumps(corpus, indent=1) + "\n")
