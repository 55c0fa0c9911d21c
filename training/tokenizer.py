"""Train the byte-level BPE of nano: V4's pre-tokenizer and control tokens, a vocabulary of its own.

usage: python tokenizer.py OUT_DIR [CONVERSATIONS]
"""

import json
import os
import re
import sys

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

import data
import encoding
import phrasing

VOCABULARY = 4096
# The three splits of V4's tokenizer.json, in order.
SPLITS = [
    r"\p{N}{1,3}",
    "[一-龥\u3040-ゟ゠-ヿ]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
]
FIRST = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"]
# V4's other control tokens: the names between "<｜" and "｜>", in its order.
PLAIN = """fim▁hole fim▁begin fim▁end User Assistant =<|EOT|> tool▁calls▁begin tool▁calls▁end tool▁call▁begin tool▁call▁end
tool▁outputs▁begin tool▁outputs▁end tool▁output▁begin tool▁output▁end tool▁sep begin▁of▁repo▁name end▁of▁repo▁name
begin▁of▁file▁name end▁of▁file▁name begin▁of▁file end▁of▁file =<think> =</think> =｜DSML｜ begin▁sys end▁sys
latest_reminder action query authority domain task political entity title safety answer search =<dsml: =</dsml:
search▁begin search▁end extracted_url read_url""".split()
SPECIAL = ["<｜end_of_query｜>"]
# Control tokens are no part of the text that merges are learnt from.
CONTROL = re.compile("<｜[^｜]*｜>|</?think>|｜DSML｜")


def train(texts):
    tokenizer = Tokenizer(models.BPE())
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in SPLITS]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        splits + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.decoder = decoders.ByteLevel()
    control = [t[1:] if t.startswith("=") else f"<｜{t}｜>" for t in PLAIN]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(control) - len(SPECIAL),
        special_tokens=FIRST,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        min_frequency=3,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(t, normalized=True, special=False) for t in control])
    tokenizer.add_special_tokens(SPECIAL)
    spare = -tokenizer.get_vocab_size() % 64
    tokenizer.add_special_tokens([f"<｜place▁holder▁no▁{i}｜>" for i in range(spare)])
    return tokenizer


def corpus(count):
    """Text without long numbers, so that every digit stays a token of its own (sums are easier)."""
    phrasing.NOISE = False
    excluded = data.excluded_questions()
    for stage, share in (("short", 0.9), ("long", 0.004)):
        data.STAGE = stage
        for talk in data.generate(f"tokenizer/{stage}", int(count * share), excluded):
            # The fixed texts once in a while are enough, they would crowd out the rest.
            talk = {**talk, "mode": "off"}
            text = encoding.prompt_text(talk).replace(encoding.TOOLS_INTRODUCTION, "").replace(encoding.TOOLS_CLOSING, "")
            for reasoning in dict.fromkeys(m.get("reasoning", "") for m in talk["messages"]):
                text += "\n" + encoding.plain(reasoning)
            yield re.sub(r"\d+", "4", CONTROL.sub("\n", text))
    for _ in range(count // 120):
        yield encoding.MAX_EFFORT
        yield CONTROL.sub("\n", encoding.TOOLS_INTRODUCTION + encoding.TOOLS_CLOSING + encoding.RESPONSE_JSON + encoding.RESPONSE_SCHEMA)


def main():
    out = sys.argv[1]
    os.makedirs(out, exist_ok=True)
    tokenizer = train(corpus(int(sys.argv[2]) if len(sys.argv) > 2 else 30000))
    tokenizer.save(os.path.join(out, "tokenizer.json"))
    with open(os.path.join(out, "tokenizer_config.json"), "w", encoding="utf-8") as file:
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": FIRST[0],
            "eos_token": FIRST[1],
            "pad_token": FIRST[2],
            "add_bos_token": True,
            "add_eos_token": False,
            "model_max_length": 16384,
        }
        json.dump(config, file, ensure_ascii=False, indent=1)
    print(f"{tokenizer.get_vocab_size()} tokens, {len(json.loads(tokenizer.to_str())['model']['merges'])} merges")


if __name__ == "__main__":
    main()
