"""Memory that is handed out again and again."""

from __future__ import annotations

import torch

from promptlimits.capacity.train.memory import LogitBuffer


def test_the_same_memory_serves_matrices_of_any_shape_that_fits() -> None:
    scratch, like = LogitBuffer(), torch.zeros(1)
    first = scratch.matrix(4, 6, like)
    assert first.shape == (4, 6)
    assert first.is_contiguous()
    for rows, columns in ((2, 6), (8, 3), (1, 1)):
        again = scratch.matrix(rows, columns, like)
        assert again.shape == (rows, columns)
        assert again.is_contiguous()
        assert again.data_ptr() == first.data_ptr()


def test_more_room_or_another_dtype_is_other_memory() -> None:
    scratch = LogitBuffer()
    small = scratch.matrix(2, 2, torch.zeros(1))
    large = scratch.matrix(3, 2, torch.zeros(1))
    assert large.data_ptr() != small.data_ptr()
    wide = scratch.matrix(1, 2, torch.zeros(1, dtype=torch.float64))
    assert wide.dtype == torch.float64
