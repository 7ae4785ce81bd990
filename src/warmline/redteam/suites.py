"""What the models are asked: our own red-team suite, SimpleSafetyTests and XSTest, each from its file, with a pinned checksum; and whether
any of it stands in the training data, since then a model would be tested on what it learned.

The two public suites are not part of this package. A file that is not there is *reported* as missing, with how to get it, and its numbers
are absent; it is never left out of a mean without a word.
"""

import csv
import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from io import StringIO
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import yaml

from warmline.config import DataConfig
from warmline.conversation import Split
from warmline.data.enabled import EnabledSource, enabled_sources
from warmline.errors import WarmlineError
from warmline.plain_yaml import read_yaml
from warmline.redteam.flags import FLAGS
from warmline.sources import SOURCES
from warmline.sources.files import sample_dir

SuiteName = Literal["red_team", "simple_safety_tests", "xstest"]
Severity = Literal["red", "yellow", "none"]

ALWAYS_FORBIDDEN: tuple[str, ...] = ("method", "diagnosis", "invented_number", "possessive", "claims_human", "empty")
"""Flags that no reply to any item of our suite may raise."""

SHA256 = {
    "simple_safety_tests": "6d95a1301e0d0f3a3c4cf5392f4afff11ad6e3066f95d23aaa138d44aedf986c",
    "xstest": "11783fb294ed017473ee53c207d71f2161c7672c8d0b037501e78387f801cb5a",
}
_SOURCES = {
    "simple_safety_tests": "github.com/bertiev/SimpleSafetyTests at d7aee9a9422a5a5488f478fd79c2479c891c0f3b",
    "xstest": "github.com/paul-rottger/exaggerated-safety at d7bb5bd738c1fcbc36edd83d5e7d1b71a3e2d84d",
}


@dataclass(frozen=True, slots=True)
class Item:
    """One thing a model is asked.

    Attributes:
        suite: Where it comes from.
        id: Unique within its suite.
        category: Our category, SimpleSafetyTests' harm area, or XSTest's type.
        severity: How bad a bad reply would be; none for what is harmless.
        turns: The user's turns, in order; the model's own replies stand between them.
        risk: Whether the guard should raise an alarm; None where its task does not say.
        harmful: Whether the request itself asks for harm: SimpleSafetyTests, and XSTest's unsafe contrasts.
        must: What a good reply does, written beforehand, for people and judges.
        must_not: What no reply may do, written beforehand.
        expect: Flags that the reply to the last turn must raise.
        forbid: Flags that no reply may raise.
    """

    suite: SuiteName
    id: str
    category: str
    severity: Severity
    turns: tuple[str, ...]
    risk: bool | None
    harmful: bool
    must: tuple[str, ...] = ()
    must_not: tuple[str, ...] = ()
    expect: tuple[str, ...] = ()
    forbid: tuple[str, ...] = ()


class PromptSuite(NamedTuple):
    """A suite, or why it is not there.

    Attributes:
        name: Which.
        items: Empty when it is missing.
        sha256: Of its file; None when it is missing.
        missing: Why it is missing and how to mend that; None when it is there.
    """

    name: SuiteName
    items: tuple[Item, ...]
    sha256: str | None
    missing: str | None


def load_suites(suite_dir: Path | None = None) -> list[PromptSuite]:
    """Our suite, and the public ones where their files are.

    Args:
        suite_dir: Holds `simple_safety_tests/` and `xstest/` (or their files directly); None for our own suite alone.

    Raises:
        WarmlineError: a folder that is not there, a file that is not the official one.
    """
    if suite_dir is not None and not suite_dir.is_dir():
        raise WarmlineError(f"{suite_dir}: folder not found; --suite-dir names the folder that holds simple_safety_tests/ and xstest/")
    return [load_red_team(), load_simple_safety_tests(suite_dir), load_xstest(suite_dir)]


def red_team_path() -> Path:
    """Our own suite inside this package."""
    return Path(str(resources.files("warmline") / "assets" / "safety" / "red_team.yaml"))


def load_red_team(path: Path | None = None) -> PromptSuite:
    """Our own suite.

    Args:
        path: Another file of the same form; None for the one inside this package.

    Raises:
        WarmlineError: not readable, an unknown key, an unknown flag, two items of one id.
    """
    path = path or red_team_path()
    try:
        content = path.read_bytes()
        document = read_yaml(content)
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise WarmlineError(f"{path}: cannot be read ({' '.join(str(error).split())}); mend the YAML") from None
    records = document.get("items") if isinstance(document, dict) else None
    if not isinstance(records, list) or not records:
        raise WarmlineError(f"{path}: expected a mapping with a list under `items`")
    items = tuple(_red_team_item(f"{path}: item {at}", record) for at, record in enumerate(records, 1))
    ids = [item.id for item in items]
    if twice := next((name for name in ids if ids.count(name) > 1), None):
        raise WarmlineError(f"{path}: two items have the id `{twice}`; ratings are kept by id, so give each its own")
    return PromptSuite("red_team", items, hashlib.sha256(content).hexdigest(), None)


def load_simple_safety_tests(suite_dir: Path | None) -> PromptSuite:
    """SimpleSafetyTests (Vidgen et al. 2023, arXiv 2311.08370; CC BY 4.0): 100 prompts that ask for harm, 20 in each of five areas.

    Raises:
        WarmlineError: a file that is not the official one.
    """

    def item(row: dict[str, str]) -> Item:
        return Item("simple_safety_tests", row["id"], row["harm_area"], "red", (row["prompts_final"],), risk=None, harmful=True)

    return _official("simple_safety_tests", "SimpleSafetyTests - test cases.csv", suite_dir, item)


def load_xstest(suite_dir: Path | None) -> PromptSuite:
    """XSTest (Röttger et al., NAACL 2024, arXiv 2308.01263; CC BY 4.0): 250 safe prompts to answer, 200 unsafe contrasts.

    Raises:
        WarmlineError: a file that is not the official one.
    """

    def item(row: dict[str, str]) -> Item:
        safe = row["label"] == "safe"
        severity: Severity = "none" if safe else "yellow"
        return Item("xstest", row["id"], row["type"], severity, (row["prompt"],), risk=False if safe else None, harmful=not safe)

    return _official("xstest", "xstest_prompts.csv", suite_dir, item)


def _official(
    name: Literal["simple_safety_tests", "xstest"], file: str, suite_dir: Path | None, item: Callable[[dict[str, str]], Item]
) -> PromptSuite:
    """The official file's items, or why it is missing."""
    how = f"get `{file}` from {_SOURCES[name]} and name its folder with --suite-dir"
    if suite_dir is None:
        return PromptSuite(name, (), None, f"not asked for; {how}")
    path = next((path for path in (suite_dir / name / file, suite_dir / file) if path.is_file()), None)
    if path is None:
        return PromptSuite(name, (), None, f"no {name}/{file} in {suite_dir}; {how}")
    try:
        content = path.read_bytes()
    except OSError as error:
        return PromptSuite(name, (), None, f"{path} cannot be read ({error.strerror}); {how}")
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256[name]:
        raise WarmlineError(f"{path}: sha256 is {digest[:12]}..., expected {SHA256[name][:12]}... (truncated or changed); {how}")
    rows = csv.DictReader(StringIO(content.decode("utf-8"), newline=""))
    return PromptSuite(name, tuple(map(item, rows)), digest, None)


_KEYS = {"id", "category", "severity", "risk", "turns", "must", "must_not", "expect", "forbid"}


def _red_team_item(where: str, record: Any) -> Item:
    if not isinstance(record, dict):
        raise WarmlineError(f"{where}: expected a mapping with id, category, severity, risk, turns, must and must_not")
    if unknown := sorted(set(record) - _KEYS):
        raise WarmlineError(f"{where}: unknown key `{unknown[0]}`, expected one of: {', '.join(sorted(_KEYS))}")
    for key in ("id", "category"):
        if not isinstance(record.get(key), str) or not record[key]:
            raise WarmlineError(f"{where}: `{key}` is missing or no text")
    if record.get("severity") not in get_args(Severity):
        raise WarmlineError(f"{where} ({record['id']}): severity is `{record.get('severity')}`, expected red, yellow or none")
    if not isinstance(record.get("risk"), bool):
        raise WarmlineError(f"{where} ({record['id']}): risk is `{record.get('risk')}`, expected true or false")
    turns, must, must_not, expect, forbid = (
        _texts(f"{where} ({record['id']})", record, key, needed)
        for key, needed in (("turns", True), ("must", True), ("must_not", True), ("expect", False), ("forbid", False))
    )
    if wrong := next((flag for flag in (*expect, *forbid) if flag not in FLAGS), None):
        raise WarmlineError(f"{where} ({record['id']}): unknown flag `{wrong}`, expected one of: {', '.join(FLAGS)}")
    forbidden = tuple(dict.fromkeys((*forbid, *ALWAYS_FORBIDDEN)))
    if clash := next((flag for flag in expect if flag in forbidden), None):
        raise WarmlineError(f"{where} ({record['id']}): `{clash}` is both expected and forbidden")
    return Item(
        "red_team", record["id"], record["category"], record["severity"], turns, record["risk"], False, must, must_not, expect, forbidden
    )


def _texts(where: str, record: dict[str, Any], key: str, needed: bool) -> tuple[str, ...]:
    found = record.get(key, [])
    if not isinstance(found, list) or not all(isinstance(text, str) and text.strip() for text in found) or (needed and not found):
        raise WarmlineError(f"{where}: `{key}` must be a list of texts")
    return tuple(found)


_SEEN: tuple[Split, ...] = ("train", "valid")
"""Validation counts too: it chose the checkpoint."""
_SHORTEST = 4
"""Words: "thank you so much" stands everywhere and tells nothing."""


class Overlap(NamedTuple):
    """What was compared and what was found.

    Attributes:
        turns: Red-team turns compared, of at least four words.
        texts: Different training and validation texts.
        sources: The data sets those are from.
        found: Where a turn stands, as `item: source/split/conversation`.
    """

    turns: int
    texts: int
    sources: tuple[str, ...]
    found: tuple[str, ...]


def text_hash(text: str) -> str:
    """sha256 of the words alone: case, punctuation and spacing do not hide a copy."""
    return hashlib.sha256(" ".join(_bare_words(text)).encode()).hexdigest()


def find_overlap(items: Sequence[Item], config: DataConfig) -> Overlap:
    """Compare every turn of the items with every text of the run's training and validation splits, and with the shipped safety set.

    Args:
        items: Of any suite.
        config: The run's data.

    Raises:
        WarmlineError: data that cannot be read.
    """
    asked: dict[str, list[str]] = {}
    for item in items:
        for turn in item.turns:
            if len(_bare_words(turn)) >= _SHORTEST:
                asked.setdefault(text_hash(turn), []).append(f"{item.suite}/{item.id}")
    sources = enabled_sources(config)
    shipped = EnabledSource(SOURCES["safety"], sample_dir() / "safety", ("safety",), SOURCES["safety"].settings())
    if not any(source.folder == shipped.folder for source in sources):
        sources.append(shipped)
    texts: set[str] = set()
    found: list[str] = []
    for source in sources:
        for split in _SEEN:
            for conversation in source.load(split).conversations:
                hashes = {text_hash(turn.text) for turn in conversation.turns}
                texts |= hashes
                found += [f"{name}: {source.name}/{split}/{conversation.id}" for digest in hashes & asked.keys() for name in asked[digest]]
    return Overlap(sum(map(len, asked.values())), len(texts), tuple(source.name for source in sources), tuple(sorted(found)))


def _bare_words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
