"""What `warmline.data.packing.collate` must give, one token at a time."""

from collections.abc import Sequence

from tests.reference.earlier import slow_features
from warmline.data.encoding import EncodedSource
from warmline.data.mixture import Draw


def slow_collate(sources: Sequence[EncodedSource], rows: Sequence[Sequence[Draw]]) -> dict[str, list]:
    """The fields of a `Batch` as plain lists, those of its heads as `head.field`."""
    batch: dict[str, list] = {
        name: []
        for name in (
            "tokens", "position_ids", "lm_positions", "lm_targets", "safety_positions", "safety_weights", "safety_draws",
            "emotion.positions", "emotion.targets", "emotion.earlier", "strategy.positions", "strategy.targets", "strategy.earlier",
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
            for place, bits in conversation.labels["emotion"].tolist() if "emotion" in conversation.labels else []:
                batch["emotion.positions"].append(start + place)
                batch["emotion.targets"].append([float(bits // 2**label % 2) for label in range(28)])
                batch["emotion.earlier"].append([])
            used: list[list[float]] = []
            for place, bits in conversation.labels["strategy"].tolist() if "strategy" in conversation.labels else []:
                batch["strategy.earlier"].append(slow_features(used))
                used.append([float(bits // 2**label % 2) for label in range(8)])
                batch["strategy.positions"].append(start + place)
                batch["strategy.targets"].append(used[-1])
            batch["bounds"].append(len(batch["tokens"]))
    return batch
