"""The heads: `TASKS` lists them, and each has one file that says all in which it differs from the others.

To add one: a subclass of `HeadTask` into `TASKS`, and `config.declare_fields()` before a configuration is read.
"""

from warmline.tasks.emotion import EmotionTask
from warmline.tasks.strategy import StrategyTask
from warmline.tasks.task import HeadTask

TASKS: dict[str, HeadTask] = {task.name: task for task in (EmotionTask(), StrategyTask())}
"""Every head that a run may have, by name, in the order of losses and tables."""


def all_objectives() -> tuple[str, ...]:
    """What conversations can train, in order: the language model, the heads, and the safety term."""
    return ("lm", *TASKS, "safety")
