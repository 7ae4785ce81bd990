"""A finished run as others can use it: adapter, merged weights, heads and a model card, in a folder or on a hub."""
