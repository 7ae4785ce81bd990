"""The engine of the ordinary tests."""

from tests.serving.conftest import engine

__all__ = ["engine"]
