"""How much memory do log-prob and divergence over the full vocabulary take, with backward, above their inputs?

    python benchmarks/divergence_memory.py [--tokens 3072] [--vocabulary 151936] [--hidden 2048] [--naive-tokens 384]

The inputs are hidden states of student and teacher and one head [V, H], as when the teacher is the student with other
words in its context. What is counted: everything above them until both gradients, that of the head included, are there.

On the CPU the figure is the process's peak of resident memory (VmHWM, reset between the runs), so what libraries
allocate behind torch's back is in it; each form runs in a process of its own. With --device cuda it is the allocator's.
The naive form (all logits at once, left to autograd) rarely fits at full size: it is measured at --naive-tokens and
twice as many, and the bytes per token between the two are extrapolated, which the output says.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from pathlib import Path

import torch

from sdar.objective.chunked_head import OutputHead, TeacherStates, chunked_scores, score_logits
from sdar.objective.full_vocabulary import ForwardKL, FullVocabularyDivergence, JensenShannon, ReverseKL

GIB = 2**30
FORMS: dict[str, FullVocabularyDivergence] = {
    "reverse_kl": ReverseKL(),
    "forward_kl": ForwardKL(),
    "jsd": JensenShannon(),
    "reverse_kl, top 100": ReverseKL(top_k=100),
}


def main() -> None:
    """Measure every form in chunks, and the naive form of the first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=3072)
    parser.add_argument("--vocabulary", type=int, default=151936)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--naive-tokens", type=int, default=384, help="0: leave the naive form out")
    parser.add_argument("--chunk-tokens", type=int, default=None)
    parser.add_argument("--forms", nargs="*", default=list(FORMS), choices=list(FORMS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    arguments = parser.parse_args()
    head = 4 * arguments.vocabulary * arguments.hidden
    print(f"V = {arguments.vocabulary}, hidden {arguments.hidden}, float32; head's gradient {head / GIB:.2f} GiB")
    print(f"{'form':<36} {'tokens':>7} {'GiB above inputs':>17} {'s':>7}")
    for name in arguments.forms:
        peak, seconds = _in_a_process(arguments, name, arguments.tokens, False)
        print(f"{name:<36} {arguments.tokens:>7} {peak / GIB:>17.2f} {seconds:>7.1f}", flush=True)
    if arguments.naive_tokens:
        name, few = arguments.forms[0], arguments.naive_tokens
        peaks = []
        for tokens in (few, 2 * few):
            peak, seconds = _in_a_process(arguments, name, tokens, True)
            peaks.append(peak)
            print(f"{name + ', naive':<36} {tokens:>7} {peak / GIB:>17.2f} {seconds:>7.1f}", flush=True)
        whole = peaks[1] + (peaks[1] - peaks[0]) / few * (arguments.tokens - 2 * few)
        print(f"{name + ', naive (extrapolated)':<36} {arguments.tokens:>7} {whole / GIB:>17.2f}")


def _in_a_process(arguments: argparse.Namespace, name: str, tokens: int, naive: bool) -> tuple[int, float]:
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(measure, (arguments, name, tokens, naive))


def measure(arguments: argparse.Namespace, name: str, tokens: int, naive: bool) -> tuple[int, float]:
    """Peak bytes above the inputs, and seconds, of one form with backward."""
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    generator = torch.Generator(device).manual_seed(0)
    size = (tokens, arguments.hidden)
    hidden = torch.randn(size, generator=generator, device=device, requires_grad=True)
    teacher_hidden = torch.randn(size, generator=generator, device=device)
    weight = torch.empty(arguments.vocabulary, arguments.hidden, device=device)
    weight.normal_(std=0.02, generator=generator).requires_grad_()
    targets = torch.randint(arguments.vocabulary, (tokens,), generator=generator, device=device)
    head = OutputHead(weight)
    divergence = FORMS[name]
    # Libraries set their buffers up on first use, and keep them: no part of what is measured.
    torch.randn(64, 64, requires_grad=True).square().sum().backward()
    before = _reset_peak(device)
    started = time.perf_counter()
    if naive:
        teacher_log_probs = head.log_probs(teacher_hidden)
        scores = score_logits(head.linear(hidden), targets, teacher_log_probs=teacher_log_probs, divergence=divergence)
    else:
        teacher = TeacherStates(teacher_hidden, head)
        scores = chunked_scores(
            hidden, head, targets, teacher=teacher, divergence=divergence, chunk_tokens=arguments.chunk_tokens
        )
    assert scores.divergence is not None
    (scores.divergence - scores.log_probs).sum().backward()
    assert weight.grad is not None
    assert hidden.grad is not None
    return _peak(device) - before, time.perf_counter() - started


def _reset_peak(device: torch.device) -> int:
    """Bytes in use now; the peak is counted from here."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return int(torch.cuda.memory_allocated())
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak(device: torch.device) -> int:
    return int(torch.cuda.max_memory_allocated()) if device.type == "cuda" else _status("VmHWM")


def _status(name: str) -> int:
    """A figure of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (value,) = (line.split()[1] for line in lines if line.startswith(f"{name}:"))
    return 1024 * int(value)


if __name__ == "__main__":
    main()
