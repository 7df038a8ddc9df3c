"""The packers: the mask marks the sampled ids and nothing else, and the teacher scores the very same ids."""

import jaxtyping
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sdar.episode import EndReason, Episode, Observation, Task, Turn
from sdar.errors import UserError
from sdar.learning.batch import PrivilegedContextError, TokenBatch, align, pack, pack_teacher
from sdar.learning.step_plan import plan_steps
from sdar.objective.objective import ObjectiveConfig, denominators, token_losses, total_loss
from sdar.objective.tokens import TokenScores

PAD = 0
SEEN = Observation("", None, "")


def turn(context, response, splice=None):
    return Turn(list(context), list(response), "", "", valid=True, observation=SEEN, splice_index=splice)


def episode(turns, end=EndReason.SUCCESS, name="task-1", member=0):
    return Episode(Task(name, "type", "do it", "train", "hash"), member, turns, end, success=False)


def advantages(episodes):
    return [[10.0 * i + k + 1 for k in range(len(e.turns))] for i, e in enumerate(episodes)]


TWO_TURNS = episode([turn([1, 2, 3], [11, 12], splice=1), turn([4], [13])])
ONE_TURN = episode([turn([5, 6], [14], splice=2)], name="task-2")

ids = st.lists(st.integers(1, 99), max_size=6)


@st.composite
def episode_lists(draw):
    """Episodes of growing conversations; the first turn has a place for the block, some responses are empty."""
    episodes = []
    for i in range(draw(st.integers(1, 5))):
        turns = []
        for k in range(draw(st.integers(0, 4))):
            context = draw(st.lists(st.integers(1, 99), min_size=1, max_size=6))
            splice = draw(st.integers(0, len(context))) if k == 0 else None
            turns.append(turn(context, draw(ids), splice))
        end = draw(st.sampled_from([EndReason.SUCCESS, EndReason.TURN_LIMIT, EndReason.ERROR_ENVIRONMENT]))
        episodes.append(episode(turns, end, name=f"task-{i}"))
    return episodes


@st.composite
def window_episode_lists(draw):
    """As :func:`episode_lists`, but every turn has a prompt of its own with a place for the block."""
    episodes = draw(episode_lists())
    for each in episodes:
        for t in each.turns:
            t.splice_index = draw(st.integers(0, len(t.context_ids)))
    return episodes


def by_turn(batch, values):
    """(episode, turn) -> values [tokens of the response] of a [B, T] tensor."""
    found = {}
    for row, owner in enumerate(batch.episode_index.tolist()):
        for column in batch.response_mask[row].nonzero()[:, 0].tolist():
            found.setdefault((owner, int(batch.turn_index[row, column])), []).append(values[row, column].item())
    return found


def test_golden_rows_by_hand():
    batch = pack([TWO_TURNS, ONE_TURN], [[0.5, -1.0], [2.0]], PAD)
    assert batch.ids.tolist() == [[1, 2, 3, 11, 12, 4, 13], [5, 6, 14, 0, 0, 0, 0]]
    assert batch.attention_mask.int().tolist() == [[1] * 7, [1, 1, 1, 0, 0, 0, 0]]
    assert batch.response_mask.int().tolist() == [[0, 0, 0, 1, 1, 0, 1], [0, 0, 1, 0, 0, 0, 0]]
    assert batch.advantage.tolist() == [[0, 0, 0, 0.5, 0.5, 0, -1], [0, 0, 2, 0, 0, 0, 0]]
    assert batch.turn_index.tolist() == [[-1, -1, -1, 0, 0, -1, 1], [-1, -1, 0, -1, -1, -1, -1]]
    assert batch.episode_index.tolist() == [0, 1]
    assert batch.lengths() == [7, 3]
    assert (batch.ids.dtype, batch.advantage.dtype) == (torch.long, torch.float32)
    assert batch.old_log_probs is None


def test_golden_teacher_rows_by_hand():
    rows = pack_teacher([TWO_TURNS, ONE_TURN], [[70, 71], [80]], PAD, context_tokens=9)
    assert rows.ids.tolist() == [[1, 70, 71, 2, 3, 11, 12, 4, 13], [5, 6, 80, 14, 0, 0, 0, 0, 0]]
    assert rows.response_mask.int().tolist() == [[0, 0, 0, 0, 0, 1, 1, 0, 1], [0, 0, 0, 1, 0, 0, 0, 0, 0]]
    assert rows.attention_mask.int().tolist() == [[1] * 9, [1, 1, 1, 1, 0, 0, 0, 0, 0]]
    assert rows.lengths() == [9, 4]


@given(episode_lists())
def test_mask_marks_exactly_the_sampled_ids(episodes):
    values = advantages(episodes)
    batch = pack(episodes, values, PAD)
    assert len(batch) == len(episodes)
    for i, each in enumerate(episodes):
        turns = [] if each.end.is_error else each.turns
        sampled = [(token, k) for k, t in enumerate(turns) for token in t.response_ids]
        mask = batch.response_mask[i]
        assert batch.ids[i][mask].tolist() == [token for token, _ in sampled]
        assert batch.turn_index[i][mask].tolist() == [k for _, k in sampled]
        assert batch.advantage[i][mask].tolist() == [values[i][k] for _, k in sampled]
        assert (batch.turn_index[i][~mask] == -1).all()
        assert (batch.advantage[i][~mask] == 0).all()
        assert (batch.ids[i][~batch.attention_mask[i]] == PAD).all()
        # Nothing after the last response, and padding on the right alone.
        length = batch.lengths()[i]
        assert batch.attention_mask[i].tolist() == [True] * length + [False] * (batch.ids.shape[1] - length)
        assert length == 0 or mask[length - 1]


@given(episode_lists(), st.lists(ids, min_size=5, max_size=5))
def test_teacher_and_student_mark_the_same_ids_in_the_same_order(episodes, blocks):
    batch = pack(episodes, advantages(episodes), PAD)
    rows = pack_teacher(episodes, blocks[: len(episodes)], PAD, context_tokens=1000)
    for i, each in enumerate(episodes):
        assert rows.ids[i][rows.response_mask[i]].tolist() == batch.ids[i][batch.response_mask[i]].tolist()
        student = batch.ids[i][batch.attention_mask[i]].tolist()
        teacher = rows.ids[i][rows.attention_mask[i]].tolist()
        if student:
            at = each.turns[0].splice_index
            assert teacher == student[:at] + blocks[i] + student[at:]
        else:
            assert teacher == []


def test_golden_window_rows_by_hand():
    cut_short = episode([turn([7], [15], splice=0)], EndReason.ERROR_ENVIRONMENT, name="task-3")
    two = episode([turn([1, 2, 3], [11, 12], splice=1), turn([4, 5], [], splice=0), turn([4], [13], splice=1)])
    batch = pack([two, cut_short], [[0.5, 9.0, -1.0], [2.0]], PAD, "window")
    assert batch.ids.tolist() == [[1, 2, 3, 11, 12], [4, 13, 0, 0, 0], [0] * 5]
    assert batch.response_mask.int().tolist() == [[0, 0, 0, 1, 1], [0, 1, 0, 0, 0], [0] * 5]
    assert batch.advantage.tolist() == [[0, 0, 0, 0.5, 0.5], [0, -1, 0, 0, 0], [0] * 5]
    assert batch.turn_index.tolist() == [[-1, -1, -1, 0, 0], [-1, 2, -1, -1, -1], [-1] * 5]
    assert batch.episode_index.tolist() == [0, 0, 1]
    rows = pack_teacher([two, cut_short], [[70, 71], [80]], PAD, context_tokens=7, context="window")
    assert rows.ids.tolist() == [[1, 70, 71, 2, 3, 11, 12], [4, 70, 71, 13, 0, 0, 0], [0] * 7]
    with pytest.raises(PrivilegedContextError, match="needs 7 tokens"):
        pack_teacher([two, cut_short], [[70, 71], [80]], PAD, context_tokens=6, context="window")


@hypothesis_settings(max_examples=40, deadline=None)
@given(window_episode_lists(), st.lists(ids, min_size=5, max_size=5), st.none() | st.integers(1, 4))
def test_episodes_packed_both_ways_have_equal_advantages_masks_and_denominators(episodes, blocks, per_step):
    values, config = advantages(episodes), ObjectiveConfig()
    both = {context: pack(episodes, values, PAD, context) for context in ("append", "window")}
    grown, fresh = both["append"], both["window"]
    assert by_turn(grown, grown.ids) == by_turn(fresh, fresh.ids)
    assert by_turn(grown, grown.advantage) == by_turn(fresh, fresh.advantage)
    assert set(fresh.episode_index.tolist()) == set(range(len(episodes)))
    counts = {}
    for context, batch in both.items():
        plan = plan_steps(
            batch.lengths(), episodes_per_step=per_step, max_tokens=1000, episode_index=batch.episode_index.tolist()
        )
        counts[context] = [denominators(batch.select(step.rows), config) for step in plan]
        rows = pack_teacher(episodes, blocks[: len(episodes)], PAD, context_tokens=1000, context=context)
        aligned = align(rows.ids.float(), rows.response_mask, batch.response_mask)
        assert torch.equal(aligned, torch.where(batch.response_mask, batch.ids.float(), 0.0))
    assert counts["append"] == counts["window"]


@hypothesis_settings(max_examples=40, deadline=None)
@given(window_episode_lists(), st.integers(0, 2**31))
def test_episodes_packed_both_ways_have_equal_losses_where_their_tokens_have_equal_scores(episodes, seed):
    config, values = ObjectiveConfig(distillation_coefficient=0.1), advantages(episodes)
    generator, losses, scores = torch.Generator().manual_seed(seed), [], {}

    def score(batch, name):
        """One number per token of a turn, the same in every packing."""
        tensor = torch.zeros(batch.ids.shape)
        for (owner, k), tokens in by_turn(batch, batch.ids).items():
            drawn = scores.setdefault((name, owner, k), -3 * torch.rand(len(tokens), generator=generator))
            here = (batch.episode_index == owner)[:, None] & (batch.turn_index == k)
            tensor[here] = drawn
        return tensor

    for context in ("append", "window"):
        batch = pack(episodes, values, PAD, context)
        batch.old_log_probs, batch.teacher_log_probs = score(batch, "old"), score(batch, "teacher")
        batch.reference_log_probs = score(batch, "reference")
        found = token_losses(TokenScores(score(batch, "new"), -score(batch, "entropy")), batch, config)
        losses.append(total_loss(found, denominators(batch, config), config))
    torch.testing.assert_close(*losses)


@given(episode_lists())
def test_the_empty_block_gives_the_students_ids(episodes):
    batch = pack(episodes, advantages(episodes), PAD)
    rows = pack_teacher(episodes, [[] for _ in episodes], PAD, context_tokens=1)
    assert torch.equal(rows.ids, batch.ids)
    assert torch.equal(rows.attention_mask, batch.attention_mask)
    assert torch.equal(rows.response_mask, batch.response_mask)


@given(episode_lists(), st.lists(ids, min_size=5, max_size=5))
def test_aligned_scores_lie_on_the_ids_they_belong_to(episodes, blocks):
    batch = pack(episodes, advantages(episodes), PAD)
    rows = pack_teacher(episodes, blocks[: len(episodes)], PAD, context_tokens=1000)
    aligned = align(rows.ids.float() + 0.5, rows.response_mask, batch.response_mask)
    expected = torch.where(batch.response_mask, batch.ids.float() + 0.5, 0.0)
    assert torch.equal(aligned, expected)


def test_align_refuses_rows_that_do_not_match():
    one, two = torch.tensor([[True, False]]), torch.tensor([[True, True]])
    with pytest.raises(ValueError, match="same number"):
        align(torch.zeros(1, 2), one, two)


def test_privileged_text_is_never_cut():
    pack_teacher([TWO_TURNS], [[70, 71]], PAD, context_tokens=9)
    with pytest.raises(PrivilegedContextError, match=r"'task-1', group member 0, needs 9 tokens \(7 .* 2 .*takes 8"):
        pack_teacher([ONE_TURN, TWO_TURNS], [[], [70, 71]], PAD, context_tokens=8)
    assert issubclass(PrivilegedContextError, UserError)


@pytest.mark.parametrize("splice", [None, 3, -1])
def test_a_block_without_a_place_is_an_error(splice):
    with pytest.raises(ValueError, match=r"splice index|privileged block belongs"):
        pack_teacher([episode([turn([1, 2], [3], splice)])], [[70]], PAD, context_tokens=99)


def test_a_response_cut_at_its_limit_is_closed_by_an_id_that_is_not_masked():
    end = 42
    batch = pack([episode([turn([1], [11, 12], 0), turn([end, 4], [13])])], [[1.0, 1.0]], PAD)
    assert batch.ids[0].tolist() == [1, 11, 12, end, 4, 13]
    assert batch.response_mask[0].int().tolist() == [0, 1, 1, 0, 0, 1]


def test_advantages_must_match_the_turns():
    with pytest.raises(ValueError, match="one number per turn"):
        pack([TWO_TURNS], [[1.0]], PAD)
    with pytest.raises(ValueError, match="2 privileged blocks for 1"):
        pack_teacher([TWO_TURNS], [[], []], PAD, 99)


def test_select_keeps_rows_and_trims_to_the_longest():
    batch = pack([TWO_TURNS, ONE_TURN, episode([turn([1], [2])])], [[1, 1], [2], [3]], PAD)
    batch.old_log_probs = torch.where(batch.response_mask, -1.0, 0.0)
    part = batch.select([2, 1])
    assert part.ids.tolist() == [[1, 2, 0], [5, 6, 14]]
    assert part.episode_index.tolist() == [2, 1]
    assert part.old_log_probs.tolist() == [[0, -1, 0], [0, 0, -1]]
    assert part.teacher_log_probs is None


def test_to_moves_every_tensor():
    moved = pack([TWO_TURNS], [[1, 1]], PAD).to("meta")
    assert {t.device.type for t in (moved.ids, moved.advantage, moved.episode_index)} == {"meta"}


@pytest.fixture
def no_checks_of_shapes():
    """As users run it: only what the code itself refuses."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("no_checks_of_shapes")
def test_shapes_that_do_not_belong_together_are_refused():
    batch = pack([TWO_TURNS], [[1, 1]], PAD)
    with pytest.raises(ValueError, match="advantage has shape"):
        TokenBatch(
            ids=batch.ids, attention_mask=batch.attention_mask, response_mask=batch.response_mask,
            advantage=torch.zeros(1, 1), turn_index=batch.turn_index, episode_index=batch.episode_index,
        )  # fmt: skip


def test_no_episodes_make_an_empty_batch():
    batch = pack([], [], PAD)
    assert batch.ids.shape == (0, 0)
    assert len(batch) == 0


@hypothesis_settings(deadline=None)
@given(window_episode_lists(), st.sampled_from(["append", "window"]))
def test_the_rows_of_an_episode_share_it_and_those_without_responses_have_none(episodes, context):
    batch = pack(episodes, advantages(episodes), PAD, context)
    shares = batch.episode_shares()
    learned = {owner for owner, _ in by_turn(batch, batch.ids)}
    assert shares.sum().item() == pytest.approx(len(learned))
    assert (shares[~batch.response_mask.any(dim=1)] == 0).all()


@hypothesis_settings(deadline=None)
@given(window_episode_lists())
def test_sampled_tokens_have_one_order_however_episodes_are_packed(episodes):
    found = []
    for context in ("append", "window"):
        batch = pack(episodes, advantages(episodes), PAD, context)
        mask = batch.response_mask
        owner = batch.episode_index[:, None].expand_as(mask)
        found.append([tensor[mask].tolist() for tensor in (owner, batch.turn_index, batch.ids, batch.advantage)])
    assert found[0] == found[1]
