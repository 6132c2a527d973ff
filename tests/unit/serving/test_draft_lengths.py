"""How many tokens to propose: the closed form, and the length that yields most per second."""

import numpy as np
import pytest

from perfmodel.serving.simulate import tabulate
from perfmodel.serving.speculation import best_lengths, expected_tokens
from tests.unit.serving.simulation import system


@pytest.mark.parametrize("acceptance", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("length", [0, 1, 4, 7])
def test_expected_tokens_are_the_sum_of_chances(acceptance, length):
    chances = sum(acceptance**place for place in range(length + 1))
    assert expected_tokens(acceptance, length) == pytest.approx(chances)


def test_lengths_are_the_best_of_all():
    table = tabulate(system(), 5 * 40, 5 * 40, 1024)
    draft = np.full(33, 3e-4)
    found = best_lengths(table, draft, 0.7, 4, 900)

    def rate(seqs, length):
        rows = seqs * (length + 1)
        spent = table.time([900 + length] * seqs) + length * draft[seqs]
        spent += table.rows[rows] - table.rows[seqs]
        spent += table.sequences[rows] - table.sequences[seqs]
        return seqs * expected_tokens(0.7, length) / spent

    for seqs in range(1, 33):
        rates = [rate(seqs, length) for length in range(5)]
        # what else depends on rows is the same few microseconds for all lengths
        assert rates[found[seqs]] == pytest.approx(max(rates), rel=1e-3)


def test_a_costly_draft_is_not_worth_it():
    table = tabulate(system(), 5 * 9, 5 * 9, 1024)
    assert best_lengths(table, np.full(9, 1.0), 0.9, 4, 500)[1:].tolist() == [0] * 8
    assert best_lengths(table, np.zeros(9), 1.0, 4, 500)[1] == 4
    assert best_lengths(table, np.zeros(9), 0.0, 4, 500)[1] == 0
