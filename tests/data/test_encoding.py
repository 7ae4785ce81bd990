import errno
import os
import unicodedata
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data.test_template import ATTACKS
from tests.tools import CPU, ESCONV, GOEMOTIONS, SAFETY
from warmline.companion import PromptReader
from warmline.config import DataConfig
from warmline.conversation import Conversation, Turn
from warmline.data.enabled import EnabledSource, enabled_sources
from warmline.data.encoding import encode, encode_source, encode_split
from warmline.data.packing import all_draws, collate, reply_states
from warmline.data.template import END_OF_TURN, ChatTemplate, as_messages
from warmline.model.heads import Heads, HeadSpec
from warmline.sources import esconv
from warmline.tasks import TASKS
from warmline.tasks.emotion import EMOTIONS_AND_NEUTRAL
from warmline.tasks.strategy import STRATEGIES

ALL = ("lm", "emotion", "strategy", "safety")
SAMPLE = DataConfig(dir="sample")
DIALOGUE = Conversation(
    "one",
    (
        Turn("user", "I lost my job.", {"emotion": ("sadness", "fear")}),
        Turn("assistant", "I am sorry.", {"strategy": ("Reflection of feelings",)}),
        Turn("assistant", "What happened?", {"strategy": ("Question",)}),
        Turn("user", "They closed."),
        Turn("assistant", "Oh no.", {"strategy": ("Others",)}),
        Turn("user", "Yes.", {"emotion": ("anger",)}),
    ),
)


def encode_one(conversation: Conversation, template: ChatTemplate, objectives=ALL):
    return encode("made", [conversation], objectives, template, 1_000_000)[0]


def decode(template: ChatTemplate, tokens) -> str:
    return template.tokenizer.decode(tokens, clean_up_tokenization_spaces=False)


def long_dialogue(turns: int) -> Conversation:
    return Conversation(
        "long",
        tuple(
            Turn("assistant", f"reply {at} " + "x" * (at * 7 % 40), {"strategy": (STRATEGIES[at % 8],)})
            if at % 3
            else Turn("user", f"message {at}", {"emotion": (EMOTIONS_AND_NEUTRAL[at % 27],)})
            for at in range(turns)
        ),
    )


# Contract 1: where the heads read


def test_emotion_reads_the_users_end_of_turn_token(template):
    encoded = encode_one(DIALOGUE, template)
    assert [decode(template, encoded.tokens[: place + 1]) for place, _ in encoded.labels["emotion"]] == [
        template.render(as_messages(DIALOGUE)[:1]).removesuffix("\n"),
        template.render(as_messages(DIALOGUE)).removesuffix("\n"),
    ]
    assert all(encoded.tokens[place] == template.layout.end_of_turn for place, _ in encoded.labels["emotion"])


def test_strategy_reads_the_last_header_token(template):
    encoded = encode_one(DIALOGUE, template)
    prompts = [template.prompt_ids(as_messages(DIALOGUE)[:turn]) for turn in (1, 2, 4)]
    assert [encoded.tokens[: place + 1].tolist() for place, _ in encoded.labels["strategy"]] == prompts


def test_strategy_reads_directly_before_the_reply(template):
    encoded = encode_one(DIALOGUE, template)
    assert encoded.labels["strategy"][:, 0].tolist() == (encoded.replies[:, 0] - 1).tolist()


def test_reading_places_do_not_depend_on_the_reply(template):
    changed = Conversation("two", (*DIALOGUE.turns[:4], Turn("assistant", "Something else entirely.", {"strategy": ("Others",)})))
    one, two = encode_one(DIALOGUE, template), encode_one(changed, template)
    place = one.labels["strategy"][2, 0]
    assert two.labels["strategy"][2, 0] == place
    assert two.labels["emotion"][0, 0] == one.labels["emotion"][0, 0] < place
    assert np.array_equal(one.tokens[: place + 1], two.tokens[: place + 1])


def test_labels_are_the_turns_own(template):
    encoded = encode_one(DIALOGUE, template)

    def names(head):
        return [{name for bit, name in enumerate(TASKS[head].labels) if bits >> bit & 1} for _, bits in encoded.labels[head].tolist()]

    assert names("emotion") == [{"sadness", "fear"}, {"anger"}]
    assert names("strategy") == [{"Reflection of feelings"}, {"Question"}, {"Others"}]


def test_a_label_given_twice_is_one_bit(template):
    (reading,) = (
        encode_one(Conversation("twice", (Turn("user", "No.", {"emotion": ("anger", "anger")}),)), template).labels["emotion"].tolist()
    )
    assert reading[1] == 1 << EMOTIONS_AND_NEUTRAL.index("anger")


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"emotion": ("joy", "rage")}, "some: conversation two: turn 0: `rage` is no label of the emotion head; it has admiration, "),
        ({"strategy": ("Question",)}, "turn 0 is the user's, but has a label for the strategy head, which reads the assistant's"),
    ],
)
def test_a_label_that_its_head_cannot_learn_is_refused(template, refused, labels, said):
    assert said in refused(encode, "some", [Conversation("two", (Turn("user", "Hello.", labels),))], ALL, template, 64)


def test_losses_read_the_states_one_place_earlier(template):
    encoded = encode_one(DIALOGUE, template)
    predicted = encoded.tokens[reply_states(encoded) + 1]
    end = END_OF_TURN[template.name]
    assert decode(template, predicted) == f"I am sorry.{end}What happened?{end}Oh no.{end}"


@pytest.mark.parametrize(
    ("objectives", "found"),
    [
        (("lm",), (3, 0, 0)),
        (("safety",), (3, 0, 0)),
        (("strategy",), (0, 0, 3)),
        (("emotion",), (0, 2, 0)),
        (("lm", "strategy"), (3, 0, 3)),
    ],
)
def test_only_the_objectives_of_the_source_read(template, objectives, found):
    encoded = encode_one(DIALOGUE, template, objectives)
    read = (len(encoded.labels.get(head, ())) for head in ("emotion", "strategy"))
    assert (len(encoded.replies), *read) == found


# Contract 2: one conversation, one sequence


def assert_served_as_trained(template: ChatTemplate, conversation: Conversation) -> None:
    encoded = encode_one(conversation, template)
    tokens, messages = encoded.tokens.tolist(), as_messages(conversation)
    end = END_OF_TURN[template.name]
    spans = iter(encoded.replies.tolist())
    for turn, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt = template.prompt_ids(messages[:turn])
        first, last = next(spans)
        assert tokens[: len(prompt)] == prompt
        assert first == len(prompt)
        assert decode(template, tokens[first:last]) == unicodedata.normalize("NFC", template.clean(message["content"])) + end
    assert next(spans, None) is None
    assert template.tokenizer.apply_chat_template(messages, tokenize=False) == template.render(messages)
    for place, _ in encoded.labels["emotion"].tolist() if "emotion" in encoded.labels else []:
        assert tokens[place] == template.layout.end_of_turn


@pytest.fixture(scope="session")
def some_esconv(official) -> list[Conversation]:
    loaded = esconv.load(official / "esconv", "train").conversations
    return list(loaded[:: len(loaded) // 50])


@pytest.fixture(scope="session")
def sample_conversations() -> dict[str, list[Conversation]]:
    return {
        source.name: [one for split in ("train", "valid", "test") for one in source.load(split).conversations]
        for source in enabled_sources(SAMPLE)
    }


def test_real_conversations_are_served_as_trained(real_template, some_esconv):
    assert len(some_esconv) >= 50
    for conversation in some_esconv:
        assert_served_as_trained(real_template, conversation)


@pytest.mark.parametrize("source", ["empathetic_dialogues", "esconv", "goemotions", "safety"])
def test_sample_conversations_are_served_as_trained(real_template, sample_conversations, source):
    for conversation in sample_conversations[source]:
        assert_served_as_trained(real_template, conversation)


@pytest.mark.parametrize("system_prompt", [None, "You are a warm friend."])
def test_a_served_last_turn_is_read_where_training_read_it(template, system_prompt):
    """The same tokens and the same places, whatever stands before it when serving, another system prompt too."""
    prompted = ChatTemplate(template.tokenizer, template.name, system_prompt)
    comments = ["  I lost my job.\n", *ATTACKS, "ok"]
    trained = encode("made", [Conversation(text, (Turn("user", text, {"emotion": ("joy",)}),)) for text in comments], ALL, prompted, 4096)
    expected = collate([trained], [tuple(all_draws([trained]))])
    before = [{"role": "system", "content": "Be brief."}, *as_messages(DIALOGUE)[:5]]
    talks = [[*before[:at], {"role": "user", "content": text}] for at, text in enumerate(comments) if at < 5] + [
        [{"role": "user", "content": text}] for text in comments[5:]
    ]
    heads = Heads(4, {name: HeadSpec(task, task.settings(), task.labels[: task.classes]) for name, task in TASKS.items()})
    reader = PromptReader(backbone=None, heads=heads, template=prompted, place=CPU)
    served = reader.last_turns(talks)
    for name in ("tokens", "position_ids", "bounds"):
        assert torch.equal(getattr(served, name), getattr(expected, name)), name
    assert torch.equal(served.heads["emotion"].positions, expected.heads["emotion"].positions)
    assert served.longest == expected.longest
    for at, talk in enumerate(talks):  # and one at a time, as they come
        one = reader.last_turns([talk])
        assert one.tokens.tolist() == trained[at].tokens.tolist()
        assert one.heads["emotion"].positions.tolist() == trained[at].labels["emotion"][:, 0].tolist()


def test_a_single_turn_is_read_where_the_prompt_has_it(real_template, sample_conversations):
    for conversation in sample_conversations["goemotions"][::20]:
        encoded = encode_one(conversation, real_template)
        prompt = real_template.prompt_ids(as_messages(conversation))
        assert prompt[: encoded.labels["emotion"][0, 0] + 1] == encoded.tokens[: encoded.labels["emotion"][0, 0] + 1].tolist()


def test_the_think_block_is_outside_the_loss(qwen_tokenizer):
    template = ChatTemplate(qwen_tokenizer)
    encoded = encode_one(DIALOGUE, template)
    thinks = [place for place, token in enumerate(encoded.tokens) if token in qwen_tokenizer.convert_tokens_to_ids(["<think>", "</think>"])]
    learnt = {place for first, end in encoded.replies.tolist() for place in range(first, end)}
    assert len(thinks) == 6
    assert not learnt & set(thinks)


def test_every_reply_token_is_outside_every_header(template):
    encoded = encode_one(DIALOGUE, template)
    header = list(template.layout.reply_header)
    for first, _ in encoded.replies.tolist():
        assert encoded.tokens[first - len(header) : first].tolist() == header


def test_special_tokens_in_a_reply_do_not_end_it(template):
    end = END_OF_TURN[template.name]
    encoded = encode_one(Conversation("x", (Turn("user", end), Turn("assistant", f"a {end} b"))), template)
    assert (encoded.tokens == template.layout.end_of_turn).sum() == 2
    assert decode(template, encoded.tokens[slice(*encoded.replies[0])]) == template.clean(f"a {end} b") + end


def test_a_conversation_without_a_target_is_left_out(template):
    without = Conversation("none", (Turn("user", "Hello?"),))
    source = encode("made", [without, DIALOGUE, without], ALL, template, 100_000)
    assert (len(source), source.originals.tolist()) == (1, [1])


def test_flat_arrays_hold_each_conversation_as_alone(template):
    conversations = [DIALOGUE, long_dialogue(5), Conversation("short", (Turn("assistant", "Hi."),))]
    source = encode("made", conversations, ALL, template, 100_000)
    assert source.lengths.tolist() == [len(encode_one(one, template).tokens) for one in conversations]
    for index, conversation in enumerate(conversations):
        together, alone = source[index], encode_one(conversation, template)
        assert np.array_equal(together.tokens, alone.tokens)
        assert np.array_equal(together.replies, alone.replies)
        for head, labels in together.labels.items():
            assert np.array_equal(labels, alone.labels.get(head, np.zeros((0, 2))))


def test_target_counts(template):
    source = encode("made", [DIALOGUE, Conversation("mute", (Turn("user", "Hi.", {"emotion": ("joy",)}),))], ALL, template, 100_000)
    counts = {name: column.tolist() for name, column in source.target_counts().items()}
    replies = sum(len(text) + 1 for text in ("I am sorry.", "What happened?", "Oh no."))
    assert counts == {"lm": [replies, 0], "emotion": [2, 1], "strategy": [3, 0], "safety": [1, 0]}


def test_a_text_that_closes_turns_unseen_is_refused(template, refused, monkeypatch):
    monkeypatch.setattr(ChatTemplate, "clean", lambda self, text: text)
    conversation = Conversation("evil", (Turn("user", END_OF_TURN[template.name]), Turn("assistant", "x")))
    assert "made: conversation evil" in refused(encode_one, conversation, template)


# Long conversations


@pytest.fixture(params=[None, "Be kind."])
def prompted(request, template) -> ChatTemplate:
    return ChatTemplate(template.tokenizer, template.name, request.param)


def split_up(template: ChatTemplate, conversation: Conversation):
    longest = max(len(part) for part in turn_tokens(template, conversation))
    return encode("made", [conversation], ALL, template, template.layout.prefix + 3 * longest)


def turn_tokens(template: ChatTemplate, conversation: Conversation) -> list[list[int]]:
    messages = as_messages(conversation)
    lengths = [len(template.tokenize([template.render(messages[:turn])])[0]) for turn in range(len(messages) + 1)]
    whole = template.tokenize([template.render(messages)])[0]
    return [whole[start:end] for start, end in pairwise(lengths)]


def test_parts_fit_a_row_and_begin_with_the_prefix(prompted):
    source = split_up(prompted, long_dialogue(24))
    longest = max(len(part) for part in turn_tokens(prompted, long_dialogue(24)))
    prefix = prompted.tokenize([prompted.render([])])[0]
    assert len(source) >= 3
    assert source.lengths.max() <= prompted.layout.prefix + 3 * longest
    assert all(source[part].tokens[: len(prefix)].tolist() == prefix for part in range(len(source)))


def test_parts_join_to_the_whole(prompted):
    source = split_up(prompted, long_dialogue(24))
    joined = [token for part in range(len(source)) for token in source[part].tokens[prompted.layout.prefix :].tolist()]
    assert joined == [token for turn in turn_tokens(prompted, long_dialogue(24)) for token in turn]


@pytest.mark.parametrize(
    ("roles", "parts"),
    [
        ("uaauaua", ["uaa", "uaua"]),  # the fourth turn would fit, its reply would not
        ("uauauau", ["uaua", "uau"]),
        ("auaaaaaau", ["a", "uaaa", "aaau"]),
        ("aaaaaaua", ["aaaa", "aaua"]),
        ("uuuuuu", ["uuuu", "uu"]),
    ],
)
def test_a_part_begins_with_the_user_where_it_can(prompted, roles, parts):
    user, assistant = (len(tokens) for tokens in turn_tokens(prompted, Conversation("", (Turn("user", ""), Turn("assistant", "")))))
    turns = {"u": Turn("user", "?" * (100 - user), {"emotion": ("joy",)}), "a": Turn("assistant", "!" * (100 - assistant))}
    conversation = Conversation("x", tuple(turns[role] for role in roles))
    source = encode("made", [conversation], ALL, prompted, prompted.layout.prefix + 4 * 100)
    readings = ([*((at, "u") for at in part.labels["emotion"][:, 0]), *((at, "a") for at in part.replies[:, 0])] for part in source)
    assert ["".join(role for _, role in sorted(part)) for part in readings] == parts


def test_splitting_keeps_every_target_once(prompted):
    whole, source = encode_one(long_dialogue(24), prompted), split_up(prompted, long_dialogue(24))

    def targets(encoded):
        replies = [encoded.tokens[first:end].tolist() for first, end in encoded.replies.tolist()]
        return replies, *(encoded.labels[head][:, 1].tolist() for head in ("emotion", "strategy"))

    parts = [targets(source[part]) for part in range(len(source))]
    assert tuple([one for part in parts for one in part[kind]] for kind in range(3)) == targets(whole)


def test_heads_read_at_the_same_kind_of_place_in_every_part(prompted):
    source = split_up(prompted, long_dialogue(24))
    for part in range(len(source)):
        encoded = source[part]
        assert encoded.labels["strategy"][:, 0].tolist() == (encoded.replies[:, 0] - 1).tolist()
        assert set(encoded.tokens[encoded.labels["emotion"][:, 0]].tolist()) <= {prompted.layout.end_of_turn}


def test_split_conversations_are_counted(prompted):
    source = split_up(prompted, long_dialogue(24))
    assert source.split_conversations == 1
    assert set(source.originals.tolist()) == {0}


def test_a_conversation_that_just_fits_is_whole(prompted):
    length = len(encode_one(DIALOGUE, prompted).tokens)
    assert encode("made", [DIALOGUE], ALL, prompted, length).split_conversations == 0
    assert encode("made", [DIALOGUE], ALL, prompted, length - 1).split_conversations == 1


def test_refuse_names_the_long_conversation(prompted, refused):
    message = refused(encode, "made", [long_dialogue(24)], ALL, prompted, 200, split_long=False)
    assert "made: conversation long" in message
    assert "data.long_conversations" in message


@pytest.mark.parametrize("split_long", [True, False])
def test_a_single_turn_longer_than_a_row_is_refused(prompted, refused, split_long):
    conversation = Conversation("wall", (Turn("user", "Hi."), Turn("assistant", "x" * 300)))
    message = refused(encode, "made", [conversation], ALL, prompted, 200, split_long=split_long)
    assert "made: conversation wall" in message
    assert "data.row_tokens = 200" in message


# The cache


@pytest.fixture
def nano(nano_tokenizer) -> ChatTemplate:
    return ChatTemplate(nano_tokenizer)


@pytest.fixture
def safety_source():
    return enabled_sources(SAMPLE)[-1]


@pytest.fixture
def loads(monkeypatch) -> list[str]:
    """The splits that were loaded from their files, as they are."""
    seen, load = [], EnabledSource.load

    def spy(source, split):
        seen.append(split)
        return load(source, split)

    monkeypatch.setattr(EnabledSource, "load", spy)
    return seen


def same(one, two) -> bool:
    def arrays(source):
        plain = {name: getattr(source, name) for name in ("tokens", "token_ends", "replies", "reply_ends", "originals")}
        return (
            plain
            | {f"labels of {name}": found for name, found in source.labels.items()}
            | {f"ends of {name}": found for name, found in source.label_ends.items()}
        )

    first, second = arrays(one), arrays(two)
    return set(first) == set(second) and all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("place", [ESCONV, GOEMOTIONS, SAFETY])
def test_the_second_time_comes_from_the_cache(nano, loads, cache, place):
    source = enabled_sources(SAMPLE)[place]
    first, second = (encode_source(source, "valid", SAMPLE, nano) for _ in range(2))
    assert loads == ["valid"]
    assert set(first.labels) == set(source.objectives) - {"lm", "safety"}
    assert same(first, second)
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"row_tokens": 1500},
        {"system_prompt": "Be kind."},
        {"long_conversations": "refuse"},
        {"sources": {"safety": {"objectives": ["safety", "lm"]}}},
    ],
)
def test_another_setting_is_another_cache_file(nano, loads, change):
    encode_source(enabled_sources(SAMPLE)[-1], "valid", SAMPLE, nano)
    config = DataConfig.model_validate({"dir": "sample", **change})
    template = ChatTemplate(nano.tokenizer, system_prompt=config.system_prompt)
    found = encode_source(enabled_sources(config)[-1], "valid", config, template)
    assert loads == ["valid", "valid"]
    assert found.objectives == config.sources.safety.objectives


def test_another_tokenizer_is_another_cache_file(nano, safety_source, loads, byte_tokenizer):
    encode_source(safety_source, "valid", SAMPLE, nano)
    encode_source(safety_source, "valid", DataConfig(dir="sample", row_tokens=2048), ChatTemplate(byte_tokenizer("chatml")))
    assert loads == ["valid", "valid"]


def test_another_order_of_labels_or_version_of_the_loader_is_another_cache_file(nano, loads, monkeypatch):
    source = enabled_sources(SAMPLE)[GOEMOTIONS]
    encode_source(source, "valid", SAMPLE, nano)
    monkeypatch.setattr(type(TASKS["emotion"]), "labels", (*EMOTIONS_AND_NEUTRAL[1:], EMOTIONS_AND_NEUTRAL[0]))
    encode_source(source, "valid", SAMPLE, nano)
    monkeypatch.setattr(type(source.source), "version", 2)
    encode_source(source, "valid", SAMPLE, nano)
    assert loads == ["valid"] * 3


def test_a_changed_file_is_encoded_again(nano, safety_source, loads, tmp_path):
    lines = (safety_source.folder / "valid.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    own = safety_source._replace(folder=tmp_path)
    for count in (3, 2):
        (tmp_path / "valid.jsonl").write_text("".join(lines[:count]), encoding="utf-8")
        assert len(encode_source(own, "valid", SAMPLE, nano)) == count


@pytest.mark.parametrize("damage", [lambda content: content[:100], lambda content: content[:-50], lambda _: b"", lambda _: b"\xff" * 200])
def test_a_damaged_cache_file_is_rebuilt(nano, safety_source, loads, cache, damage):
    first = encode_source(safety_source, "valid", SAMPLE, nano)
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    again = encode_source(safety_source, "valid", SAMPLE, nano)
    assert loads == ["valid", "valid"]
    assert same(first, again)
    assert file.read_bytes() == whole


def test_a_read_only_cache_folder_does_no_harm(nano, safety_source, cache, monkeypatch):
    def read_only(*_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("warmline.data.encoding.save_file", read_only)
    assert len(encode_source(safety_source, "valid", SAMPLE, nano))
    assert list(cache.iterdir()) == []


def test_a_cache_folder_that_cannot_be_made_does_no_harm(nano, safety_source, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("WARMLINE_CACHE", str(tmp_path / "file" / "cache"))
    assert len(encode_source(safety_source, "valid", SAMPLE, nano))


def test_a_missing_file_is_reported_through_the_cache(nano, safety_source, tmp_path, refused):
    own = safety_source._replace(folder=tmp_path)
    assert str(Path(tmp_path) / "valid.jsonl") in refused(encode_source, own, "valid", SAMPLE, nano)


def test_a_source_without_targets_is_refused(nano, tmp_path, refused):
    (tmp_path / "goemotions").mkdir()
    (tmp_path / "goemotions" / "dev.tsv").write_text("a\t17\tid\n", encoding="utf-8")
    source = enabled_sources(DataConfig(dir=str(tmp_path)))[2]._replace(objectives=())
    assert "goemotions: no conversation of valid" in refused(encode_source, source, "valid", DataConfig(dir=str(tmp_path)), nano)


def test_a_split_comes_in_the_order_of_the_sources(nano):
    found = encode_split("valid", SAMPLE, nano)
    assert [source.name for source in found] == [source.name for source in enabled_sources(SAMPLE)]
    assert [source.objectives for source in found] == [source.objectives for source in enabled_sources(SAMPLE)]
