#!/bin/sh
# Tokenizer, two stages of training, export and evaluation; everything lands in work/.
set -eu
cd "$(dirname "$0")"
PYTHON=${PYTHON:-python3}
BATCH=${BATCH:-32768}
WORKERS=${WORKERS:-$(nproc)}
[ -f work/tokenizer/tokenizer.json ] || "$PYTHON" tokenizer.py work/tokenizer
[ -d work/stage1/official ] || "$PYTHON" train.py --out work/stage1 --steps 2125 \
    --max-seconds "${SECONDS_1:-1000000}" --batch-tokens "$BATCH" --workers "$WORKERS" --lr 2.5e-3 ${TRAIN_FLAGS:-}
[ -d work/official ] || {
    "$PYTHON" train.py --out work/stage2 --init work/stage1/official --focus --warmup 40 --fp8-from 0 --seed 2 \
        --steps 523 --max-seconds "${SECONDS_2:-1000000}" --batch-tokens $((BATCH / 2)) --workers "$WORKERS" --lr 1.5e-3
    cp -r work/stage2/official work/official
}
cargo run --release --quiet --manifest-path ../Cargo.toml -- quantize work/official work/nano.gguf \
    --recipe q8 --name "ds4-nano v0" --metadata general.license=mit --overwrite
"$PYTHON" eval.py work/nano.gguf --fp8 --report work/eval.json
