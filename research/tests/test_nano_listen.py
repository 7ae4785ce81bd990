"""The rules by which warmline-nano learned to listen, and what its last stage learns from."""

import random
from importlib import resources

import pytest
from transformers import AutoTokenizer

from nano import listen
from nano.corpus import Document
from nano.listen import Nouns, Told, documents, reply, rows_of
from warmline.conversation import Turn

NOUNS = Nouns({"dog": 900, "exam": 100, "uncle": 300, "kerb": 21})


def replies(text: str, feeling: str | None) -> set[str]:
    """All that the rule may say."""
    rng = random.Random(0)
    return {reply(text, feeling, NOUNS, rng) for _ in range(300)}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("I failed my exam today and I feel awful", "your exam"),
        ("I saw the dog on the kerb this morning", "the kerb"),
        ("we met at the kerb, my uncle and I, in the dark", "your uncle"),
        ("an old dog barked all night long at us", "the dog"),
    ],
)
def test_takes_up_the_person_or_the_rarest_noun(text: str, named: str) -> None:
    assert all(named in said for said in replies(text, "sad"))


def test_opens_by_the_feeling_or_plainly() -> None:
    for feeling, openings in listen.OPENINGS.items():
        said = replies("nothing went as I had hoped it would", feeling)
        assert {one for one in (*openings, *listen.PLAIN) if any(reply.startswith(one) for reply in said)} == {*openings, *listen.PLAIN}
    assert all(said.startswith(listen.PLAIN) for said in replies("nothing went as I had hoped it would", None))


def test_every_feeling_of_the_table_is_a_label_once() -> None:
    labels = [label for found in listen.FEELINGS.values() for label in found.split()]
    assert len(labels) == len(set(labels))


@pytest.mark.parametrize(
    ("text", "group"),
    [
        ("Thank you so much!", listen.AFTER_THANKS),
        ("Do you think the dog is old?", listen.AFTER_QUESTION),
        ("damn ok", listen.AFTER_LITTLE),
    ],
)
def test_thanks_questions_and_little_have_answers_of_their_own(text: str, group: tuple[str, ...]) -> None:
    assert replies(text, "sad") == set(group)


def test_nouns_are_found_by_the_words_around_them() -> None:
    texts = ["I walked my dog. The dog ran. I love the dog", "I ran to see the running water of the dog", "they ran and we ran"] * 20
    assert set(Nouns.of(texts).counts) == {"dog"}


def test_only_the_reply_by_rule_is_learned() -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(resources.files("warmline") / "assets" / "nano"))
    history = (("user", "My dog died."), ("assistant", "Oh no, not your dog."), ("user", "I miss him."), ("assistant", "That must hurt."))
    found = rows_of([(Document("x", turns=history), 3)], tokenizer, 60)
    assert found.tokens.shape == found.learned.shape == (1, 61)
    learned = tokenizer.decode(found.tokens[found.learned].tolist())
    assert learned == "<|im_start|>assistant\nThat must hurt.<|im_end|>\n"
    assert tokenizer.decode(found.tokens[0].tolist()).startswith("<|endoftext|><|im_start|>user\nMy dog died.<|im_end|>\n")
    assert not found.learned[found.tokens == 0].any()


def test_a_document_does_not_cross_rows() -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(resources.files("warmline") / "assets" / "nano"))
    one = (Document("x", turns=(("user", "I miss my dog."), ("assistant", "That must hurt."))), None)
    found = rows_of([one] * 5, tokenizer, 50)
    assert (found.tokens[:, 0] == 0).all()
    assert found.row_of == sorted(found.row_of)
    assert set(found.row_of) == set(range(len(found.tokens)))
    assert len({tuple(row) for row in found.tokens.tolist()[:-1]}) == 1
    assert found.learned.sum() == 5 * (rows_of([one], tokenizer, 50).learned.sum())


def test_documents_end_with_their_reply() -> None:
    turns = (
        Turn("user", "I lost my dog."),
        Turn("assistant", "Oh."),
        Turn("user", "I miss my dog."),
        Turn("assistant", "Yes."),
    )
    found = list(documents([Told(turns, ("sad", None, "sad", None))] * 40, random.Random(0)))
    kept = [document for document, place in found if place is None]
    assert 0 < len(kept) < 12
    for document, place in found:
        if place is not None:
            assert document.turns[place][0] == "assistant"
            assert place == len(document.turns) - 1
            assert "your dog" in document.turns[place][1]
