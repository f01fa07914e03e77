#!/usr/bin/env bash
# The tables of CR-FIQA, laid out as it prints them, with its numbers beside ours and the difference: Table I by its own
# protocol, whose areas are not normalised, and Table II, templates of IJB-C pooled by quality. As in its released code,
# the features of a face and of its mirror image are added, and templates are pooled of features with their norm.
#
# It needs in $FIQA_DATA: faces_emore (MS1MV2 and five of the benchmarks), faces_webface_112x112 (CASIA-WebFace), xqlfw,
# adience_112, IJBC, and the paper's four recognisers in $FIQA_MODELS: docs/howto/evaluate.md says how to get each.
# Nobody has run the whole yet. A benchmark that is not there is left out with a warning. Others' methods go into OTHERS,
# with the names that the paper gives them: OTHERS=SER-FIQ=table:ser_fiq.csv
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"
export FIQA_WORKSPACE=${FIQA_WORKSPACE:-$PWD/workspace}

# 1. The networks that are here: those that --recognition names below have to be among them.
python -m pipeline weights

# 2. Both models: CR-FIQA(S) from CASIA-WebFace, CR-FIQA(L) from MS1MV2.
luigi --module pipeline TrainRecognition --dataset casia_webface --config recipes/cr_fiqa_s.toml --device cuda
luigi --module pipeline TrainRecognition --dataset ms1mv2 --config recipes/cr_fiqa_l.toml --device cuda

# 3. Tables I and II: eight benchmarks, four recognisers.
small=$FIQA_WORKSPACE/casia_webface/recogniser/current large=$FIQA_WORKSPACE/ms1mv2/recogniser/current
luigi --module pipeline EvaluateQuality --benchmarks adience,agedb_30,cfp_fp,lfw,calfw,cplfw,xqlfw,ijbc \
    --recognition arcface_r100,elasticface_r100,magface_r100,curricularface_r100 \
    --protocols cr_fiqa --fmrs 0.001,0.0001 --models-flip true --template-weights norm --workers 16 \
    --methods "CR-FIQA(S)=onnx:$small/quality.onnx,CR-FIQA(L)=onnx:$large/quality.onnx,random${OTHERS:+,$OTHERS}"
