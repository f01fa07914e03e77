#!/usr/bin/env bash
# From MS1MV2 alone: CR-FIQA(L) is trained, its recogniser and class centres make the anchors, CLIB-FIQA is trained from
# the labels, and both are judged on eight benchmarks beside a quality on top of the recogniser.
#
# Expected on one H100 with 16 cores, by the rates of docs/scale.md; nobody has run the whole yet:
#   recogniser  10 hours     180,000 steps of 512 images, an iresnet100 at 2,532 images a second
#   labels      45 minutes   as in ms1mv2_paper.sh
#   CLIB-FIQA   9 hours      25 epochs at 4,712 images a second
#   on top      1 minute     no image is read
#
# It needs in $FIQA_DATA: faces_emore (MS1MV2 and five of the benchmarks), wider_face, xqlfw, adience_112, tinyface_112.
# A benchmark that is not there is left out with a warning. Stopped at any point, the same command goes on.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"
export FIQA_WORKSPACE=${FIQA_WORKSPACE:-$PWD/workspace}
export FIQA_MODELS=$FIQA_WORKSPACE/wider_face/factor_net/current${FIQA_MODELS:+:$FIQA_MODELS}

# 1. Weights: head pose, CLIP's RN50, and a recogniser that took no part, which judges beside the trained one.
python -m pipeline weights fetch face_landmarker clip_rn50 glintr100 yunet

# 2. The network of occlusion, expression and lighting, from WIDER FACE.
luigi --module pipeline TrainFactorNet --dataset wider_face --name factors_wider --device cuda

# 3. All the rest; ms1mv2_paper.cfg says how labels are made.
export LUIGI_CONFIG_PATH=recipes/ms1mv2_paper.cfg
python -m pipeline doctor
luigi --module pipeline TrainAll --dataset ms1mv2 --workers 16 \
    --recognition-config recipes/cr_fiqa_l.toml --quality-config recipes/clib_paper.toml --device cuda \
    --benchmarks lfw,cfp_fp,cplfw,xqlfw,calfw,agedb_30,adience,tinyface --recognition glintr100
