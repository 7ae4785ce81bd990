import bz2
import gzip
import hashlib
import json
import lzma
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from warmline.config import DataConfig
from warmline.data.enabled import data_dir, enabled_sources
from warmline.errors import WarmlineError
from warmline.sources import SOURCES, empathetic_dialogues, esconv, goemotions, safety
from warmline.sources.files import CHECKSUMS, read_text, write_checksums
from warmline.tasks.emotion import EMOTIONS, EMOTIONS_AND_NEUTRAL
from warmline.tasks.strategy import STRATEGIES

HEADER = empathetic_dialogues.HEADER + "\n"
LOADERS = {
    "train.csv": empathetic_dialogues.load,
    "ESConv.json": esconv.load,
    "train.tsv": goemotions.load,
    "train.jsonl": safety.load,
}
SEEKER = ("seeker", {}, "I feel alone.")
SUPPORTER = ("supporter", {"strategy": "Question"}, "Since when?")


@pytest.fixture
def write(tmp_path):
    def write_file(name: str, content: str | bytes) -> Path:
        (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return tmp_path

    return write_file


@pytest.fixture
def write_esconv(tmp_path: Path) -> Callable[..., Path]:
    """Writes dialogues, each a list of (speaker, annotation, content), as an ESConv.json with filled survey fields."""

    def write(*dialogues: list[tuple[str, dict[str, str], str]]) -> Path:
        content = [
            {
                "experience_type": "SURVEY",
                "emotion_type": "SURVEY",
                "problem_type": "SURVEY",
                "situation": "SURVEY",
                "survey_score": {"seeker": {"empathy": "SURVEY"}, "supporter": {}},
                "dialog": [{"speaker": speaker, "annotation": note, "content": text} for speaker, note, text in dialogue],
                "seeker_question1": "SURVEY",
                "supporter_question1": "SURVEY",
            }
            for dialogue in dialogues
        ]
        (tmp_path / "ESConv.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
        return tmp_path

    return write


def safety_line(**changes) -> str:
    messages = [{"role": "user", "content": "Help."}, {"role": "assistant", "content": "I am here. {crisis_line}"}]
    return json.dumps({"id": "a-1", "category": "abuse", "risk": "red", "messages": messages, **changes}, ensure_ascii=False) + "\n"


def rows(*texts: str, conversation: str = "c1", situation: str = "sad") -> str:
    return "".join(f"{conversation},{at},{situation},the prompt,{at % 2},{text},,\n" for at, text in enumerate(texts, 1))


def turns(loaded) -> list[list[tuple[str, str]]]:
    return [[(turn.role, turn.text) for turn in conversation.turns] for conversation in loaded.conversations]


# EmpatheticDialogues


def test_ed_odd_turns_are_the_users(write):
    folder = write("train.csv", HEADER + rows("One", "Two", "Three"))
    assert turns(empathetic_dialogues.load(folder, "train")) == [[("user", "One"), ("assistant", "Two"), ("user", "Three")]]


def test_ed_comma_mark_becomes_a_comma(write):
    folder = write("train.csv", HEADER + rows("Well_comma_ yes_comma_ no"))
    assert turns(empathetic_dialogues.load(folder, "train")) == [[("user", "Well, yes, no")]]


def test_ed_ninth_field_is_ignored(write):
    folder = write("train.csv", HEADER + "c1,1,sad,prompt,1,Hello,5|5|5_2|2|2,,one candidate|another\n")
    assert turns(empathetic_dialogues.load(folder, "train")) == [[("user", "Hello")]]


def test_ed_bare_quotes_are_text(write):
    folder = write("train.csv", HEADER + rows('He said "no', '"Oh') + rows("Next", conversation="c2"))
    assert turns(empathetic_dialogues.load(folder, "train")) == [[("user", 'He said "no'), ("assistant", '"Oh')], [("user", "Next")]]


def test_ed_reads_crlf(write):
    folder = write("train.csv", (HEADER + rows("One", "Two")).replace("\n", "\r\n"))
    assert turns(empathetic_dialogues.load(folder, "train")) == [[("user", "One"), ("assistant", "Two")]]


def test_ed_white_space_is_one_space(write):
    folder = write("train.csv", HEADER + rows("  a \t b  "))
    assert turns(empathetic_dialogues.load(folder, "train")) == [[("user", "a b")]]


def test_ed_keeps_the_situation_beside_the_text(write):
    folder = write("train.csv", HEADER + rows("One", situation="devastated"))
    (conversation,) = empathetic_dialogues.load(folder, "train").conversations
    assert conversation.kind == "devastated"
    assert "the prompt" not in conversation.turns[0].text


def test_ed_situation_is_no_emotion(write):
    folder = write("train.csv", HEADER + rows("One", "Two"))
    assert [turn.labels for turn in empathetic_dialogues.load(folder, "train").conversations[0].turns] == [{}, {}]


@pytest.mark.parametrize(
    ("content", "place", "says"),
    [
        ("id,utterance\n" + rows("One"), ":1:", "expected the header"),
        ("", ":", "is empty"),
        (HEADER, ":", "no conversation"),
        (HEADER + rows("One", "Two")[:-12], ":3:", "truncated"),
        (HEADER + rows("One") + "c1,2,sad,pro\n", ":3:", "4 fields"),
        (HEADER + rows("One, two, three, four"), ":2:", "11 fields"),
        (HEADER + rows("One", situation="hangry"), ":2:", "unknown emotion label `hangry`"),
        (HEADER + rows("One", "  "), ":3:", "empty utterance in c1"),
        (HEADER + rows("One") + "c1,3,sad,p,1,Three,,\n", ":3:", "utterance_idx is 3, expected 2"),
    ],
)
def test_ed_bad_lines_are_named(write, refused, content, place, says):
    folder = write("train.csv", content)
    message = refused(empathetic_dialogues.load, folder, "train")
    assert message.startswith(f"{folder / 'train.csv'}{place}")
    assert says in message


# ESConv


def every_dialogue(folder) -> list:
    loaded = [conversation for split in ("train", "valid", "test") for conversation in esconv.load(folder, split).conversations]
    return sorted(loaded, key=lambda conversation: int(conversation.id))


def test_esconv_messages_in_a_row_stay_turns_of_their_own(write_esconv):
    folder = write_esconv([SEEKER, SUPPORTER, ("supporter", {"strategy": "Others"}, "Take your time.")])
    (conversation,) = every_dialogue(folder)
    assert [(turn.role, turn.text, turn.labels) for turn in conversation.turns] == [
        ("user", "I feel alone.", {}),
        ("assistant", "Since when?", {"strategy": ("Question",)}),
        ("assistant", "Take your time.", {"strategy": ("Others",)}),
    ]


def test_clean_esconv_joins_what_a_supporter_says_in_a_row_and_leaves_the_platform_out(write_esconv, tmp_path):
    more = [("supporter", {"strategy": "Others"}, "Take your time."), ("supporter", {"strategy": "Question"}, "What next?")]
    talk = [("seeker", {}, "Bye."), ("supporter", {"strategy": "Others"}, "Bye! Please press the quit button and take the survey.")]
    folder = write_esconv([SEEKER, SUPPORTER, *more, *talk])
    (whole,) = [one for split in ("train", "valid", "test") for one in esconv.load(folder, split, clean=True).conversations]
    joined, last = whole.turns[1], whole.turns[3]
    assert joined.text == f"{SUPPORTER[2]} Take your time. What next?"
    assert joined.labels["strategy"] == tuple(dict.fromkeys((SUPPORTER[1]["strategy"], "Others", "Question")))
    assert [turn.role for turn in whole.turns] == ["user", "assistant", "user", "assistant"]
    assert (joined.target, last.target) == (True, False)
    config = DataConfig(dir="sample", own_words=tmp_path, sources={"esconv": {"clean": True}})
    with pytest.raises(WarmlineError, match=r"data\.sources\.esconv\.clean: is for people's words"):
        enabled_sources(config)


def test_esconv_survey_fields_are_never_read(write_esconv):
    assert "SURVEY" not in repr(every_dialogue(write_esconv([SEEKER, SUPPORTER])))


def test_esconv_seeker_feedback_is_ignored(write_esconv):
    folder = write_esconv([("seeker", {"feedback": "5"}, "Thanks."), SUPPORTER])
    (conversation,) = every_dialogue(folder)
    assert conversation.turns[0].labels == {}
    assert "5" not in repr(conversation.turns[0])


def test_esconv_white_space_is_one_space(write_esconv):
    assert every_dialogue(write_esconv([("seeker", {}, " a \n b\t")]))[0].turns[0].text == "a b"


def test_esconv_ids_are_places_in_the_file(write_esconv):
    folder = write_esconv(*([("seeker", {}, f"number {at}")] for at in range(20)))
    assert [(conversation.id, conversation.turns[0].text) for conversation in every_dialogue(folder)] == [
        (str(at), f"number {at}") for at in range(20)
    ]


def test_esconv_splits_share_nothing_and_lose_nothing():
    parts = esconv.split_indices(137)
    assert sorted(parts["train"] + parts["valid"] + parts["test"]) == list(range(137))
    assert (len(parts["valid"]), len(parts["test"])) == (20, 20)


def test_esconv_split_is_the_published_one(official):
    published = json.loads((official / "esconv" / "splits.json").read_text(encoding="utf-8"))
    ours = esconv.split_indices(1300)
    assert {split: ours[split] for split in ("train", "valid", "test")} == {split: published[split] for split in ("train", "valid", "test")}


def test_esconv_strategies_are_in_the_official_order(official):
    names = json.loads((official / "esconv" / "strategy.json").read_text(encoding="utf-8"))
    assert [name.strip("[]") for name in names] == list(STRATEGIES)


@pytest.mark.parametrize(
    ("dialogue", "says"),
    [
        ([], "dialogue 0: expected a non-empty list"),
        ([SEEKER, ("supporter", {"strategy": "Hugging"}, "x")], "dialogue 0, message 1: unknown strategy `Hugging`"),
        ([SEEKER, ("supporter", {}, "x")], "dialogue 0, message 1: unknown strategy `None`"),
        ([SEEKER, ("supporter", {"strategy": "Others"}, " \n")], "dialogue 0, message 1: empty `content`"),
        ([("usr", {}, "x")], "dialogue 0, message 0: speaker is `usr`"),
    ],
)
def test_esconv_bad_dialogues_are_named(write_esconv, refused, dialogue, says):
    folder = write_esconv(dialogue)
    message = refused(esconv.load, folder, "train")
    assert message.startswith(str(folder / "ESConv.json"))
    assert says in message


@pytest.mark.parametrize("content", ["{}", "[]", "3", "null"])
def test_esconv_other_json_is_refused(write, refused, content):
    assert "expected a list of dialogues" in refused(esconv.load, write("ESConv.json", content), "train")


@pytest.mark.parametrize(
    "content", ['["x"]', '[{"dialog": 3}]', '[{"dialog": [3]}]', '[{"dialog": [{"speaker": "seeker", "content": 3}]}]']
)
def test_esconv_odd_shapes_are_refused(write, refused, content):
    assert "ESConv.json: dialogue 0" in refused(esconv.load, write("ESConv.json", content), "train")


def test_esconv_cut_file_names_the_line(write_esconv, refused):
    path = write_esconv([SEEKER, SUPPORTER]) / "ESConv.json"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:12]), encoding="utf-8")
    message = refused(esconv.load, path.parent, "train")
    assert message.startswith((f"{path}:12:", f"{path}:13:"))
    assert "not valid JSON" in message


def test_esconv_half_an_emoji_is_refused(write, refused):
    content = '[{"dialog": [{"speaker": "seeker", "annotation": {}, "content": "\\ud83d"}]}]'
    message = refused(esconv.load, write("ESConv.json", content), "train")
    assert "ESConv.json: dialogue 0, message 0: half a character (\\ud83d)" in message


def test_esconv_may_be_one_dialogue_a_line(write, write_esconv, refused):
    path = write_esconv([SEEKER, SUPPORTER], [SEEKER], [SEEKER, SUPPORTER, SEEKER]) / "ESConv.json"
    expected = every_dialogue(path.parent)
    lines = [json.dumps(dialogue) + "\n" for dialogue in json.loads(path.read_text(encoding="utf-8"))]
    assert every_dialogue(write("ESConv.json", "".join(lines))) == expected
    assert every_dialogue(write("ESConv.json", "\n".join(lines))) == expected
    folder = write("ESConv.json", "".join(lines)[:-20])
    assert refused(esconv.load, folder, "train").startswith(f"{folder / 'ESConv.json'}:3: not valid JSON")


@pytest.mark.parametrize("content", ["[" * 100_000, f"[{'9' * 5000}]"])
def test_esconv_json_that_python_does_not_read_is_refused(write, refused, content):
    assert "ESConv.json:1: not to be read as JSON" in refused(esconv.load, write("ESConv.json", content), "train")


def test_esconv_of_another_form_is_named(write, refused):
    """The published conversion's, one dialogue a line."""
    line = '{"dialog": [{"text": "Hi", "speaker": "usr"}, {"text": "Hello", "speaker": "sys", "strategy": "Question"}]}\n'
    assert "speaker is `usr`, expected seeker or supporter" in refused(esconv.load, write("ESConv.json", line * 3), "train")


# GoEmotions


def labels(loaded) -> list[tuple[str, ...]]:
    return [conversation.turns[0].labels["emotion"] for conversation in loaded.conversations]


def test_goemotions_keeps_every_label_of_a_row(write):
    folder = write("train.tsv", "Well\t2,25\tid1\n")
    assert labels(goemotions.load(folder, "train")) == [("anger", "sadness")]


def test_goemotions_leaves_out_neutral_only_and_counts_it(write):
    folder = write("train.tsv", "a\t27\tid1\nb\t17\tid2\nc\t27\tid3\n")
    loaded = goemotions.load(folder, "train")
    assert [conversation.id for conversation in loaded.conversations] == ["id2"]
    assert (loaded.rows, loaded.left_out) == (3, {"only neutral": 2})


def test_goemotions_keeps_neutral_beside_an_emotion(write):
    folder = write("train.tsv", "a\t17,27\tid1\n")
    assert labels(goemotions.load(folder, "train")) == [("joy", "neutral")]


def test_goemotions_uses_every_row_with_28_labels(write):
    folder = write("train.tsv", "a\t27\tid1\nb\t17\tid2\n")
    loaded = goemotions.load(folder, "train", with_neutral=True)
    assert labels(loaded) == [("neutral",), ("joy",)]
    assert loaded.left_out == {}


def test_goemotions_a_repeated_label_is_one_label(write):
    folder = write("train.tsv", "a\t2,2\tid1\nb\t17\tid2\n")
    assert labels(goemotions.load(folder, "train")) == [("anger",), ("joy",)]


def test_goemotions_reads_crlf(write):
    folder = write("train.tsv", "a\t17\tid1\r\n")
    assert goemotions.load(folder, "train").conversations[0].id == "id1"


def test_goemotions_valid_is_the_official_dev(write):
    folder = write("dev.tsv", "a\t17\tid1\n")
    assert len(goemotions.load(folder, "valid").conversations) == 1


def test_goemotions_labels_are_the_official_ones(official):
    names = (official / "goemotions" / "emotions.txt").read_text(encoding="utf-8").split()
    assert tuple(names) == EMOTIONS_AND_NEUTRAL
    assert len(EMOTIONS) == 27


def test_goemotions_neutral_twice_is_only_neutral(write):
    loaded = goemotions.load(write("train.tsv", "a\t27,27\tid1\nb\t17\tid2\n"), "train")
    assert (labels(loaded), loaded.left_out) == ([("joy",)], {"only neutral": 1})


@pytest.mark.parametrize(
    ("content", "place", "says"),
    [
        ("a\t1\ti\nb\t28\ti\n", ":2:", "unknown emotion label id `28`"),
        ("a\t-1\ti\n", ":1:", "unknown emotion label id `-1`"),
        (f"a\t{'9' * 5000}\ti\n", ":1:", "unknown emotion label id `9999"),
        ("a\t1,\ti\n", ":1:", "unknown emotion label id ``"),
        ("a\tjoy\ti\n", ":1:", "unknown emotion label id `joy`"),
        ("a\t1\n", ":1:", "2 fields"),
        ("\t1\ti\n", ":1:", "empty text"),
        ("a\t1\ti\nb\t2\tj", ":2:", "truncated"),
        ("a\t27\ti\n", ":", "no row with an emotion"),
        ("", ":", "is empty"),
    ],
)
def test_goemotions_bad_lines_are_named(write, refused, content, place, says):
    folder = write("train.tsv", content)
    message = refused(goemotions.load, folder, "train")
    assert message.startswith(f"{folder / 'train.tsv'}{place}")
    assert says in message


# Safety


def test_safety_keeps_its_category_beside_the_text(write):
    (conversation,) = safety.load(write("train.jsonl", safety_line()), "train").conversations
    assert (conversation.id, conversation.kind) == ("a-1", "abuse")
    assert [turn.text for turn in conversation.turns] == ["Help.", "I am here. {crisis_line}"]


def test_safety_reads_unusual_line_separators_inside_text(write):
    line = safety_line(messages=[{"role": "user", "content": "a\u2028b"}, {"role": "assistant", "content": "c\x85d"}])
    (conversation,) = safety.load(write("train.jsonl", line), "train").conversations
    assert [turn.text for turn in conversation.turns] == ["a b", "c d"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (safety_line()[:40] + "\n", "not valid JSON"),
        (safety_line(category="boredom"), "unknown category `boredom`"),
        (safety_line(messages=[{"role": "user", "content": "Help."}]), "ends with the assistant's reply"),
        (safety_line(messages=[]), "ends with the assistant's reply"),
        (safety_line(messages=[{"role": "system", "content": "x"}]), "role is `system`"),
        (safety_line(messages=[{"role": "assistant", "content": " "}]), "empty `content`"),
        (safety_line().replace("Help.", "Help \\ud83d."), "half a character (\\ud83d)"),
        (safety_line(messages=["hello"]), "role is `None`"),
        (safety_line(messages=[{"role": "assistant", "content": "Call {hotline}"}]), "unknown slot `{hotline}`"),
        (safety_line(messages=None), "expected an object"),
        (safety_line(id=3), "expected an object"),
        ("[]\n", "expected an object"),
    ],
)
def test_safety_bad_lines_are_named(write, refused, line, says):
    folder = write("train.jsonl", safety_line() + line)
    message = refused(safety.load, folder, "train")
    assert message.startswith(f"{folder / 'train.jsonl'}:2:")
    assert says in message


def test_safety_empty_file_is_refused(write, refused):
    assert "is empty" in refused(safety.load, write("train.jsonl", ""), "train")


# Files, whichever the source


@pytest.fixture
def contents(write_esconv) -> dict[str, str]:
    """A small good file for each loader."""
    esconv_json = (write_esconv([SEEKER, SUPPORTER]) / "ESConv.json").read_text(encoding="utf-8")
    return {
        "train.csv": HEADER + rows("One", "Two"),
        "ESConv.json": esconv_json,
        "train.tsv": "a\t17\tid1\n",
        "train.jsonl": safety_line(),
    }


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize(
    "changed",
    [
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "\r"),
        lambda text: "\ufeff" + text.replace("\n", "\r\n"),
    ],
    ids=["byte-order mark", "CRLF", "CR", "both"],
)
def test_how_an_editor_saves_a_text_changes_nothing(write, contents, name, changed):
    load = LOADERS[name]
    expected = load(write(name, contents[name]), "train")
    assert load(write(name, changed(contents[name])), "train") == expected


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize(
    ("stranger", "says"),
    [
        (lambda text: gzip.compress(text), "a gzip archive"),
        (lambda text: b"PK\x03\x04\x14\x00\x00\x00", "a zip archive"),
        (lambda text: bz2.compress(text), "a bzip2 archive"),
        (lambda text: lzma.compress(text), "an xz archive"),
        (lambda text: text.decode().encode("utf-16"), "UTF-16 text; save it as UTF-8"),
        (lambda text: b"\xef\xbb\xbf" + text.decode().encode("utf-16-le"), "holds a zero byte: UTF-16 text"),
        (lambda text: text.decode().encode("utf-16-be"), "holds a zero byte: UTF-16 text"),
        (lambda text: b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "a pointer of Git LFS"),
        (lambda text: b"\n<!DOCTYPE html>\n<html><title>404</title></html>\n", "a web page"),
        (lambda text: b"<html>\n<body>Not Found</body></html>\n", "a web page"),
        (lambda text: b"", "is empty"),
        (lambda text: b"\xef\xbb\xbf", "is empty"),
        (lambda text: b" \r\n\n", "is empty"),
    ],
)
def test_what_is_no_data_file_is_named(write, refused, contents, name, stranger, says):
    folder = write(name, stranger(contents[name].encode()))
    assert re.search(says, refused(LOADERS[name], folder, "train"))


@pytest.mark.parametrize("name", LOADERS)
def test_missing_file_is_named(tmp_path, refused, name):
    message = refused(LOADERS[name], tmp_path, "train")
    assert message.startswith(f"{tmp_path / name}: file not found")


@pytest.mark.parametrize("name", LOADERS)
def test_not_utf8_names_the_line(write, refused, name):
    folder = write(name, b"first\ncaf\xe9\n")
    assert refused(LOADERS[name], folder, "train").startswith(f"{folder / name}:2: not UTF-8")


@pytest.mark.parametrize("name", LOADERS)
def test_a_folder_in_place_of_the_file_is_refused(tmp_path, refused, name):
    (tmp_path / name).mkdir()
    assert str(tmp_path / name) in refused(LOADERS[name], tmp_path, "train")


@pytest.mark.parametrize("name", LOADERS)
def test_a_file_that_differs_from_its_checksum_is_refused(write, refused, name):
    write(CHECKSUMS, f"{'0' * 64}  {name}\n")
    folder = write(name, "anything\n")
    message = refused(LOADERS[name], folder, "train")
    assert message.startswith(f"{folder / name}: sha256 differs")


def test_a_file_that_matches_its_checksum_is_read(write):
    folder = write("note.txt", "café\n")
    write_checksums(folder)
    assert read_text(folder / "note.txt") == "café\n"


def test_checksums_are_in_sha256sums_format(write):
    folder = write("b.txt", "b")
    write("a.txt", "a")
    write_checksums(folder)
    expected = [f"{hashlib.sha256(name[:1].encode()).hexdigest()}  {name}" for name in ("a.txt", "b.txt")]
    assert (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines() == expected


def test_checksums_written_later_are_seen(write, refused):
    folder = write("note.txt", "one")
    read_text(folder / "note.txt")
    write_checksums(folder)
    write("note.txt", "two")
    assert "sha256 differs" in refused(read_text, folder / "note.txt")


def test_checksums_of_odd_file_names_are_read(write):
    folder = write("a\u2028b.txt", "one")
    write_checksums(folder)
    assert read_text(folder / "a\u2028b.txt") == "one"


@pytest.mark.parametrize("content", [b"no checksum\n", b"\xff\xfe\n"])
def test_damaged_checksums_are_refused(write, refused, content):
    folder = write("note.txt", "one")
    write(CHECKSUMS, content)
    assert str(folder / CHECKSUMS) in refused(read_text, folder / "note.txt")


# Which sources, and where


def test_sources_come_in_a_fixed_order():
    assert tuple(source.name for source in enabled_sources(DataConfig(dir="sample"))) == tuple(
        name for name, source in SOURCES.items() if source.standard
    )


def test_a_disabled_source_is_absent():
    config = DataConfig.model_validate({"dir": "sample", "sources": {"esconv": {"enabled": False}}})
    assert "esconv" not in [source.name for source in enabled_sources(config)]


def test_safety_comes_with_the_package_whatever_the_data_folder(tmp_path):
    folders = {source.name: source.folder for source in enabled_sources(DataConfig(dir=str(tmp_path)))}
    assert (folders["safety"] / "train.jsonl").is_file()
    assert folders["esconv"] == tmp_path / "esconv"


def test_safety_can_be_ones_own(tmp_path, write):
    write("train.jsonl", safety_line(id="mine"))
    config = DataConfig.model_validate({"dir": "sample", "sources": {"safety": {"dir": str(tmp_path)}}})
    source = enabled_sources(config)[-1]
    assert source.load("train").conversations[0].id == "mine"


def test_missing_data_folder_is_named(tmp_path, refused):
    assert str(tmp_path / "none") in refused(data_dir, DataConfig(dir=str(tmp_path / "none")))


def test_the_packages_safety_set_needs_no_data_folder(tmp_path):
    off = {name: {"enabled": False} for name in ("empathetic_dialogues", "esconv", "goemotions")}
    config = DataConfig.model_validate({"dir": str(tmp_path / "none"), "sources": off})
    assert [source.name for source in enabled_sources(config)] == ["safety"]


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "data").mkdir()
    config = DataConfig.model_validate({"dir": "~/data", "sources": {"safety": {"dir": "~/safety"}}})
    folders = {source.name: source.folder for source in enabled_sources(config)}
    assert (folders["esconv"], folders["safety"]) == (tmp_path / "data" / "esconv", tmp_path / "safety")


def test_the_home_of_nobody_known_is_a_missing_folder(refused):
    assert "~nobody-known/data: data folder not found" in refused(data_dir, DataConfig(dir="~nobody-known/data"))


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_source_files_are_those_that_are_read(split):
    for source in enabled_sources(DataConfig(dir="sample")):
        assert all(path.is_file() for path in source.files(split))


@pytest.mark.parametrize(("labels_setting", "neutral_only"), [(27, False), (28, True)])
def test_goemotions_follows_its_setting(labels_setting, neutral_only):
    config = DataConfig.model_validate({"dir": "sample", "sources": {"goemotions": {"labels": labels_setting}}})
    source = next(source for source in enabled_sources(config) if source.name == "goemotions")
    found = Counter(conversation.turns[0].labels["emotion"] for conversation in source.load("train").conversations)
    assert (("neutral",) in found) is neutral_only
