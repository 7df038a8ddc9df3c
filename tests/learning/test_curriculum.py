"""Where the teacher has an opinion: by turn, by the sign of the advantage, and by part of the response."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from itertools import accumulate, pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sdar.environments.slots import tagged_action
from sdar.learning.curriculum import SIGNS, TURN_LABELS, SampledTokens, add_curriculum, group_sums
from sdar.learning.metric_sums import MetricSums
from sdar.learning.response_parts import PARTS, TokenTexts, response_parts
from sdar.learning.token_table import TokenGap, token_table
from toys.models import toy_tokenizer
from toys.training import HintTeacher, toy_datamodule, toy_module, toy_policy, train

DOCS = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"

VOCABULARY = ["<", "think>", "<think>", "</think>", "</", "action>", "<action>", "</action>x", "go", " north", "hm"]

TOKEN = st.tuples(
    st.integers(0, len(VOCABULARY) - 1),
    st.sampled_from([-2.0, -0.011, -0.01, -0.001, 0.0, 0.01, 0.02, 1.5]),
    st.booleans(),
)
RESPONSE = st.tuples(st.integers(0, 12), st.sampled_from([-1.0, 0.0, 0.5]), st.lists(TOKEN, min_size=1, max_size=12))
RESPONSES = st.lists(RESPONSE, max_size=8)


def sampled(responses):
    rows = [(token, gap, strong, adv, turn) for turn, adv, tokens in responses for token, gap, strong in tokens]
    ids, gap, strong, advantage, turn = zip(*rows, strict=True) if rows else ((),) * 5
    return SampledTokens(
        torch.tensor(ids, dtype=torch.long),
        torch.tensor(gap, dtype=torch.float32),
        torch.tensor(strong, dtype=torch.bool),
        torch.tensor(advantage, dtype=torch.float32),
        torch.tensor(turn, dtype=torch.long),
        [len(tokens) for _, _, tokens in responses],
    )


def curriculum(responses):
    sums = MetricSums()
    add_curriculum(sums, sampled(responses), VOCABULARY.__getitem__)
    return sums.compute()


def plain_parts(pieces):
    """The parts of one response, character by character; every piece has some."""
    text, kinds = "".join(pieces), []
    tags = {"<think>": "thought", "</think>": "other", "<action>": "action", "</action>": "other"}
    first = min((text.find(tag) for tag in tags if tag in text), default=0)
    here = "thought" if text[first:].startswith("</think>") else "other"  # the prompt opened it
    while len(kinds) < len(text):
        tag = next((tag for tag in tags if text[len(kinds) :].startswith(tag)), None)
        here = here if tag is None else tags[tag]
        kinds += [here] if tag is None else ["tags"] * len(tag)
    ends = accumulate(map(len, pieces))
    own = [kinds[end - len(piece) : end] for piece, end in zip(pieces, ends, strict=True)]
    return ["tags" if "tags" in kinds else kinds[0] for kinds in own]


def plain(responses):
    """Every figure by a loop over the tokens, with lists instead of sums."""
    values = defaultdict(list)
    for turn, advantage, tokens in responses:
        label = TURN_LABELS[min(turn, 8)]
        sign = "positive" if advantage > 0 else "negative" if advantage < 0 else "zero"
        parts = plain_parts([VOCABULARY[token] for token, _, _ in tokens])
        for (_, gap, strong), part in zip(tokens, parts, strict=True):
            gap = float(torch.tensor(gap))
            is_open = abs(gap) > float(torch.tensor(0.01))
            values["open_fraction"].append(is_open)
            values[f"by_turn/gap_mean/{label}"].append(gap)
            values[f"by_advantage/{sign}/gap_mean"].append(gap)
            values[f"by_part/{part}/gap_mean"].append(gap)
            values[f"by_part/{part}/open_fraction"].append(is_open)
            if is_open:
                values["endorsed_of_open"].append(gap > 0)
                values[f"by_turn/strongly_gated_of_open/{label}"].append(strong)
    return {f"curriculum/{name}": math.fsum(found) / len(found) for name, found in values.items()}


@given(responses=RESPONSES)
def test_every_figure_is_that_of_a_plain_loop(responses):
    assert curriculum(responses) == pytest.approx(plain(responses), abs=1e-9)


@given(responses=RESPONSES)
def test_turns_signs_and_parts_each_add_up_to_all_tokens(responses):
    """No token is in two groups of a kind, or in none: weighted by their counts, the means are the overall mean."""
    tokens = sampled(responses)
    pieces = [VOCABULARY[token] for token in tokens.ids.tolist()]
    turns, signs, parts = group_sums(
        tokens,
        (tokens.turn.clamp(max=8), len(TURN_LABELS)),
        (tokens.advantage.sign().long() + 1, len(SIGNS)),
        (response_parts(pieces, tokens.sizes), len(PARTS)),
    )
    assert [len(turns), len(signs), len(parts)] == [len(TURN_LABELS), len(SIGNS), len(PARTS)]
    for found in (turns, signs, parts):
        assert sum(each.tokens for each in found) == len(pieces)
        assert sum(each.open for each in found) == int((tokens.gap.abs() > 0.01).sum())
        assert sum(each.strong for each in found) == int(((tokens.gap.abs() > 0.01) & tokens.strong).sum())
        assert sum(each.gap for each in found) == pytest.approx(float(tokens.gap.double().sum()), abs=1e-9)


@given(first=RESPONSES, second=RESPONSES)
def test_ranks_add_up(first, second):
    """The same rows in the same order on every rank, whatever it sampled: their sums are those of all tokens."""
    own, other, whole = MetricSums(), MetricSums(), MetricSums()
    for sums, responses in ((own, first), (other, second), (whole, first + second)):
        add_curriculum(sums, sampled(responses), VOCABULARY.__getitem__)
    torch.testing.assert_close(own.sums + other.sums, whole.sums)
    own.sums += other.sums
    assert own.compute() == pytest.approx(whole.compute(), abs=1e-9)


def test_golden_figures():
    """Two responses of one episode, and one of a tenth turn, by hand."""
    responses = [
        (0, 1.0, [(2, 0.0, False), (10, -2.0, False), (3, 0.0, True), (6, 0.02, True), (8, 1.5, True)]),
        (1, -1.0, [(8, -0.011, True), (8, 0.0, False)]),
        (9, 0.0, [(6, 0.0, False), (9, 1.5, False)]),
    ]
    assert curriculum(responses) == pytest.approx(
        {
            "curriculum/open_fraction": 5 / 9,
            "curriculum/endorsed_of_open": 3 / 5,
            "curriculum/by_turn/gap_mean/00": -0.48 / 5,
            "curriculum/by_turn/gap_mean/01": -0.011 / 2,
            "curriculum/by_turn/gap_mean/08+": 0.75,
            "curriculum/by_turn/strongly_gated_of_open/00": 2 / 3,
            "curriculum/by_turn/strongly_gated_of_open/01": 1.0,
            "curriculum/by_turn/strongly_gated_of_open/08+": 0.0,
            "curriculum/by_advantage/positive/gap_mean": -0.48 / 5,
            "curriculum/by_advantage/negative/gap_mean": -0.011 / 2,
            "curriculum/by_advantage/zero/gap_mean": 0.75,
            "curriculum/by_part/thought/gap_mean": -2.0,
            "curriculum/by_part/thought/open_fraction": 1.0,
            "curriculum/by_part/action/gap_mean": 1.5,
            "curriculum/by_part/action/open_fraction": 1.0,
            "curriculum/by_part/tags/gap_mean": 0.02 / 4,
            "curriculum/by_part/tags/open_fraction": 1 / 4,
            "curriculum/by_part/other/gap_mean": -0.011 / 2,
            "curriculum/by_part/other/open_fraction": 1 / 2,
        }
    )


@pytest.mark.parametrize(
    ("pieces", "parts"),
    [
        (["<th", "ink>", "hm"], "tags tags thought"),
        (["so<", "think>", "hm"], "tags tags thought"),
        (
            ["<think>", "hm", ".</think><", "action>", "go", "</action>", "<|im_end|>"],
            "tags thought tags tags action tags other",
        ),
        (["<ACTION>", "go", "</Action>", "x"], "tags action tags other"),
        (["<THINK>", "hm"], "other other"),
        (["<search>", "mill", "</search>"], "tags action tags"),
        (["<think>", "hm ", "<action>", "go"], "tags thought tags action"),
        (["<think>", "hm", "<act"], "tags thought thought"),
        (["hm", ".", "</think>", "<action>", "go"], "thought thought tags tags action"),
        (["hm", "<action>", "go", "</think>", "so"], "other tags action tags other"),
        (["", "<think>", "", "hm", ""], "other tags thought thought thought"),
        (["<thi", "", "nk>"], "tags tags tags"),
        (["\ufffd", "<answer>", "\ufffd\0"], "other tags action"),
        (["go"], "other"),
        ([], ""),
    ],
)
def test_parts_of_a_response(pieces, parts):
    assert [PARTS[part] for part in response_parts(pieces, [len(pieces)] if pieces else [])] == parts.split()


def test_a_response_does_not_go_on_in_the_next():
    parts = response_parts(["<think>", "hm", "<act", "ion>", "so"], [3, 0, 2])
    assert [PARTS[part] for part in parts] == ["tags", "thought", "thought", "other", "other"]
    parts = response_parts(["hm", "so", "</think>"], [1, 2])
    assert [PARTS[part] for part in parts] == ["other", "thought", "tags"]


@given(
    thought=st.text("hm <>/", max_size=8),
    action=st.text("go <>/", max_size=8),
    cuts=st.lists(st.integers(0, 60), max_size=6),
)
def test_the_action_is_what_the_environment_reads(thought, action, cuts):
    response = f"<think>{thought}</think><action>{action}</action>"
    bounds = sorted({0, len(response), *(min(cut, len(response)) for cut in cuts)})
    pieces = [response[start:stop] for start, stop in pairwise(bounds)]
    # Character by character, so that no piece straddles a tag.
    letters = list(response)
    parts = response_parts(letters, [len(letters)])
    read = "".join(letter for letter, part in zip(letters, parts, strict=True) if PARTS[part] == "action")
    assert read.strip() == tagged_action(response, 30).action
    # Coarser pieces lose letters to the tags, and gain none.
    coarse = response_parts(pieces, [len(pieces)])
    kept = "".join(piece for piece, part in zip(pieces, coarse, strict=True) if PARTS[part] == "action")
    assert kept in read


def test_the_table_lists_the_farthest_tokens_that_occur_often_enough():
    gaps = {0: [0.5, 1.5, 1.0], 1: [3.0, 3.0], 2: [-0.3] * 4, 3: [0.01, 0.0, -0.01], 4: [2.0] * 3, 5: [-0.9, 0.0, -0.9]}
    ids = torch.tensor([token for token, values in gaps.items() for _ in values])
    values = torch.tensor([value for values in gaps.values() for value in values])
    order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(0))
    table = token_table(ids[order], values[order], "abcdef".__getitem__, margin=0.01)
    approx = pytest.approx
    assert table.endorsed == [TokenGap("e", 3, approx(2.0)), TokenGap("a", 3, approx(1.0))]
    assert table.rejected == [TokenGap("f", 3, approx(-0.6)), TokenGap("c", 4, approx(-0.3))]


def test_the_table_is_bounded_and_may_be_empty():
    ids = torch.arange(40).repeat(3)
    table = token_table(ids, ids / 10 - 2.05, str, margin=0.01)
    assert [row.text for row in table.endorsed] == [str(token) for token in range(39, 29, -1)]
    assert [row.text for row in table.rejected] == [str(token) for token in range(10)]
    assert token_table(ids[:0], torch.zeros(0), str, margin=0.01) == ([], [])


def test_token_texts_are_those_of_the_tokenizer():
    tokenizer = toy_tokenizer()
    texts = TokenTexts(tokenizer)
    ids = [2, *tokenizer.encode("ü<x")]
    assert [texts(token) for token in ids * 2] == [tokenizer.decode([token]) for token in ids * 2]


def iteration(hint):
    policy = toy_policy()
    module = toy_module(policy, HintTeacher(hint))
    return train(module, toy_datamodule(policy), 1).steps[0], module.report


def test_with_an_empty_block_the_teacher_has_no_opinion_anywhere():
    """Exactly 0, not nearly: the teacher reads what the student reads."""
    metrics, report = iteration("")
    found = {name: value for name, value in metrics.items() if name.startswith("curriculum/")}
    assert found.pop("curriculum/neutral_fraction") == 1.0
    assert found.pop("curriculum/gate_mean") == 0.5
    assert set(found.values()) == {0.0}
    assert not any("of_open" in name for name in found)  # a mean of nothing
    assert report.token_table == ([], [])


def test_the_report_has_what_was_logged_and_the_table():
    metrics, report = iteration("Hint: say bbb.\n\n")
    by_turn = report.by_turn
    assert set(by_turn) == {"gap_mean", "strongly_gated_of_open"}
    logged = [metrics.get(f"curriculum/by_turn/gap_mean/{label}") for label in TURN_LABELS]
    assert by_turn["gap_mean"] == logged
    assert [value is None for value in logged] == [False] * 3 + [True] * 6  # three turns at most
    assert metrics["curriculum/open_fraction"] == pytest.approx(
        metrics["curriculum/endorsed_fraction"] + metrics["curriculum/rejected_fraction"]
    )
    assert report.token_table.rejected[0].gap_mean < -0.01


def test_without_a_teacher_there_is_no_table():
    policy = toy_policy()
    module = toy_module(policy, distillation_coefficient=0.0)
    train(module, toy_datamodule(policy), 1)
    assert module.report.token_table is None
    assert {value for column in module.report.by_turn.values() for value in column} == {None}


def test_every_tag_is_documented():
    """docs/metrics.md names each curriculum tag, with its variants in angle brackets."""
    documented = DOCS.read_text()
    for name in plain([(0, 1.0, [(2, 1.0, True), (10, 1.0, True)])]):
        kinds = {"by_turn": r"/00$", "by_advantage": r"/positive/", "by_part": r"/(tags|thought)/"}
        for kind, variant in kinds.items():
            if f"/{kind}/" in name:
                written = {"by_turn": "/<turn>", "by_advantage": "/<sign>/", "by_part": "/<part>/"}[kind]
                name = re.sub(variant, written, name)
        assert f"`{name}`" in documented
    for words in (TURN_LABELS[0], TURN_LABELS[-1], *SIGNS, *PARTS):
        assert f"`{words}`" in documented
