"""From the JSON of a finished run to a report that a person reads.

A section is a template in `templates/` and a line in `report.SECTIONS`. No number is typed, and no word claims more than its interval.
"""
