"""Deterministic safety: hotlines by country."""
