"""What `study.py tune` tries."""

_ALONE = {name: f"data.sources.{name}.enabled=false" for name in ("empathetic_dialogues", "esconv", "goemotions", "safety")}
_EMOTION = (_ALONE["empathetic_dialogues"], _ALONE["esconv"], _ALONE["safety"], "training.rows_per_micro_batch=2")
_STRATEGY = (_ALONE["empathetic_dialogues"], _ALONE["goemotions"], _ALONE["safety"], "training.rows_per_micro_batch=3",
             "data.sources.esconv.objectives=[strategy]")  # fmt: skip
_WHOLE = ("lora=null", "model.load_in_4bit=false")

START = (
    "training.epochs=2", "training.learning_rate=3e-4", "training.rows_per_micro_batch=8", "loss.emotion=1.0", "loss.strategy=1.0",
    "heads.emotion.class_weights=0", "heads.emotion.hidden_size=null",
    "heads.strategy.class_weights=0", "heads.strategy.hidden_size=null",
)  # fmt: skip
"""What every trial starts from, whatever the configuration has learned from them since."""

TRIALS: dict[str, tuple[str, ...]] = {
    "joint": (),
    "strategy": _STRATEGY,
    "joint-lr1e-3": ("training.learning_rate=1e-3",),
    "strategy-drop": (*_STRATEGY, "heads.strategy.dropout=0.5"),
    "emotion": _EMOTION,
    "joint-heads0.3": ("loss.emotion=0.3", "loss.strategy=0.3"),
    "strategy-lr1e-3": (*_STRATEGY, "training.learning_rate=1e-3"),
    "joint-epochs3": ("training.epochs=3",),
    "joint-weights": ("heads.emotion.class_weights=0.25", "heads.strategy.class_weights=0.25"),
    "emotion-whole3": (*_EMOTION, *_WHOLE, "training.learning_rate=5e-5", "training.epochs=3"),
    "emotion-epochs4-drop": (*_EMOTION, "training.epochs=4", "heads.emotion.dropout=0.3"),
    "emotion-lr1e-3": (*_EMOTION, "training.learning_rate=1e-3"),
    "strategy-plain": (*_STRATEGY, "heads.strategy.earlier_strategies=false"),
    "strategy-sqrt": (*_STRATEGY, "heads.strategy.class_weights=0.5"),
    "emotion-drop": (*_EMOTION, "heads.emotion.dropout=0.3"),
    "strategy-epochs4": (*_STRATEGY, "training.epochs=4"),
    "emotion-epochs4": (*_EMOTION, "training.epochs=4"),
    "strategy-lm": (*_STRATEGY, "data.sources.esconv.objectives=[lm,strategy]"),
    "joint-alpha0.7": ("data.alpha=0.7",),
    "emotion-28": (*_EMOTION, "data.sources.goemotions.labels=28"),
    "emotion-whole": (*_EMOTION, *_WHOLE, "training.learning_rate=3e-5"),
    "emotion-r64": (*_EMOTION, "lora.r=64", "lora.alpha=64"),
    "emotion-sqrt": (*_EMOTION, "heads.emotion.class_weights=0.5"),
    "emotion-head3e-3": (*_EMOTION, "training.head_learning_rate=3e-3"),
    "strategy-head3e-3": (*_STRATEGY, "training.head_learning_rate=3e-3"),
    "strategy-hidden": (*_STRATEGY, "heads.strategy.hidden_size=256"),
    "joint-whole": (*_WHOLE, "training.learning_rate=3e-5"),
    "joint-r64": ("lora.r=64", "lora.alpha=64"),
}
"""What is tried, and what each trial changes of START: one head alone, or everything together as the study trains. What may
decide most stands first, since `--minutes` cuts off the end."""
