"""The linear probes of the ablation: so many rows, the same ones each time, for the tuned model and for its base."""

from warmline.ablation.scores import ScoreSettings, score_run
from warmline.runs import RunFolder
from warmline.tasks.emotion import EMOTIONS


def test_probes_are_fitted_on_so_many_rows_and_always_the_same(finished_copy: RunFolder) -> None:
    settings = ScoreSettings(conversations=40, probe_rows=50)
    once, again = (score_run(finished_copy.path, settings, is_full=True) for _ in range(2))
    assert once == again
    for scores in (once["probes"], once["base"]):
        assert scores["emotion"]["train_rows"] == 50  # a comment has one, and those with several labels or neutral do not count
        assert 50 <= scores["strategy"]["train_rows"] < 100  # whole conversations
    assert once["probes"]["strategy"]["train_rows"] == once["base"]["strategy"]["train_rows"]
    assert all(0 <= label < len(EMOTIONS) for label in once["base"]["emotion"]["truth"])
    assert once["probes"]["emotion"]["truth"] == once["base"]["emotion"]["truth"] == once["heads"]["emotion"]["truth"]
