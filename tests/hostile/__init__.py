"""Hostile input: generators of cases, and one promise each."""
