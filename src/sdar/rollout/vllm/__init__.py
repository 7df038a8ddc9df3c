"""Rollouts by vLLM (``rollout.backend=vllm``): an engine in the process of the run, with the weights of the policy."""
