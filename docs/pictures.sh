#!/bin/sh
# Pictures of the pages, docs/images/*.png: drawn from the files of a finished demo (`make pictures`).
# The fleet of its plan is emulated here, and measured; what is made for that goes away with it.
set -eu
bin=$(cd "$1" && pwd) demo=$(cd "$2" && pwd) images=$(cd "$(dirname "$0")/images" && pwd)
fleet=$(mktemp -d)
emulated=
trap 'if [ -n "$emulated" ]; then kill -INT "$emulated"; wait "$emulated" || true; fi; rm -rf "$fleet"' EXIT
cd "$demo"
"$bin/nonn-plan" export runs/nonn-0 --plan plan.json -o "$fleet/bundle"
"$bin/nonn-plan" keys init "$fleet/keys" --plan plan.json
"$bin/nonn-plan" emulate plan.json "$fleet/bundle" --keys "$fleet/keys" -o "$fleet/emulated.yaml" &
emulated=$!
while ! [ -s "$fleet/emulated.yaml" ]; do kill -0 "$emulated" && sleep 1; done
"$bin/nonn-plan" validate plan.json "$fleet/bundle" --boards "$fleet/emulated.yaml" \
    --keys "$fleet/keys/host" -o "$fleet/validation.json"
"$bin/nonn-plan" draw partition.json -o "$images/partition.png"
"$bin/nonn-plan" draw runs/nonn-0 -o "$images/training.png"
"$bin/nonn-plan" draw runs/nonn-0/evaluation.json --plan plan.json -o "$images/evaluation.png"
"$bin/nonn-plan" draw "$fleet/validation.json" -o "$images/validation.png"
# A palette takes a quarter of the bytes.
for picture in partition training evaluation validation; do
    "$bin/python" -c "import sys; from PIL import Image
Image.open(sys.argv[1]).convert('RGB').quantize(128).save(sys.argv[1], optimize=True)" "$images/$picture.png"
done
