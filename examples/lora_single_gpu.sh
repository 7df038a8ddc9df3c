#!/usr/bin/env bash
# SDAR with adapters on one GPU: Qwen2.5-1.5B-Instruct in generated households of ALFWorld.
#
#   pip install -c constraints.txt -e '.[lora]'
#   bash examples/lora_single_gpu.sh
#   MODEL=Qwen/Qwen2.5-3B-Instruct bash examples/lora_single_gpu.sh seed=2      # further settings follow
#
# Not measured: no GPU was at hand. By arithmetic:
#
# | GB                                                          | 1.5B |   3B |
# |-------------------------------------------------------------|------|------|
# | weights in bfloat16                                         |  3.1 |  6.2 |
# | adapters of rank 32: 37 M and 60 M numbers of 16 bytes      |  0.6 |  1.0 |
# | keys and values of 32 episodes of 6,500 tokens (28, 36 kB)  |  6.0 |  7.7 |
# | update: 16,384 tokens kept per layer, one layer recomputed  |  2.6 |  3.9 |
# | sum                                                         | 12.2 | 18.7 |
#
# so a card of 24 GB, with little to spare for 3B. Time: 14 turns of up to 256 tokens, for twice 32 episodes, are at
# most 7,168 passes of one token each, 3.6 minutes at 30 ms a pass; scoring and update of 64 episodes of 3,500 tokens
# are 4e15 operations, 1.4 minutes at 50 TFLOP/s. 60 iterations and 7 panels: at most 6 hours. Try
# `trainer.max_epochs=1 evaluation.panel_size=12` first, and look at time/* and the card's memory.
set -euo pipefail

settings=(
  environment=alfworld                  # generated households; environment.data_dir=PATH plays the published games
  model=hf
  model.name="${MODEL:-Qwen/Qwen2.5-1.5B-Instruct}"
  model.dtype=bfloat16                  # the frozen weights; adapters and their moments are float32
  model.lora.rank=32                    # on all linear layers; the reference of the KL term costs no memory
  model.gradient_checkpointing=true     # a third more time in the update, activations of one layer at a time
  optimizer.learning_rate=1e-5          # ten times that of whole weights: a place to begin, not tuned
  algorithm=grpo_opsd_initial           # docs/choosing.md; the default has the paper's coefficient, which hardly acts
  trainer=gpu
  trainer.max_epochs=60
  rollout.tasks_per_iteration=8
  rollout.group_size=8
  rollout.sampling.max_response_tokens=256
  rollout.max_concurrent_episodes=32    # bounds the keys and values; changes nothing that is sampled
  optimizer.max_tokens_per_micro_batch=16384
  evaluation.panel_size=60
  evaluation.every_n_iterations=10
  # Measures objective/distillation_share: look at it before choosing another coefficient than 1.
  optimizer.measure_terms_every_n_iterations=10
)
exec sdar train "${settings[@]}" "$@"
