"""The guard reads past marks, look-alike letters, spelling and line breaks."""

import pytest

from warmline.safety.guard import normalise, readings


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("I DON\u2019T,  want -- it!", "i dont want it!"),
        ("don\u00b4t don`t don\u02bct don\u2032t don\uff07t dont", "dont dont dont dont dont dont"),
        ("I\u200bm fi\u00adne\u2060, re\ufe0fally\ufeff \u202eok", "im fine really ok"),
        ("n\u0336o\u0336 caf\u00e9 u\u0308ber \u0130t", "no cafe uber it"),
        ("\uff4b\uff49\uff4c\uff4c \U0001d4c0\U0001d4be\U0001d4c1\U0001d4c1 ⓚⓘⓛⓛ ᴋɪʟʟ 🅺🅸🅻🅻", "kill kill kill kill kill"),
        ("\u043a\u0456ll \u039a\u0399LL \u0455u\u0456\u0441\u0456d\u0435", "kill kill suicide"),
        ("so 😀 sad 👨\u200d👩\u200d👧 here 🇬🇧", "so sad here"),
        ("_no_ **yes** end.Next", "no yes end. next"),
        ("one\r\ntwo; three\u2028four\ttabs   too", "one. two. three. four tabs too"),
        ("ki\x00ll", "kill"),
    ],
)
def test_one_plain_form(text: str, plain: str) -> None:
    assert normalise(text) == plain
    assert readings(text)[0] == plain


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("I want to\ndie", "i want to die"),
        ("I want to... die", "i want to die"),
        ("I want to\u2026 die", "i want to die"),
        ("k i l l myself", "kill myself"),
        ("s.u.i.c.i.d.e", "suicide"),
        ("k-i-l-l m_y_s_e_l_f", "kill myself"),
        ("i w a n t t o d i e", "i want to die"),
        ("kiiiill killlll diiie", "kill kill die"),
        ("su1c1de k1ll d1e suicid3 $uicide k!ll", "suicide kill die suicide suicide kill"),
        ("suicde sucide suiside", "suicide suicide suicide"),
        ("kil myself mysefl mysel", "kill myself myself myself"),
        ("oversode overdosd", "overdose overdosed"),
        ("wanna di e", "wanna die"),
        ("killmyself", "kill myself"),
    ],
)
def test_the_second_reading_mends_what_was_broken_up_disguised_or_mistyped(text: str, words: str) -> None:
    assert readings(text)[-1] == words


@pytest.mark.parametrize(
    "text", ["I took 40 pills at 3.30", "k, I'll be there", "It was overdone.", "the U.S. is far", "he himself fell ill"]
)
def test_what_is_spelt_as_it_should_be_is_read_once(text: str) -> None:
    assert readings(text) == (normalise(text),)


def test_what_a_guess_would_spoil_stays_in_the_first_reading() -> None:
    assert readings("bye xxx") == ("bye xxx", "bye x")
