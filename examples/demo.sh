#!/bin/sh
# The whole chain on a small synthetic study: simulate, prepare, featurize, train two models, blend, predict, pack, inspect.
# usage: demo.sh [FOLDER]     (a few minutes on two cores)
set -eu
out=${1:-demo}
rm -rf "$out"
mkdir -p "$out"

bfrbctl simulate "$out/raw" --subjects 12 --answers --set test_subjects=3
bfrbctl prepare "$out/raw" "$out/data" --folds 3
bfrbctl featurize "$out/data" "$out/features"
bfrbctl train lgbm "$out/features" "$out/lgbm" --set n_rounds=120
bfrbctl train keras "$out/features" "$out/keras" --epochs 8 \
    --set width=0.5 --set learning_rate=0.004 --set batch_size=32
bfrbctl oof-blend "$out/lgbm" "$out/keras" "$out/blend"
bfrbctl predict "$out/raw" "$out/blend" "$out/predictions"
bfrbctl pack "$out/blend" "$out/upload" --owner jane --slug my-bfrb-blend --title "My BFRB blend"
bfrbctl inspect blend "$out/blend"
bfrbctl inspect oof "$out/blend" --features "$out/features"
bfrbctl inspect report "$out/data" "$out/data.html"
bfrbctl inspect report "$out/blend" "$out/blend.html" --features "$out/features"

echo
echo "All of it is in $out: raw, data, features, lgbm, keras, blend, predictions, upload."
echo "The submission: $out/predictions/submission.csv"
echo "Pages to open in a browser: $out/data.html, $out/blend.html"
