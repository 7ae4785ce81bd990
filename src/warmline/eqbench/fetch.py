"""The benchmark files: where they come from, at which commit, and what their bytes must be."""

import hashlib
from pathlib import Path

from warmline.data.fetch import RemoteFile
from warmline.data.sources import fetched_dir
from warmline.errors import WarmlineError
from warmline.paths import expand_home

EQBENCH3_COMMIT = "3c21bcc514bd43f93a00a5cf9c630aa3eb73a380"
"""Of github.com/EQ-bench/eqbench3."""
EQBENCH2_COMMIT = "d28c60c514fe6667dc5818114ed10088f91f09f3"
"""Of github.com/EQ-bench/EQ-Bench, branch main_v2_3; the questions are the same in main_v2_0 to main_v2_3."""

EQBENCH3_SHA256: dict[str, str] = {
    "scenario_prompts.txt": "736f67a8f18ef5bba1f4eca89e60daef1a26ac58c8fea956560726357da39cae",
    "scenario_notes.txt": "d66a4463bdd45d2a32dac04afcf448346fa4d9cb20e2dbd50c424c86055e2ff9",
    "scenario_master_prompt.txt": "8f76e06423fa6110e2afe9e88561b3511fc97a68dcd1aa1a4459c7af6424785c",
    "scenario_master_prompt_message_drafting.txt": "719dc595c4fb3127a0347bbd90ceb2af7bdb5f86a0218df3cc51888a31b3f133",
    "scenario_master_prompt_analysis.txt": "b5773ced14ab7fc6d96ae1d6a0da981d7797804359a38d4992ad530edb3915e9",
    "debrief_prompt.txt": "5f63279c27e444b7f8b154a190f9ce10a79d4d9cebb556fae97c70346f52c6fa",
    "rubric_scoring_criteria.txt": "11fefca1f467bbabfab8618731338aeeb167141c80756bf2d040d000d8318727",
    "rubric_scoring_criteria_analysis.txt": "a83e91be22a4233c364c7cd3e611702360af94d045b170b6a88848dabf9d4d21",
    "rubric_scoring_prompt.txt": "423612b81594601548bf4625ca32c4400637fb3876171a153f3067cbcc0ec939",
    "rubric_scoring_prompt_analysis.txt": "78927fbb695c5c5374ce23ce39a1add4033abc5c99870e6be9747368df0e3f96",
    "pairwise_prompt_eqbench3.txt": "6b0be4d94f089a53e207ef4d916f078bae72609c9f2a4101e0ee1bb33d83b3fd",
    "pairwise_prompt_eqbench3_analysis.txt": "9ad372bc6feac6bdbd5c0e7c6f0adc01c50fcbeff54edd0721d0bbc76f675bf4",
}
EQBENCH2_SHA256: dict[str, str] = {
    "eq_bench_v2_questions_171.json": "b4e9bf11df7e88bc12381efab18565f8b0ff0d4743fe8708c4482df91c4e617a",
}

_MOST = 2**20
"""Bytes: more than any of them has."""
_RAW = "https://raw.githubusercontent.com"
EQBENCH_FILES: tuple[RemoteFile, ...] = (
    *(
        RemoteFile("eqbench3/data", name, f"{_RAW}/EQ-bench/eqbench3/{EQBENCH3_COMMIT}/data/{name}", f"sha256:{digest}", _MOST)
        for name, digest in EQBENCH3_SHA256.items()
    ),
    *(
        RemoteFile("eqbench_v2/data", name, f"{_RAW}/EQ-bench/EQ-Bench/{EQBENCH2_COMMIT}/data/{name}", f"sha256:{digest}", _MOST)
        for name, digest in EQBENCH2_SHA256.items()
    ),
)
"""What `warmline data fetch --eqbench` gets; both repositories are MIT-licensed."""


def find_eqbench3(folder: Path | None) -> Path | None:
    """The folder with the files of EQ-Bench 3, in `folder` or among the fetched data; None where there is none."""
    return _find(folder, "eqbench3", "scenario_prompts.txt")


def find_eqbench2(folder: Path | None) -> Path | None:
    """The folder with the questions of EQ-Bench v2, in `folder`, beside it, or among the fetched data; None where there is none."""
    return _find(folder, "eqbench_v2", "eq_bench_v2_questions_171.json")


def _find(folder: Path | None, name: str, file: str) -> Path | None:
    root = expand_home(folder) if folder is not None else fetched_dir()
    beside = root.resolve()
    places = (root, root / "data", root / name, root / name / "data", beside.parent / name / "data", beside.parent.parent / name / "data")
    return next((place for place in places if (place / file).is_file()), None)


def read_pinned(folder: Path, digests: dict[str, str]) -> dict[str, str]:
    """The text of every file, after its sha256 was compared with the pinned one.

    Args:
        folder: Holds them.
        digests: sha256 by file name.

    Raises:
        WarmlineError: a file is missing, unreadable, or not that of the pinned revision.
    """
    mend = "get it with `warmline data fetch --eqbench` or name a complete copy with --eqbench-dir"
    texts = {}
    for name, digest in digests.items():
        path = folder / name
        try:
            content = path.read_bytes()
        except OSError as error:
            raise WarmlineError(f"{path}: cannot be read ({error.strerror}); {mend}") from None
        found = hashlib.sha256(content).hexdigest()
        if found != digest:
            raise WarmlineError(f"{path}: sha256 is {found[:16]}..., expected {digest[:16]}... of the pinned revision; {mend}")
        texts[name] = content.decode("utf-8")
    return texts
