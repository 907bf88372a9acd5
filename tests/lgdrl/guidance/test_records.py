"""Records: labels are filled once, late ones are never executable, executions are the written mixtures."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lgdrl.guidance.records import LATE, NO_STATUS, STATUSES, Execution, Labels, Reason
from tests.lgdrl.steps import BOX, FAILED, OK, labels_of, step_of, transitions_of


def test_statuses_are_stored_by_their_place_in_the_enum():
    assert [str(status) for status in STATUSES] == ["ok", "repaired", "vetoed", "fallback", "late", "failed"]
    assert STATUSES[LATE] == "late"


def test_no_labels_are_zeros_with_the_shape_of_the_action_space():
    discrete, box = Labels.none(3, spaces.Discrete(4)), Labels.none(3, BOX)
    assert discrete.action.dtype == np.int64
    assert discrete.probs.tolist() == [[0.0] * 4] * 3
    assert box.action.shape == (3, 2)
    assert box.action.dtype == np.float32
    assert box.probs is None
    for labels in (discrete, box):
        assert not labels.given.any()
        assert not labels.action.any()
        assert labels.status.tolist() == [NO_STATUS] * 3
        assert not labels.executable.any()


def test_a_late_label_is_given_but_not_executable():
    labels = labels_of([0, 1, None, 2], status=[OK, LATE, NO_STATUS, STATUSES.index("fallback")])
    assert labels.given.tolist() == [True, True, False, True]
    assert labels.executable.tolist() == [True, False, False, True]


def test_filling_copies_what_was_not_asked_and_keeps_what_was():
    mine = labels_of([0, None, None, None])
    mine.status[1] = FAILED  # asked without success: it is not asked again
    mine.fill(labels_of([2, 2, 1, None]))
    assert mine.given.tolist() == [True, False, True, False]
    assert mine.action.tolist() == [0, 0, 1, 0]
    assert mine.status.tolist() == [OK, FAILED, OK, NO_STATUS]
    assert mine.probs.tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0, 0]]


def test_filling_works_on_continuous_actions():
    mine, more = Labels.none(2, BOX), Labels.none(2, BOX)
    more.given[1], more.action[1], more.status[1] = True, [0.5, -0.5], LATE
    mine.fill(more)
    assert mine.given.tolist() == [False, True]
    assert mine.action.tolist() == [[0, 0], [0.5, -0.5]]
    assert mine.status.tolist() == [NO_STATUS, LATE]
    assert mine.probs is None


STATUS_ARRAYS = hnp.arrays(np.int8, 6, elements=st.integers(-1, len(STATUSES) - 1))


def random_labels(status: np.ndarray, seed: int) -> Labels:
    """Labels where the status says so: given unless failed or not asked."""
    stream = np.random.default_rng(seed)
    labels = Labels.none(len(status), spaces.Discrete(3))
    labels.status[:] = status
    labels.given[:] = (status != NO_STATUS) & (status != FAILED)
    labels.action[labels.given] = stream.integers(3, size=int(labels.given.sum()))
    labels.probs[labels.given] = stream.dirichlet(np.ones(3), size=int(labels.given.sum()))
    return labels


@given(STATUS_ARRAYS, STATUS_ARRAYS)
@settings(max_examples=50)
def test_every_row_of_a_fill_comes_whole_from_the_first_that_was_asked(first, second):
    one, other = random_labels(first, 0), random_labels(second, 1)
    filled = random_labels(first, 0)
    filled.fill(other)
    for i in range(len(first)):
        source = one if first[i] != NO_STATUS else other
        assert filled.given[i] == source.given[i]
        assert filled.action[i] == source.action[i]
        assert filled.status[i] == source.status[i]
        assert (filled.probs[i] == source.probs[i]).all()
    before = filled.action.copy()
    filled.fill(other)  # a second time there is nothing to do
    assert (filled.action == before).all()


def test_the_learner_executes_its_proposals():
    context, labels = step_of([2, 0]), labels_of([1, None])
    execution = Execution.by_learner(context, labels)
    assert execution.actions.tolist() == [2, 0]
    assert execution.labels is labels
    assert execution.authority.tolist() == [0, 0]
    assert execution.reason.tolist() == [Reason.LEARNER] * 2
    assert Execution.by_learner(context).labels.status.tolist() == [NO_STATUS] * 2


def test_switching_takes_the_label_in_the_named_rows_only():
    context, labels = step_of([2, 0, 1]), labels_of([1, 2, 0])
    execution = Execution.switched(context, labels, np.array([True, False, True]), Reason.UNSAFE)
    assert execution.actions.tolist() == [1, 0, 0]
    assert execution.authority.tolist() == [1, 0, 1]
    assert execution.authority.dtype == np.float32
    assert execution.reason.tolist() == [Reason.UNSAFE, Reason.LEARNER, Reason.UNSAFE]
    assert execution.reason.dtype == np.int8
    assert execution.intervened.tolist() == [True, False, True]
    assert context.proposals.tolist() == [2, 0, 1]  # both proposals are kept


def box_step(proposals, labels, status=None):
    context = step_of(np.asarray(proposals, np.float32))
    known = Labels.none(len(proposals), BOX)
    known.given[:], known.action[:], known.status[:] = True, labels, OK if status is None else status
    return context, known


def test_switching_continuous_actions_replaces_whole_rows():
    context, labels = box_step([[0.1, 0.2], [0.3, 0.4]], [[0.5, 0.6], [0.7, 0.8]])
    execution = Execution.switched(context, labels, np.array([False, True]), Reason.OTHER)
    assert execution.actions == pytest.approx(np.array([[0.1, 0.2], [0.7, 0.8]]))
    assert execution.authority.tolist() == [0, 1]


def test_blending_is_the_written_mixture():
    context, labels = box_step([[1.0, 0.0]] * 4, [[0.0, -1.0]] * 4, [OK, OK, OK, LATE])
    execution = Execution.blended(context, labels, np.array([0.0, 0.25, 1.0, 0.9]), Reason.SCHEDULE)
    assert execution.actions == pytest.approx(np.array([[1, 0], [0.75, -0.25], [0, -1], [1, 0]]))
    assert execution.actions.dtype == np.float32
    assert execution.authority.tolist() == [0, 0.25, 1, 0]  # a late label has no share
    assert execution.reason.tolist() == [Reason.LEARNER, Reason.SCHEDULE, Reason.SCHEDULE, Reason.LEARNER]


UNIT = st.floats(0, 1, width=32)
POINTS = hnp.arrays(np.float32, (3, 2), elements=st.floats(-1, 1, width=32))


@given(POINTS, POINTS, hnp.arrays(np.float32, 3, elements=UNIT))
@settings(max_examples=50)
def test_a_blended_action_lies_between_both_proposals(proposals, labels, authority):
    context, known = box_step(proposals, labels)
    actions = Execution.blended(context, known, authority, Reason.OTHER).actions
    low, high = np.minimum(proposals, labels) - 1e-6, np.maximum(proposals, labels) + 1e-6
    assert ((low <= actions) & (actions <= high)).all()


def test_discrete_actions_cannot_be_blended():
    with pytest.raises(ValueError, match="discrete actions cannot be blended"):
        Execution.blended(step_of([0]), labels_of([1]), np.array([0.5]), Reason.OTHER)


def test_a_transition_ends_by_termination_or_truncation_and_knows_who_had_a_share():
    context = step_of([0, 0, 0])
    stored = transitions_of(
        context,
        authority=np.array([0, 0.1, 1], np.float32),
        terminated=np.array([True, False, False]),
        truncated=np.array([False, True, False]),
    )
    assert len(stored) == 3
    assert stored.dones.tolist() == [True, True, False]
    assert stored.intervened.tolist() == [False, True, True]
