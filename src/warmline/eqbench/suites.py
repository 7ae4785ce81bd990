"""The scenarios and prompts of a suite: EQ-Bench 3's official files, or the six scenarios written for this project."""

import hashlib
import json
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Literal, NamedTuple

from warmline.data.sources.files import split_lines
from warmline.eqbench.fetch import EQBENCH3_COMMIT, EQBENCH3_SHA256, read_pinned
from warmline.errors import WarmlineError

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
    "demonstrated_empathy",
    "pragmatic_ei",
    "depth_of_insight",
    "social_dexterity",
    "emotional_reasoning",
    "message_tailoring",
)


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
