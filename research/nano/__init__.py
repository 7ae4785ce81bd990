"""The stages of `pretrain_nano.py`."""
