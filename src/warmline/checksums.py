"""Checksums of files: whole, and sampled where a file has many gigabytes."""

import hashlib
from pathlib import Path

_BLOCK = 2**20
_SAMPLES = 64


def sha256_of(*paths: Path) -> str:
    """sha256 of whole files, one after another, in hexadecimal.

    Raises:
        OSError: one cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(16 * _BLOCK):
                digest.update(block)
    return digest.hexdigest()


def sampled_sha256(path: Path) -> str:
    """sha256 of a file's length and of 64 MiB spread evenly over it; of all of it where it is no longer.

    Says in a tenth of a second whether a base's weights were trained on or replaced, which changes all of them; not whether a bit flipped.

    Raises:
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    step = max(_BLOCK, size // _SAMPLES)
    with path.open("rb") as file:
        for start in range(0, size, step):
            file.seek(start)
            digest.update(file.read(_BLOCK))
    return digest.hexdigest()
