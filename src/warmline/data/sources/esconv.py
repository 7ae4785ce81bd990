"""ESConv in its official `ESConv.json` (Liu et al., ACL 2021, arXiv 2106.01144; CC BY-NC 4.0).

Seeker is our user, supporter our assistant; a supporter often sends several messages in a row, and each stays a turn of its own with
its own strategy. Of the survey fields (`situation`, `emotion_type`, `problem_type`, scores, feedback) none is read: they were written
before or after the chat, and the model will not have them.
"""

import json
import random
from pathlib import Path
from typing import Any

from warmline.data.conversation import Conversation, Loaded, Split, Turn
from warmline.data.labels import STRATEGIES
from warmline.data.sources.files import message_text, read_text
from warmline.errors import WarmlineError

SPLIT_SEED = 13
HELD_OUT_FRACTION = 0.15


def load(folder: Path, split: Split) -> Loaded:
    """Load one split of the published conversion: shuffle with `random.seed(13)`, 15 % valid, the next 15 % test, the rest train.

    Args:
        folder: Holds ESConv.json.
        split: Which part.

    Returns:
        One conversation a dialogue; `id` is the dialogue's 0-based place in the file.

    Raises:
        WarmlineError: a missing or damaged file, a dialogue that does not fit, an unknown strategy.
    """
    path = folder / "ESConv.json"
    text = read_text(path)
    try:
        dialogues = json.loads(text)
    except json.JSONDecodeError as error:
        raise WarmlineError(f"{path}:{error.lineno}: not valid JSON ({error.msg}); the file is truncated, fetch it again") from None
    if not isinstance(dialogues, list) or not dialogues:
        raise WarmlineError(f"{path}: expected a list of dialogues; this is not an official ESConv.json")
    chosen = split_indices(len(dialogues))[split]
    conversations = tuple(_conversation(path, index, dialogues[index]) for index in chosen)
    return Loaded(conversations, rows=len(conversations), left_out={})


def split_indices(dialogues: int) -> dict[Split, list[int]]:
    """Places in `ESConv.json` of each split's dialogues, in the order of the published conversion."""
    order = list(range(dialogues))
    random.Random(SPLIT_SEED).shuffle(order)
    held_out = int(dialogues * HELD_OUT_FRACTION)
    return {"valid": order[:held_out], "test": order[held_out : 2 * held_out], "train": order[2 * held_out :]}


def _conversation(path: Path, index: int, dialogue: Any) -> Conversation:
    place = f"{path}: dialogue {index}"
    messages = dialogue.get("dialog") if isinstance(dialogue, dict) else None
    if not isinstance(messages, list) or not messages:
        raise WarmlineError(f"{place}: expected a non-empty list under `dialog`; remove the dialogue or fetch the file again")
    return Conversation(str(index), tuple(_turn(f"{place}, message {at}", message) for at, message in enumerate(messages)))


def _turn(place: str, message: Any) -> Turn:
    if not isinstance(message, dict):
        raise WarmlineError(f"{place}: expected an object with speaker, annotation and content")
    speaker, text = message.get("speaker"), message_text(message.get("content"), place)
    if speaker == "seeker":
        return Turn("user", text)
    if speaker != "supporter":
        raise WarmlineError(f"{place}: speaker is `{speaker}`, expected seeker or supporter")
    annotation = message.get("annotation")
    strategy = annotation.get("strategy") if isinstance(annotation, dict) else None
    if strategy not in STRATEGIES:
        raise WarmlineError(f"{place}: unknown strategy `{strategy}`, expected one of: {', '.join(STRATEGIES)}")
    return Turn("assistant", text, strategy=strategy)
