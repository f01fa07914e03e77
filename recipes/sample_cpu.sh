#!/usr/bin/env bash
# Everything once, small: labels of the embedded sample, a model, its scores, and how it does beside other qualities.
# Takes 2 minutes on two free cores (100 s of processor time, measured), without a GPU and without data. The model starts
# from the recogniser of the labels: it learns the quality of 192 images, and hardly a factor.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"
sample=${FIQA_WORKSPACE:-workspace}/sample
run=$sample/quality_model/current

# 1. Label 256 faces of eight people.
luigi --module pipeline LabelAll --dataset sample --workers 2

# 2. Train a small network from the recogniser's weights; one in four people is held out, and measured.
luigi --module pipeline TrainQuality --dataset sample --config recipes/from_recogniser_cpu.toml --held-out 1/4

# 3. Score the images.
python -m training.score --checkpoint "$run" --input "$sample/_source/train.rec" --output "$sample/scores.parquet"

# 4. Judge it by the errors that remain when the worst images are rejected.
luigi --module pipeline EvaluateQuality --benchmarks sample --methods "model:$run,norm,cpbd,sobel,random" --workers 2
