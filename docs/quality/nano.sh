#!/bin/sh
# Measures what formats of weights and KV cache cost ds4-nano: weights.json, kv.json and needles.json beside this
# script, each with a plot.
#   docs/quality/nano.sh CHECKPOINT [WORK]
# CHECKPOINT is the folder with nano's official layout (training/work/official), WORK is for the GGUF files. A part
# whose JSON is in WORK already is not measured again. DS4 names a program that is built; without it, it is built.
# Options for `ds4 quality` go into QUALITY_FLAGS, for example "--threads 1".
set -eu
checkpoint=${1:?the folder with the official checkpoint of ds4-nano}
work=${2:-$(mktemp -d)}
here=$(cd "$(dirname "$0")" && pwd)
ds4=${DS4:-$here/../../target/release/ds4}
[ -n "${DS4:-}" ] || cargo build --release --quiet --manifest-path "$here/../../Cargo.toml"

# nano was trained to 16k tokens, and its file says so. Nothing in the architecture ends there: for the needle of
# 30,474 tokens the files made here say 32k.
mkdir -p "$work/official"
for file in model.safetensors tokenizer.json tokenizer_config.json; do
    cp "$checkpoint/$file" "$work/official/"
done
sed 's/"max_position_embeddings": 16384/"max_position_embeddings": 32768/' "$checkpoint/config.json" \
    > "$work/official/config.json"

quantize() {
    name=$1
    shift
    [ -f "$work/$name.gguf" ] || "$ds4" quantize "$work/official" "$work/$name.gguf" --mtp skip --name "$name" "$@"
}
experts='blk.*.ffn_*_exps.weight'
quantize nano-f16 --recipe f16
quantize nano-q8 --recipe q8
# Blocks of 256 elements (q4, q2) do not divide nano's rows; those of 32 do.
quantize nano-mxfp4 --recipe q8 --tensor-type "$experts=MXFP4"
quantize nano-q4 --recipe q8 --tensor-type "$experts=Q4_0"
quantize nano-q4-all --recipe q8 --tensor-type 'blk.*_exps.weight=Q4_0' \
    --tensor-type 'blk.*_shexp.weight=Q4_0' --tensor-type 'blk.*.attn_*.weight=Q4_0'

measure() {
    name=$1
    shift
    if [ ! -f "$work/$name.json" ]; then
        # shellcheck disable=SC2086 # several options
        (cd "$work" && "$ds4" quality "$@" --json --svg "$name.svg" ${QUALITY_FLAGS:-} > "$name.part")
        mv "$work/$name.part" "$work/$name.json"
    fi
    cp "$work/$name.json" "$work/$name.svg" "$here/"
}
short=help,tools,arithmetic,json,memory,unknown,identity,needle_512
# What depends on the formats of the weights is short; needles need the compressed rows.
measure kv nano-f16.gguf --kv-cache-types f32,f16,fp8,q4 --category "$short,needle_2k" --limit 12
# By a name without folders, since the results tell it.
cp "$here/needle_30k.jsonl.gz" "$work/"
measure needles nano-f16.gguf --kv-cache-types f32,f16,fp8,q4 \
    --cases nano,needle_30k.jsonl.gz --category needle_8k,needle_16k,needle_30k --limit 4
measure weights nano-f16.gguf nano-q8.gguf nano-mxfp4.gguf nano-q4.gguf nano-q4-all.gguf \
    --category "$short" --limit 12
