"""Rollouts by vLLM (``rollout.backend=vllm``): an engine in the process of the run, or a server beside it."""
