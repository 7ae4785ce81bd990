"""What runs beside a chat: the guard that hears risk, the fixed messages that it shows, and the hotlines of each country.

A rule is added in `patterns.py`, a spelling in `guard.normalise`, a country in `crisis.py`; `warmline guard` says what it changed.
"""
