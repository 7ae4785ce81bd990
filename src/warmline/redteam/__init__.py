"""What is measured of safety: the prompts, the flags on replies, people's and a judge's verdicts, the sheet, and how well the guard hears.

A prompt is added in `assets/safety/red_team.yaml`, a flag in `flags.py`, a number in `summary.py`. Nothing here runs beside a chat.
"""
