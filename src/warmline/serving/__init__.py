"""Talk to a run: one engine, and before it a terminal, OpenAI's API and a page.

Everything that a person or a client meets may be changed here; what the heads say is `companion`'s, what the guard says `safety`'s.
"""

from importlib.util import find_spec

from warmline.errors import WarmlineError

_EXTRA = ("fastapi", "uvicorn", "prometheus_client")


def require_extra() -> None:
    """Say how to install what the server needs.

    Raises:
        WarmlineError: it is not installed.
    """
    missing = [name for name in _EXTRA if find_spec(name) is None]
    if missing:
        raise WarmlineError(f"serve: {', '.join(missing)} not installed; `pip install 'warmline[serve]'`")
