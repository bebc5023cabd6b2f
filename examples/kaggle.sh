#!/bin/sh
# From the competition's files to an uploaded dataset: prepare, featurize, train, blend, pack, create or update on Kaggle.
# usage: kaggle.sh COMPETITION_FOLDER WORK_FOLDER OWNER SLUG "TITLE"
#
# COMPETITION_FOLDER has train.csv, train_demographics.csv, test.csv and test_demographics.csv. What is finished in
# WORK_FOLDER is kept: run it again after an interruption. Needs Kaggle's command line, signed in, for the last step; set
# UPLOAD=no to stop before it.
set -eu
raw=$1 work=$2 owner=$3 slug=$4 title=$5
mkdir -p "$work"

# A finished folder has a manifest; an unfinished one is continued.
step() {
    out=$1
    shift
    [ -e "$out/manifest.json" ] || "$@" --resume
}

step "$work/data" bfrbctl prepare "$raw" "$work/data"
step "$work/features" bfrbctl featurize "$work/data" "$work/features"
step "$work/lgbm" bfrbctl train lgbm "$work/features" "$work/lgbm"
step "$work/keras" bfrbctl train keras "$work/features" "$work/keras"
step "$work/blend" bfrbctl oof-blend "$work/lgbm" "$work/keras" "$work/blend"
step "$work/upload" bfrbctl pack "$work/blend" "$work/upload" --owner "$owner" --slug "$slug" --title "$title"

[ "${UPLOAD:-yes}" = no ] && exit 0
if kaggle datasets status "$owner/$slug" >/dev/null 2>&1; then
    kaggle datasets version -p "$work/upload" -m "$(bfrbctl --version)"
else
    kaggle datasets create -p "$work/upload"
fi
