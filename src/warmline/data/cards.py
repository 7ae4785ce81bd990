"""Data cards: one Markdown page and one picture a source, with counts that were just made."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from warmline.config import DataConfig
from warmline.data.conversation import SPLITS
from warmline.data.sources import data_checksums
from warmline.data.stats import data_stats
from warmline.runs import write_picture, write_text


@dataclass(frozen=True)
class _Facts:
    """What no count can tell."""

    title: str
    what: str
    origin: str
    licence: str
    preprocessing: tuple[str, ...]
    problems: tuple[str, ...]
    label_kind: str


FACTS: dict[str, _Facts] = {
    "empathetic_dialogues": _Facts(
        "EmpatheticDialogues",
        "Crowd-sourced English conversations in which a speaker tells of a situation written for one of 32 emotion labels and a "
        "listener responds. It trains the language model on the listener's turns.",
        "Rashkin et al., ACL 2019, arXiv 1811.00207; `facebookresearch/EmpatheticDialogues`.",
        "CC BY-NC 4.0: a model tuned on it inherits the non-commercial terms.",
        (
            "Lines are split on `,` without quoting, `_comma_` becomes a comma, runs of white space become one space.",
            "Odd turns are the user, even turns the assistant; the files' `speaker_idx` are worker ids and are not used.",
            "The situation text (`prompt`), `selfeval` and `tags` are never input. The situation label is kept on the conversation and "
            "trains nothing.",
        ),
        (
            "A default CSV reader merges rows, because text holds bare quotation marks.",
            "Listeners are crowd workers who were asked to be empathetic: replies are short and often a question.",
            "Labels were given before the conversation was written; a conversation may drift away from its label.",
        ),
        "situations",
    ),
    "esconv": _Facts(
        "ESConv",
        "English support chats between a help seeker and a trained supporter, each supporter message labelled with one of eight support "
        "strategies. It trains the language model and the strategy head on the supporter's messages.",
        "Liu et al., ACL 2021, arXiv 2106.01144; `thu-coai/Emotional-Support-Conversation`.",
        "CC BY-NC 4.0, with the authors' note that data and code are for academic research: a model tuned on it inherits these terms.",
        (
            "Seeker is the user, supporter the assistant. Supporter messages in a row stay turns of their own, each with its strategy.",
            "Split by dialogue: shuffle with `random.seed(13)`, 15 % valid, the next 15 % test, the rest train.",
            "`situation`, `emotion_type`, `problem_type`, scores and feedback come from surveys before or after the chat; none is input.",
        ),
        (
            "`Others` is a mixed bag of greetings, thanks and small talk, and one label in six.",
            "Strategy is a matter of taste: several would do at most points, so accuracy has a low ceiling.",
            "Written during 2020: the pandemic is a frequent topic. Some supporters give advice a clinician would not.",
        ),
        "strategies",
    ),
    "goemotions": _Facts(
        "GoEmotions",
        "English Reddit comments labelled with 27 emotions or neutral by three raters or more. It trains the emotion head and never "
        "touches the language model.",
        "Demszky et al., ACL 2020, arXiv 2005.00547; `google-research/google-research`, folder `goemotions`.",
        "CC BY 4.0.",
        (
            "A row is one user turn with all its official labels; runs of white space become one space.",
            "With 27 classes, rows whose only label is neutral are left out and several labels share the target's mass; with 28 "
            "labels every row is used with binary cross-entropy.",
        ),
        (
            "Very uneven: the rarest classes (grief, pride, relief) have a handful of test rows, so macro-F1 moves by chance.",
            "Single comments without their thread; raters often disagree. Names and religions are masked.",
            "Some test texts also stand in train, so a test score is a little too kind.",
        ),
        "emotions",
    ),
    "safety": _Facts(
        "Safety conversations",
        "Written for this project: people at risk, openly or between the lines, and benign look-alikes, with replies meant to be what a "
        "clinician would accept. They anchor the tuned model to its base (KL), or teach the replies (`objectives: [safety, lm]`).",
        "This repository, `src/warmline/assets/sample/safety`.",
        "Apache-2.0, as the code.",
        (
            "Hotlines are slots (`{crisis_line}`, `{emergency_number}`) that a dated country table fills when a reply is shown.",
            "Categories and risk are never input.",
        ),
        (
            "Written by a language model for this project and proof-read by another; no clinician has signed them off.",
            "English only, and small: a guard-rail for training, not evidence of safety.",
        ),
        "categories",
    ),
}


def write_cards(config: DataConfig, folder: Path) -> list[Path]:
    """Write `<source>.md` and `<source>.png` for every enabled source.

    Args:
        config: Where the data lie and which sources are enabled.
        folder: Made if it is missing.

    Returns:
        The cards.

    Raises:
        WarmlineError: bad or missing files, or a folder that cannot be written.
    """
    stats, checksums = data_stats(config), data_checksums(config)
    cards = []
    for name, splits in stats["sources"].items():
        facts = FACTS[name]
        card = folder / f"{name}.md"
        write_text(card, _card(name, facts, splits, stats["mixture"], checksums))
        _draw_labels(folder / f"{name}.png", facts, splits)
        cards.append(card)
    return cards


def _card(name: str, facts: _Facts, splits: dict[str, Any], mixture: dict[str, Any], checksums: dict[str, str]) -> str:
    columns = ["rows", "conversations", "utterances", "lm_targets", "emotion_targets", "strategy_targets", "safety_targets"]
    shown = [column for column in columns if any(splits[split][column] for split in SPLITS)]
    if name == "goemotions":
        shown.append("single_label")
    cap = "" if mixture["max_passes"] is None else f", until it has been passed {mixture['max_passes']:g} times"
    lines = [
        f"# {facts.title}",
        "",
        facts.what,
        "",
        f"- **Origin:** {facts.origin}",
        f"- **Licence:** {facts.licence}",
        f"- **Share of the mixture:** {mixture['shares'][name]:.1%} of the draws at alpha = {mixture['alpha']}{cap}",
        "",
        "## Counts",
        "",
        "| split | " + " | ".join(column.replace("_", " ") for column in shown) + " |",
        "| --- |" + " ---: |" * len(shown),
        *("| " + " | ".join([split, *(f"{splits[split][column]:,}" for column in shown)]) + " |" for split in SPLITS),
        "",
    ]
    left_out = {split: splits[split]["left_out"] for split in SPLITS if splits[split]["left_out"]}
    for split, reasons in left_out.items():
        lines.append(f"Left out of {split}: " + ", ".join(f"{number:,} rows ({reason})" for reason, number in reasons.items()) + ".")
    lines += [
        "",
        f"![{facts.label_kind} of {facts.title}]({name}.png)",
        "",
        "## Preprocessing",
        "",
        *(f"- {line}" for line in facts.preprocessing),
        "",
        "## Known problems",
        "",
        *(f"- {line}" for line in facts.problems),
        "",
        "## Counted from",
        "",
        *(f"- `{file.partition('/')[2]}`, sha256 `{digest}`" for file, digest in checksums.items() if file.startswith(f"{name}/")),
        "",
    ]
    return "\n".join(lines)


def _draw_labels(path: Path, facts: _Facts, splits: dict[str, Any]) -> None:
    counts: Counter[str] = Counter()
    for split in SPLITS:
        counts.update(splits[split]["labels"].get(facts.label_kind, {}))
    names = [name for name, _ in counts.most_common()]
    figure = Figure(figsize=(8, 0.6 + 0.24 * len(names)), layout="constrained")
    axis = figure.subplots()
    left = [0] * len(names)
    for split, colour in zip(SPLITS, ("#2a6f97", "#9db4c0", "#c8553d"), strict=True):
        values = [splits[split]["labels"].get(facts.label_kind, {}).get(name, 0) for name in names]
        axis.barh(names, values, left=left, color=colour, label=split)
        left = [start + value for start, value in zip(left, values, strict=True)]
    axis.invert_yaxis()
    axis.margins(y=0.01)
    axis.set_xlabel(f"{facts.label_kind} (count)")
    axis.set_title(facts.title, loc="left", fontsize=11)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(axis="y", labelsize=8)
    axis.legend(frameon=False, fontsize=8)
    write_picture(path, figure, dpi=110)
