"""What `warmline.data.packing.collate` must give, one token at a time."""

from collections.abc import Sequence

from tests.reference.earlier import slow_features
from warmline.data.encoding import EncodedSource
from warmline.data.mixture import Draw


def slow_collate(sources: Sequence[EncodedSource], rows: Sequence[Sequence[Draw]]) -> dict[str, list]:
    """The fields of a `Batch` as plain lists."""
    batch: dict[str, list] = {
        name: []
        for name in (
            "tokens", "position_ids", "lm_positions", "lm_targets", "emotion_positions", "emotion_targets",
            "strategy_positions", "strategy_targets", "strategy_earlier", "safety_positions", "safety_weights", "safety_draws",
        )
    }  # fmt: skip
    batch["bounds"] = [0]
    for row in rows:
        for draw in row:
            source = sources[draw.source]
            conversation = source[draw.conversation]
            start = len(batch["tokens"])
            for place, token in enumerate(conversation.tokens.tolist()):
                batch["tokens"].append(token)
                batch["position_ids"].append(place)
            reply_places = [place for first, end in conversation.replies.tolist() for place in range(first, end)]
            for place in reply_places:
                if "lm" in source.objectives:
                    batch["lm_positions"].append(start + place - 1)
                    batch["lm_targets"].append(int(conversation.tokens[place]))
                if "safety" in source.objectives:
                    batch["safety_positions"].append(start + place - 1)
                    batch["safety_weights"].append(1 / len(reply_places))
            if reply_places and "safety" in source.objectives:
                batch["safety_draws"].append(draw)
            for place, bits in conversation.emotion.tolist():
                batch["emotion_positions"].append(start + place)
                batch["emotion_targets"].append([float(bits // 2**label % 2) for label in range(28)])
            used: list[int] = []
            for place, label in conversation.strategy.tolist():
                batch["strategy_earlier"].append(slow_features([[float(strategy == one) for strategy in range(8)] for one in used]))
                used.append(label)
                batch["strategy_positions"].append(start + place)
                batch["strategy_targets"].append([float(strategy == label) for strategy in range(8)])
            batch["bounds"].append(len(batch["tokens"]))
    return batch
