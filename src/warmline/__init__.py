"""warmline: fine-tune an open LLM into an empathetic friend, and prove what changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from warmline.companion import Companion

__version__ = "0.1.0"


def load(run: str | Path, base: str | None = None, strength: float = 1.0) -> Companion:
    """Open a finished run folder.

    Args:
        run: A folder that `warmline train` or `warmline export` made.
        base: Hub id or folder of its base model, where that is not under the name in the run's `config.yaml`.
        strength: Of the adapter: 0 is the base, 1 as trained.

    Returns:
        An object with `.read(messages)` and `.reply(messages)`.

    Raises:
        WarmlineError: no finished run there, or its parts do not belong together.
    """
    from warmline.companion import Companion  # torch and transformers take seconds: only when needed
    from warmline.paths import expand_home, expand_home_in_name

    return Companion.open(expand_home(Path(run)), base and expand_home_in_name(base), strength)
