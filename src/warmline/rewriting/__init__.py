"""Replies in the base's own words: `warmline rewrite`. A change of what the companion should sound like belongs in `assets/voice.md`,
what a reply must not be in `flaws.py`.
"""
