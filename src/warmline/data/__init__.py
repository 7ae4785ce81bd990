"""From a run's sources to packed batches. Knows nothing of models.

A chat template is added in `templates/` and `template.py`; where heads read (`encoding.py`) and that rows are never cut (`packing.py`) are
contracts. Data sets stand in `sources/`, labels in `tasks/`.
"""
