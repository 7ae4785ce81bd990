"""Make warmline-nano, the base model inside the package, from scratch on one GPU in under 20 minutes.

    python research/pretrain_nano.py sample --gemma GEMMA --data DATA --out work/sampled      # five minutes
    python research/pretrain_nano.py build  --sampled work/sampled --data DATA --out work/corpus      # 50 seconds on 20 cores, CPU
    python research/pretrain_nano.py train  --corpus work/corpus --out work/model      # three minutes
    python research/pretrain_nano.py listen --model work/model --data DATA --out src/warmline/assets/nano    # 15 minutes on two cores
    python research/pretrain_nano.py card   --model src/warmline/assets/nano --gemma GEMMA --data DATA      # five minutes, CPU

GEMMA is Gemma 3 270M, the base model, as a Hugging Face folder; DATA holds the official files of EmpatheticDialogues, ESConv and GoEmotions
(`warmline data fetch`). The settings of the model that ships are in its `corpus.json` and `pretraining.json`. Sampling and training stop by
the clock, so a smaller GPU makes a smaller corpus and fewer steps. `listen` takes a GPU where there is one; there it was not timed. Add
`--help` to a stage.
"""

import argparse
import os
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    stages = parser.add_subparsers(dest="stage", required=True, metavar="STAGE")
    shown = argparse.ArgumentDefaultsHelpFormatter
    sample = stages.add_parser("sample", help="texts by Gemma 3 270M, prose as it is and dialogues after tuning", formatter_class=shown)
    build = stages.add_parser("build", help="corpus, tokenizer and proof of what is not in it", formatter_class=shown)
    train = stages.add_parser("train", help="the model", formatter_class=shown)
    listen = stages.add_parser("listen", help="the model again, taught to take up what it was told", formatter_class=shown)
    card = stages.add_parser("card", help="evaluation and model card", formatter_class=shown)
    for stage in (sample, card):
        stage.add_argument("--gemma", type=Path, required=True, help="folder of Gemma 3 270M")
    for stage in (sample, build, listen, card):
        stage.add_argument("--data", type=Path, required=True, help="folder of the official data sets")
    for stage in (sample, build, train, listen):
        stage.add_argument("--out", type=Path, required=True, help="folder to write")
    for stage in (sample, build, train, listen, card):
        stage.add_argument("--seed", type=int, default=7, help="of every draw")
    sample.add_argument("--seconds", type=float, default=240, help="spent sampling")
    sample.add_argument("--tune-seconds", type=float, default=40, help="spent tuning Gemma on the train splits")
    sample.add_argument("--batch", type=int, default=8192, help="texts written at once")
    sample.add_argument("--new-tokens", type=int, default=240, help="tokens of each text")
    build.add_argument("--sampled", type=Path, required=True, help="what `sample` wrote")
    build.add_argument("--workers", type=int, default=os.cpu_count(), help="processes")
    build.add_argument("--limit", type=int, default=None, help="sampled texts of each kind to read; all by default")
    train.add_argument("--corpus", type=Path, required=True, help="what `build` wrote")
    train.add_argument("--seconds", type=float, default=150, help="spent training, compilation not counted")
    train.add_argument("--rows", type=int, default=128, help="rows a step")
    train.add_argument("--context", type=int, default=1024, help="tokens of a row")
    train.add_argument("--no-compile", action="store_true", help="run without torch.compile")
    listen.add_argument("--model", type=Path, required=True, help="what `train` wrote")
    listen.add_argument("--seconds", type=float, default=900, help="spent training at most; it ends after one pass")
    listen.add_argument("--rows", type=int, default=8, help="rows a step")
    listen.add_argument("--context", type=int, default=512, help="tokens of a row")
    card.add_argument("--model", type=Path, required=True, help="the finished model folder; its README.md and evaluation.json are written")
    card.add_argument("--limit", type=int, default=25, help="dialogues of each test set")
    options = parser.parse_args()

    # imported here, so that --help needs nothing installed
    if options.stage == "sample":
        from nano.tutor import sample_stage

        sample_stage(
            options.gemma, options.data, options.out, options.seconds, options.tune_seconds, options.batch, options.new_tokens, options.seed
        )
    elif options.stage == "build":
        from nano.corpus import build_stage

        build_stage(options.sampled, options.data, options.out, options.workers, options.limit, options.seed)
    elif options.stage == "train":
        from nano.train import train_stage

        train_stage(options.corpus, options.out, options.seconds, options.rows, options.seed, not options.no_compile, options.context)
    elif options.stage == "listen":
        from nano.listen import listen_stage

        listen_stage(options.model, options.data, options.out, options.seconds, options.rows, options.context, options.seed)
    else:
        from nano.card import card_stage

        card_stage(options.model, options.gemma, options.data, options.limit, options.seed)


if __name__ == "__main__":
    main()
