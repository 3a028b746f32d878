#!/bin/sh
# What made these files: the commands of commit 6ebd4f0, when networks declared their channels. Run it in a folder with
# my_net.py, with a checkout of that commit in PYTHONPATH. These files are never made again. logits.json: answers() of
# ../make.py, by that commit's quant.restore.
set -e
own="--arch my_net:residual --cpu"
train="--dataset digits --image_size 8 --epochs 8 --quiet --precision fp32 $own"
python -m prune.train --cfg 6,4 --save float.pth $train
python -m prune.train -sr --s 0.001 --cfg 6,4 --save preprune.pth $train
python -m prune.normal_regular --percent 0.3 --model preprune.pth --save pruned.pth $own
python -m prune.train --refine pruned.pth --save refined.pth $train
python -m quant.wqaq --Wbits 4 --Abits 4 --refine refined.pth --save w4a4.pth $train
python -m quant.wbwtab --W 2 --A 2 --refine refined.pth --save wbab.pth $train
python -m quant.wqaq --q_type 1 --bn_fold 0 --refine refined.pth --save int8_fold0.pth $train
python -m quant.wqaq --q_type 1 --bn_fold 1 --refine refined.pth --save int8_fold1.pth $train
python -m quant.ptq --calibrate kl --model refined.pth --save ptq.pth $own
for name in w4a4 wbab int8_fold1; do
    python -m bn_merge --model $name.pth --save ${name}_merged.pth $own
done
