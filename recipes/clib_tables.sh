#!/usr/bin/env bash
# The tables and figures of CLIB-FIQA, laid out as it prints them, with its numbers beside ours and the difference:
# Tables 1 to 3 and Figure 3 of a model that ms1mv2_paper.sh has trained, Table 4 and Figure 4 of models trained here.
#
# It needs in $FIQA_DATA: faces_emore (MS1MV2 and five of the benchmarks), xqlfw, adience_112, tinyface_112, and the
# paper's three recognisers in $FIQA_MODELS: docs/howto/evaluate.md says how to get each. Nobody has run the whole yet. A
# benchmark that is not there is left out with a warning. Others' methods go into OTHERS, with the names that the paper
# gives them: OTHERS=SER-FIQ=table:ser_fiq.csv,FaceQnet=table:faceqnet.csv
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"
export FIQA_WORKSPACE=${FIQA_WORKSPACE:-$PWD/workspace}
export LUIGI_CONFIG_PATH=recipes/ms1mv2_paper.cfg
export FIQA_MODELS=$FIQA_WORKSPACE/wider_face/factor_net/current${FIQA_MODELS:+:$FIQA_MODELS}
eight=lfw,cfp_fp,cplfw,xqlfw,calfw,agedb_30,adience,tinyface

# 1. The networks that are here: arcface_ms1mv3, cosface_glint360k and adaface_webface4m have to be among them.
python -m pipeline weights

# 2. Tables 1 to 3 and Figure 3: eight benchmarks, three recognisers, FMR 1e-3.
luigi --module pipeline EvaluateQuality --benchmarks "$eight" --fmrs 0.001 --workers 16 \
    --recognition arcface_ms1mv3,cosface_glint360k,adaface_webface4m \
    --methods "CLIB-FIQA=model:$FIQA_WORKSPACE/ms1mv2/quality_model/current,norm,random${OTHERS:+,$OTHERS}"

# 3. Table 4: its eight rows, trained and evaluated with AdaFace at three false match rates.
luigi --module pipeline Ablation --config recipes/clib_paper.toml --device cuda --benchmarks "$eight" \
    --recognition adaface_webface4m

# 4. Figure 4, left: one model for each beta, on XQLFW.
luigi --module pipeline Ablation --config recipes/clib_paper.toml --device cuda --benchmarks xqlfw --rows none \
    --betas 8,16,32,64,128 --recognition adaface_webface4m
