"""A finished run as others can use it: adapter, merged weights, heads and a model card, in a folder or on a hub.

A format is added beside `merge.py`; that it is compared with what was scored before it is written is the promise.
"""
