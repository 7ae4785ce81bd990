"""The scenarios and prompts of a suite: EQ-Bench 3's official files, pinned by commit and sha256, or the six written for this project."""

import hashlib
import json
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Literal, NamedTuple

from warmline.data.enabled import fetched_dir
from warmline.errors import WarmlineError
from warmline.paths import expand_home
from warmline.sources.files import split_lines
from warmline.sources.source import RemoteFile

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

Kind = Literal["role_play", "drafting", "analysis"]

SECTION_LIMITS = (2200, 1600, 1600)
"""Characters that the pairwise judge sees of each section of a reply."""

_SCENARIO = re.compile(r"########\s*(\S+)(.*)")
_PROMPT = re.compile(r"#######\s*Prompt\d+")
_HEADING = re.compile(r"^# (.+)$", re.MULTILINE)
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_JSON_KEY = re.compile(r'^\s*"(\w+)":', re.MULTILINE)
_REASONING = "chain_of_thought_reasoning"
_ANALYSIS_IDS, _DRAFTING_IDS = range(401, 421), range(201, 210)
_SCORED_ROLE_PLAY = (
    "demonstrated_empathy", "pragmatic_ei", "depth_of_insight", "social_dexterity", "emotional_reasoning", "message_tailoring",
)  # fmt: skip


class Scenario(NamedTuple):
    """One task.

    Attributes:
        id: As in the suite's files.
        kind: Which prompts go with it.
        title: For people.
        prompts: The user's turns; they are fixed, whatever the model answers.
        notes: For the pairwise judge.
    """

    id: str
    kind: Kind
    title: str
    prompts: tuple[str, ...]
    notes: str

    @property
    def debriefed(self) -> bool:
        """Whether the model reflects on the scenario at the end; an analysis is not debriefed."""
        return self.kind != "analysis"


class Form(NamedTuple):
    """The prompts of one kind of scenario.

    Attributes:
        master: Wraps every user turn; `{scenario_prompt}` is the turn.
        headings: Of the sections a reply must have, in order; none for an analysis.
        rubric: The rubric judge's prompt.
        rubric_criteria: What the rubric judge is asked for.
        scored: Those of them that make the score; the others describe style.
        pairwise: The pairwise judge's prompt.
    """

    master: str
    headings: tuple[str, ...]
    rubric: str
    rubric_criteria: tuple[str, ...]
    scored: tuple[str, ...]
    pairwise: str

    @property
    def pairwise_criteria(self) -> tuple[str, ...]:
        """The keys of the JSON that the pairwise prompt asks for."""
        return tuple(key for key in _JSON_KEY.findall(self.pairwise) if key != _REASONING)

    @property
    def output_format(self) -> str:
        """The JSON that the rubric prompt asks for."""
        reasoning = {_REASONING: "detailed chain of thought reasoning about the coming scoring decisions"}
        return json.dumps({**reasoning, **dict.fromkeys(self.rubric_criteria, 0)}, indent=2).replace(": 0", ": 0-20")


class Suite(NamedTuple):
    """Everything a run of the benchmark asks.

    Attributes:
        name: What its results are called.
        official: Whether they may be called EQ-Bench 3.
        revision: Commit or version of the files.
        scenarios: In the order of the file.
        forms: The prompts of each kind.
        debrief: The last user turn of a role-play or a draft.
        labels: What the pairwise prompt calls the first and the second respondent.
        sha256: Of every file.
        dropped: Ids that stand in the file but do not load, as in the official harness.
    """

    name: str
    official: bool
    revision: str
    scenarios: tuple[Scenario, ...]
    forms: Mapping[Kind, Form]
    debrief: str
    labels: tuple[str, str]
    sha256: dict[str, str]
    dropped: tuple[str, ...] = ()

    def form(self, scenario: Scenario) -> Form:
        """The prompts of a scenario."""
        return self.forms[scenario.kind]

    @property
    def turns(self) -> int:
        """User turns of all scenarios, debriefs aside."""
        return sum(len(scenario.prompts) for scenario in self.scenarios)

    @property
    def debriefs(self) -> int:
        """Scenarios that end with one."""
        return sum(scenario.debriefed for scenario in self.scenarios)


def fill(template: str, **values: str) -> str:
    """The template with each `{name}` that has a value replaced, once: text that is put in is not searched again."""
    return _PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), template)


def official_suite(folder: Path) -> Suite:
    """EQ-Bench 3 from its official files.

    Args:
        folder: Holds them, at the pinned revision.

    Raises:
        WarmlineError: a file is missing or not that of the pinned revision.
    """
    texts = read_pinned(folder, EQBENCH3_SHA256)
    notes = parse_notes(texts["scenario_notes.txt"])
    scenarios, dropped = parse_scenarios(texts["scenario_prompts.txt"], notes)
    standard = tuple(texts["rubric_scoring_criteria.txt"].split())
    analysis = tuple(texts["rubric_scoring_criteria_analysis.txt"].split())
    rubric, pairwise = texts["rubric_scoring_prompt.txt"], texts["pairwise_prompt_eqbench3.txt"]
    return Suite(
        "EQ-Bench 3",
        True,
        f"EQ-bench/eqbench3@{EQBENCH3_COMMIT}",
        scenarios,
        {
            "role_play": _form(texts["scenario_master_prompt.txt"], rubric, standard, _SCORED_ROLE_PLAY, pairwise),
            "drafting": _form(texts["scenario_master_prompt_message_drafting.txt"], rubric, standard, _SCORED_ROLE_PLAY, pairwise),
            "analysis": _form(
                texts["scenario_master_prompt_analysis.txt"],
                texts["rubric_scoring_prompt_analysis.txt"],
                analysis,
                analysis,
                texts["pairwise_prompt_eqbench3_analysis.txt"],
            ),
        },
        texts["debrief_prompt.txt"],
        ("A0493", "A0488"),
        dict(EQBENCH3_SHA256),
        dropped,
    )


def sample_suite() -> Suite:
    """The six scenarios written for this project, with prompts of their own; nothing measured with them is EQ-Bench."""
    folder = Path(str(resources.files("warmline") / "assets" / "eqbench_sample"))
    contents = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix in (".json", ".txt")}
    texts = {name: content.decode("utf-8") for name, content in contents.items()}
    suite = json.loads(texts["suite.json"])
    forms: dict[Kind, Form] = {}
    kinds: tuple[Kind, ...] = ("role_play", "analysis")
    for kind in kinds:
        criteria, scored = tuple(suite["rubric_criteria"][kind]), tuple(suite["scored"][kind])
        forms[kind] = _form(texts[f"{kind}.txt"], texts[f"rubric_{kind}.txt"], criteria, scored, texts[f"pairwise_{kind}.txt"])
    scenarios = tuple(
        Scenario(item["id"], item["kind"], item["title"], tuple(item["prompts"]), item["notes"]) for item in suite["scenarios"]
    )
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    first, second = suite["labels"]
    return Suite("warmline-six", False, suite["version"], scenarios, forms, texts["debrief.txt"], (first, second), sums)


def parse_scenarios(text: str, notes: Mapping[str, str]) -> tuple[tuple[Scenario, ...], tuple[str, ...]]:
    """The scenarios of `scenario_prompts.txt`, as the official harness reads it.

    A scenario opens with eight `#`, a prompt with seven and the word Prompt; lines between a scenario's and its first prompt's are not
    read. Id 409 has `####### 1` instead, so it has no prompt and is dropped: 45 scenarios load of 46.

    Args:
        text: The file's.
        notes: For the judge, by id.

    Returns:
        The scenarios, and the ids that were dropped.

    Raises:
        WarmlineError: no scenario, or an id that is no number.
    """
    prompts: dict[str, list[list[str]]] = {}
    titles: dict[str, str] = {}
    current = ""
    for line in split_lines(text):
        if opening := _SCENARIO.match(line.strip()):
            current = opening[1]
            prompts[current], titles[current] = [], opening[2].rpartition("|")[2].strip()
        elif current and _PROMPT.match(line.strip()):
            prompts[current].append([])
        elif current and prompts[current]:
            prompts[current][-1].append(line.rstrip("\r"))
    found = {name: tuple(text for part in parts if (text := "\n".join(part).strip())) for name, parts in prompts.items()}
    if not any(found.values()):
        raise WarmlineError("scenario_prompts.txt: no scenario found; expected lines like `######## 1 | category | title`")
    scenarios = tuple(Scenario(name, _kind(name), titles[name], turns, notes.get(name, "")) for name, turns in found.items() if turns)
    return scenarios, tuple(name for name, turns in found.items() if not turns)


def parse_notes(text: str) -> dict[str, str]:
    """The judge's notes by scenario id: a line `# 301` opens those of 301."""
    notes: dict[str, list[str]] = {}
    current = ""
    for line in split_lines(text):
        if line.startswith("# "):
            current = line.strip("# \r")
            notes[current] = []
        elif current:
            notes[current].append(line.rstrip("\r"))
    return {name: "\n".join(lines).strip() for name, lines in notes.items()}


def _kind(name: str) -> Kind:
    if not name.isdecimal():
        raise WarmlineError(f"scenario_prompts.txt: scenario id `{name}` is no number; the kinds of scenario are told apart by it")
    number = int(name)
    return "analysis" if number in _ANALYSIS_IDS else "drafting" if number in _DRAFTING_IDS else "role_play"


def _form(master: str, rubric: str, criteria: tuple[str, ...], scored: tuple[str, ...], pairwise: str) -> Form:
    return Form(master, tuple(heading.strip() for heading in _HEADING.findall(master)), rubric, criteria, scored, pairwise)


def find_eqbench3(folder: Path | None) -> Path | None:
    """The folder with the files of EQ-Bench 3, in `folder` or among the fetched data; None where there is none."""
    return _find(folder, "eqbench3", "scenario_prompts.txt")


def find_eqbench2(folder: Path | None) -> Path | None:
    """The folder with the questions of EQ-Bench v2, in `folder`, beside it, or among the fetched data; None where there is none."""
    return _find(folder, "eqbench_v2", "eq_bench_v2_questions_171.json")


def _find(named: Path | None, name: str, file: str) -> Path | None:
    root = expand_home(named) if named is not None else fetched_dir()
    beside = root.resolve()
    folders = (root, root / "data", root / name, root / name / "data", beside.parent / name / "data", beside.parent.parent / name / "data")
    return next((folder for folder in folders if (folder / file).is_file()), None)


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
