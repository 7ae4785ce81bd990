"""From the JSON of a finished run to a report that a person reads."""
