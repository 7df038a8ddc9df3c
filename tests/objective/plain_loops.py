"""The objective once more, as slow and as plain as possible: Python floats, loops, derivatives written out by hand.

Every function takes one token and returns (loss, d loss / d log_prob). Nothing of the package is used.
"""

import math


def policy(log_prob, old, advantage, clip_low, clip_high, dual_clip):
    ratio = math.exp(log_prob - old)
    low, high = 1.0 - clip_low, 1.0 + clip_high
    clipped_ratio = min(max(ratio, low), high)
    loss, slope, clipped = -advantage * ratio, -advantage * ratio, False
    if -advantage * clipped_ratio > loss:
        loss, slope, clipped = -advantage * clipped_ratio, 0.0, True
    if dual_clip is not None and advantage < 0 and loss > -advantage * dual_clip:
        loss, slope, clipped = -advantage * dual_clip, 0.0, True
    return loss, slope, clipped


def kl(log_prob, reference, kind):
    difference = reference - log_prob
    if kind == "k2":
        return 0.5 * difference**2, -difference
    value = math.exp(difference) - difference - 1.0
    if value > 10.0:
        return 10.0, 0.0
    return value, 1.0 - math.exp(difference)


def gate(difference, beta):
    x = beta * difference
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else math.exp(x) / (1.0 + math.exp(x))


def distillation(log_prob, teacher, beta):
    weight = gate(teacher - log_prob, beta)
    return weight * (teacher - log_prob), -weight


GATES = {"GapGate": "gap", "EntropyGate": "entropy", "SoftOrGate": "soft_or", "NoGate": "none"}


def distillation_term(token, config, max_entropy):
    """Loss of a token's term, and its derivatives by log-prob and by the divergence of the whole distributions."""
    gate_name = GATES[type(config.gate).__name__]
    weight = gates(
        token["teacher"] - token["log_prob"], token["entropy"], max_entropy, getattr(config.gate, "beta", 0.0)
    )
    weight = weight[gate_name]
    kind = type(config.divergence).__name__
    if kind == "Sampled":
        return weight * (token["teacher"] - token["log_prob"]), -weight, 0.0
    if kind in ("SampledReverseKL", "ImportanceWeightedK3"):
        of_kind = sampled_rkl if kind == "SampledReverseKL" else skill_sd
        value, slope = of_kind(token["log_prob"], token["teacher"], token["old"])
        return weight * value, weight * slope, 0.0
    return weight * token["divergence"], 0.0, weight


def total(rows, config, num_tokens, max_entropy=1.0, policy_denominator=None):
    """Loss of a whole step and its derivatives; the policy term may be divided by something else than the tokens.

    ``rows``: lists of tokens, a token is a dict of log_prob, old, teacher, reference, advantage, entropy, divergence.
    Returns (total, [[d total / d log_prob]], [[d total / d entropy]], [[d total / d divergence]]).
    """
    value, by_log_prob, by_entropy, by_divergence = 0.0, [], [], []
    for row in rows:
        for column in (by_log_prob, by_entropy, by_divergence):
            column.append([])
        for token in row:
            lp = token["log_prob"]
            l1, g1, _ = policy(
                lp, token["old"], token["advantage"], config.clip_low, config.clip_high, config.dual_clip
            )
            l2, g2, d2 = distillation_term(token, config, max_entropy)
            l3, g3 = kl(lp, token["reference"], config.kl_kind)
            scale = num_tokens / policy_denominator if policy_denominator else 1.0
            parts = [
                (config.policy_coefficient * scale, l1, g1),
                (config.distillation_coefficient, l2, g2),
                (config.kl_coefficient, l3, g3),
                (config.entropy_coefficient, -token["entropy"], 0.0),
            ]
            value += sum(c * loss for c, loss, _ in parts) / num_tokens
            by_log_prob[-1].append(sum(c * slope for c, _, slope in parts) / num_tokens)
            by_entropy[-1].append(-config.entropy_coefficient / num_tokens)
            by_divergence[-1].append(config.distillation_coefficient * d2 / num_tokens)
    return value, by_log_prob, by_entropy, by_divergence


def sigmoid(x):
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else math.exp(x) / (1.0 + math.exp(x))


def gates(difference, entropy, max_entropy, beta):
    """Name of each gate -> its value for one token."""
    h = entropy / max_entropy
    return {
        "gap": sigmoid(beta * difference),
        "entropy": sigmoid(beta * h),
        "entropy_raw": sigmoid(beta * entropy),
        "soft_or": sigmoid(beta * (1 - (1 - h) * (1 - difference))),
        "soft_or_raw": sigmoid(beta * (1 - (1 - entropy) * (1 - difference))),
        "none": 1.0,
    }


def sampled_rkl(log_prob, teacher, old):
    ratio = math.exp(log_prob - old)
    return -(teacher - log_prob) * ratio, -(teacher - log_prob) * ratio


def skill_sd(log_prob, teacher, old):
    """Importance-weighted k3 with the source's clamps; the gradient goes through both factors."""
    difference = log_prob - teacher
    decay = math.exp(min(-difference, 20.0))
    rho = math.exp(min(log_prob - old, 10.0))
    k3 = decay - 1 + difference
    k3_slope = 1 - (decay if -difference < 20 else 0.0)
    return rho * k3, (rho if log_prob - old < 10 else 0.0) * k3 + rho * k3_slope


def softmax(logits):
    top = max(logits)
    weights = [math.exp(x - top) for x in logits]
    return [weight / sum(weights) for weight in weights]


def divergence(p, q, kind):
    """Of two lists of probabilities; 0 log 0 = 0."""
    if kind == "reverse_kl":
        return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)
    if kind == "forward_kl":
        return divergence(q, p, "reverse_kl")
    m = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    return 0.5 * divergence(p, m, "reverse_kl") + 0.5 * divergence(q, m, "reverse_kl")


def buckets(p, q, k):
    """The k likeliest outcomes of q, and the rest as one."""
    top = sorted(range(len(q)), key=lambda v: -q[v])[:k]
    rest = [v for v in range(len(q)) if v not in top]
    return [p[v] for v in top] + [sum(p[v] for v in rest)], [q[v] for v in top] + [sum(q[v] for v in rest)]


def divergence_of_logits(student, teacher, kind, k=None):
    """Value, and gradient by the student's logits from central differences."""

    def value(logits):
        p, q = softmax(logits), softmax(teacher)
        return divergence(*(buckets(p, q, k) if k else (p, q)), kind)

    step, slopes = 1e-5, []
    for v in range(len(student)):
        up, down = list(student), list(student)
        up[v] += step
        down[v] -= step
        slopes.append((value(up) - value(down)) / (2 * step))
    return value(student), slopes
