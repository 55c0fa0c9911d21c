#!/bin/sh
# Measures what formats of weights and KV cache cost ds4-nano: nano.json and nano.svg beside this script.
#   docs/quality/nano.sh CHECKPOINT [WORK]
# CHECKPOINT is the folder with nano's official layout (training/work/official), WORK is for the GGUF files.
# Options for `ds4 quality` go into QUALITY_FLAGS, for example "--limit 20".
set -eu
checkpoint=${1:?the folder with the official checkpoint of ds4-nano}
work=${2:-$(mktemp -d)}
here=$(cd "$(dirname "$0")" && pwd)
cargo build --release --quiet --manifest-path "$here/../../Cargo.toml"
ds4=$here/../../target/release/ds4

quantize() {
    name=$1
    shift
    [ -f "$work/$name.gguf" ] || "$ds4" quantize "$checkpoint" "$work/$name.gguf" --mtp skip --name "$name" "$@"
}
experts='blk.*.ffn_*_exps.weight'
quantize nano-f16 --recipe f16
quantize nano-q8 --recipe q8
# Blocks of 256 elements (q4, q2) do not divide nano's rows; those of 32 do.
quantize nano-mxfp4 --recipe q8 --tensor-type "$experts=MXFP4"
quantize nano-q4 --recipe q8 --tensor-type "$experts=Q4_0"
quantize nano-q4-all --recipe q8 --tensor-type 'blk.*_exps.weight=Q4_0' \
    --tensor-type 'blk.*_shexp.weight=Q4_0' --tensor-type 'blk.*.attn_*.weight=Q4_0'

cd "$work"
# shellcheck disable=SC2086 # several options
"$ds4" quality nano-f16.gguf nano-q8.gguf nano-mxfp4.gguf nano-q4.gguf nano-q4-all.gguf \
    --kv-cache-types f32,f16,fp8 --json --svg "$here/nano.svg" ${QUALITY_FLAGS:-} > nano.json
mv nano.json "$here/nano.json"
