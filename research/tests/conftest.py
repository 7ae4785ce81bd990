"""The product's fixtures: a tiny model, a finished run of it, the real data where they are."""

from tests.conftest import _surroundings, finished, pytest_configure, shared, tiny_config, tiny_model

__all__ = ["_surroundings", "finished", "pytest_configure", "shared", "tiny_config", "tiny_model"]
