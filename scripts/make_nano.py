"""Make `src/warmline/assets/nano`: a byte-level BPE tokenizer trained on the sample data's train split, and a small Qwen3 architecture.

    python scripts/make_nano.py

The folder holds no weights: until a base model is trained for it, `configs/nano.yaml` builds them from a fixed seed.
"""

from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config

from warmline.config import DataConfig
from warmline.data.sources import enabled_sources, load_source

VOCABULARY = 4096
SPLIT = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TARGET = Path(__file__).parent.parent / "src" / "warmline" / "assets" / "nano"


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(SPLIT), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", additional_special_tokens=["<|im_start|>"]
    )


def main() -> None:
    config = DataConfig(dir="sample")
    texts = [
        turn.text
        for source in enabled_sources(config)
        for conversation in load_source(source, "train", config).conversations
        for turn in conversation.turns
    ]
    tokenizer = train_tokenizer(texts)
    tokenizer.save_pretrained(TARGET)
    Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    ).save_pretrained(TARGET)
    print(f"{TARGET}: {len(tokenizer)} tokens")


if __name__ == "__main__":
    main()
