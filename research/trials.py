"""What `study.py tune` tries, and what `study.py teach` trains."""

_ALONE = {name: f"data.sources.{name}.enabled=false" for name in ("empathetic_dialogues", "esconv", "goemotions", "safety")}
_EMOTION = (_ALONE["empathetic_dialogues"], _ALONE["esconv"], _ALONE["safety"], "training.rows_per_micro_batch=2")
_STRATEGY = (_ALONE["empathetic_dialogues"], _ALONE["goemotions"], _ALONE["safety"], "training.rows_per_micro_batch=3",
             "data.sources.esconv.objectives=[strategy]")  # fmt: skip
_WHOLE = ("lora=null", "training.learning_rate=3e-5")
_LAYER10 = ("heads.layer=10", "heads.emotion.final_states=true", "training.learning_rate=1e-3")
_REPLIES = (_ALONE["goemotions"], _ALONE["safety"])
_NEXT = (
    "training.learning_rate=1e-3", "training.rows_per_micro_batch=4", "loss.strategy=0.3", "heads.emotion.class_weights=0.5",
    "heads.strategy.class_weights=0.25", "heads.strategy.refit=1e-4",
)  # fmt: skip
_ENSEMBLE = {
    head: (f"heads.{head}.refit=null", f"heads.{head}.hidden_size=1024", f"heads.{head}.ensemble=8") for head in ("emotion", "strategy")
}


def _taught_by(*names: str) -> str:
    """The setting with which runs of `study.py teach` teach, at every seed."""
    return f"distill.teachers=[{', '.join(f'runs/teachers/{name}-seed{seed}' for name in names for seed in range(13, 18))}]"


_TOLD = (*_NEXT, *_ENSEMBLE["strategy"], _taught_by("emotion", "strategy-replies"))
_PLAIN = ("heads.emotion.pooling=last", "heads.strategy.earlier_strategies=false")

START = (
    "training.epochs=2", "training.learning_rate=3e-4", "training.rows_per_micro_batch=8", "loss.emotion=1.0", "loss.strategy=1.0",
    "distill.teachers=[]",
    "heads.emotion.class_weights=0", "heads.emotion.refit=null", "heads.emotion.hidden_size=null", "heads.emotion.ensemble=null",
    "heads.strategy.class_weights=0", "heads.strategy.refit=null", "heads.strategy.hidden_size=null", "heads.strategy.ensemble=null",
    "heads.emotion.thresholds=null", "heads.strategy.thresholds=null",
)  # fmt: skip
"""What every trial starts from, whatever the configuration has learned from them since."""

TRIALS: dict[str, tuple[str, ...]] = {
    "joint": (),
    "strategy": _STRATEGY,
    "strategy-layer10": (*_STRATEGY, "heads.layer=10"),
    "joint-lr1e-3": ("training.learning_rate=1e-3",),
    "strategy-drop": (*_STRATEGY, "heads.strategy.dropout=0.5"),
    "emotion-layer10": (*_EMOTION, "heads.layer=10"),
    "emotion": _EMOTION,
    "joint-heads0.3": ("loss.emotion=0.3", "loss.strategy=0.3"),
    "strategy-lr1e-3": (*_STRATEGY, "training.learning_rate=1e-3"),
    "joint-epochs3": ("training.epochs=3",),
    "joint-layer10": _LAYER10,
    "joint-layer10-small-steps": (*_LAYER10, "training.rows_per_micro_batch=4"),
    "joint-layer10-emotion2": (*_LAYER10, "loss.emotion=2"),
    "joint-layer10-weights": (*_LAYER10, "heads.emotion.class_weights=0.25", "heads.strategy.class_weights=0.25"),
    "joint-next": (*_NEXT, _taught_by("emotion")),
    "joint-next-told": (*_NEXT, _taught_by("emotion", "strategy-replies")),
    "joint-next-ensemble": (*_NEXT, *_ENSEMBLE["strategy"], _taught_by("emotion")),
    "joint-next-told-ensemble": _TOLD,
    "joint-next-emotion-ensemble": (*_NEXT, *_ENSEMBLE["emotion"], _taught_by("emotion")),
    "joint-told-epochs3": (*_TOLD, "training.epochs=3"),
    "joint-told-epochs4": (*_TOLD, "training.epochs=4"),
    "joint-told-twice": (*_NEXT, *_ENSEMBLE["strategy"], _taught_by("emotion", "emotion-again", "strategy-replies")),
    "joint-told-r32": (*_TOLD, "lora.r=32", "lora.alpha=32"),
    "emotion-whole3": (*_EMOTION, "lora=null", "training.learning_rate=5e-5", "training.epochs=3"),
    "emotion-epochs4-drop": (*_EMOTION, "training.epochs=4", "heads.emotion.dropout=0.3"),
    "strategy-layer10-epochs4-drop": (*_STRATEGY, "heads.layer=10", "training.epochs=4", "heads.strategy.dropout=0.3"),
    "strategy-smooth": (*_STRATEGY, "heads.strategy.label_smoothing=0.1"),
    "emotion-lr1e-3": (*_EMOTION, "training.learning_rate=1e-3"),
    "strategy-plain": (*_STRATEGY, *_PLAIN),
    "emotion-last": (*_EMOTION, *_PLAIN),
    "joint-less-emotion": (*_TOLD, "loss.emotion=0.3"),
    "joint-less-emotion-told": (*_TOLD, "loss.emotion=0.3", "distill.share=1"),
    "strategy-replies": (*_REPLIES, *_NEXT),
    "strategy-replies-again": (*_REPLIES, *_NEXT, *_ENSEMBLE["strategy"], _taught_by("strategy-replies")),
    "emotion-again": (*_EMOTION, _taught_by("emotion")),
    "emotion-bidirectional": (*_EMOTION, "model.bidirectional=true", "training.learning_rate=1e-3"),
    "emotion-wide": (*_EMOTION, "lora.r=64", "lora.alpha=64", "heads.emotion.class_weights=0.25"),
    "strategy-sqrt": (*_STRATEGY, "heads.strategy.class_weights=0.5"),
    "emotion-drop": (*_EMOTION, "heads.emotion.dropout=0.3"),
    "emotion-smooth": (*_EMOTION, "heads.emotion.label_smoothing=0.1"),
    "strategy-epochs4": (*_STRATEGY, "training.epochs=4"),
    "emotion-epochs4": (*_EMOTION, "training.epochs=4"),
    "strategy-lm": (*_STRATEGY, "data.sources.esconv.objectives=[lm,strategy]"),
    "joint-alpha0.7": ("data.alpha=0.7",),
    "emotion-28": (*_EMOTION, "data.sources.goemotions.labels=28"),
    "emotion-whole": (*_EMOTION, *_WHOLE),
    "emotion-r64": (*_EMOTION, "lora.r=64", "lora.alpha=64"),
    "emotion-situations": (
        *_EMOTION, "data.sources.empathetic_dialogues.enabled=true", "data.sources.empathetic_dialogues.situation_as_emotion=true",
        "data.sources.empathetic_dialogues.objectives=[emotion]",
    ),
    "emotion-sqrt": (*_EMOTION, "heads.emotion.class_weights=0.5"),
    "emotion-head3e-3": (*_EMOTION, "training.head_learning_rate=3e-3"),
    "strategy-head3e-3": (*_STRATEGY, "training.head_learning_rate=3e-3"),
    "strategy-hidden": (*_STRATEGY, "heads.strategy.hidden_size=256"),
    "joint-whole": _WHOLE,
    "joint-r64": ("lora.r=64", "lora.alpha=64"),
    "joint-situations": (
        "data.sources.empathetic_dialogues.situation_as_emotion=true", "data.sources.empathetic_dialogues.objectives=[lm,emotion]",
    ),
}  # fmt: skip
"""What is tried, and what each trial changes of START: one head alone, or everything together as the study trains. What may
decide most stands first, since `--minutes` cuts off the end."""

TEACHERS = ("strategy-replies", "emotion", "emotion-bidirectional", "emotion-28")
"""Trials whose runs teach the study's, each at every seed; those of 28 labels alone teach emotion to runs of 28. Longest first."""
