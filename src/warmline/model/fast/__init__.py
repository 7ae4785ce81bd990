"""The fused path on CUDA, and attention inside bounds everywhere: replaceable as a whole; the plain path is its reference in the tests."""
