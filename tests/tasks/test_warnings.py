"""What a head of the plainest kind warns of."""

from warmline.tasks.task import HeadTask, HiddenReply


class Plain(HeadTask):
    name = "plain"


def test_a_head_that_reads_its_reply_is_warned_of() -> None:
    assert Plain().warnings({}) == []
    assert Plain().warnings({"hidden_reply": HiddenReply(8, 0)._asdict()}) == []
    (line,) = Plain().warnings({"hidden_reply": HiddenReply(8, 3)._asdict()})
    assert "plain head: with the reply hidden, what it says of 3 of 8 turns changes" in line
