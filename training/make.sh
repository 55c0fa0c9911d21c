#!/bin/sh
# Four stages of training, export and evaluation; everything lands in work/.
set -eu
cd "$(dirname "$0")"
PYTHON=${PYTHON:-python3}
WORKERS=${WORKERS:-$(nproc)}
mkdir -p work
# The published weights' vocabulary; `tokenizer.py work/tokenizer` learns one anew.
[ -f work/tokenizer/tokenizer.json ] || cp -r tokenizer work/tokenizer
[ -d work/stage1/official ] || "$PYTHON" train.py --out work/stage1 --steps "${STEPS_1:-6000}" --workers "$WORKERS" ${TRAIN_FLAGS:-}
[ -d work/stage2/official ] || "$PYTHON" train.py --out work/stage2 --init work/stage1/official --curriculum focus --seed 2 \
    --steps "${STEPS_2:-4136}" --lr 2.5e-3 --warmup 60 --decay-from 0.15 --fp8-from 0 --rest-weight 0.01 --workers "$WORKERS" ${TRAIN_FLAGS:-}
[ -d work/stage3/official ] || "$PYTHON" train.py --out work/stage3 --init work/stage2/official --curriculum copy --seed 3 \
    --steps "${STEPS_3:-4030}" --lr 3e-3 --warmup 60 --decay-from 0.2 --fp8-from 0 --rest-weight 0.02 --workers "$WORKERS" ${TRAIN_FLAGS:-}
[ -d work/stage4/official ] || "$PYTHON" train.py --out work/stage4 --init work/stage3/official --curriculum work --seed 4 \
    --steps "${STEPS_4:-4840}" --lr 4e-3 --warmup 100 --decay-from 0.7 --fp8-from 0 --rest-weight 0.02 --decisive-weight 2 --mtp-weight 0.2 --workers "$WORKERS" ${TRAIN_FLAGS:-}
cargo run --release --quiet --manifest-path ../Cargo.toml -- quantize work/stage4/official work/nano.gguf \
    --recipe q8 --mtp include --name ds4-nano --metadata general.license=mit --overwrite
cargo run --release --quiet --manifest-path ../Cargo.toml -- eval nano -m work/nano.gguf --report work/eval.json
