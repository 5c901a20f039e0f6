"""Rows of a batch: every token has one, and rectangles lose none."""

import torch
from tests.reference.separate_sequences import random_pairs

from promptlimits.nets.decoder.layout import lay_out
from promptlimits.nets.protocol import Part, pack


def part(length, sizes, seed):
    return Part(prompt_tokens=length, pairs=pack(random_pairs(sizes, seed=seed)))


def test_parts_of_one_shape_form_one_group_and_keep_their_order():
    layout = lay_out([part(2, [(2, 2), (2, 2)], seed) for seed in range(3)])
    (group,) = layout.groups
    assert (group.tokens.parts, group.tokens.pairs, group.tokens.longest) == (3, 2, 3)
    assert group.tokens.slots is None
    assert layout.prompt_source is None
    assert layout.read_target is None


def test_linear_layers_see_no_padding():
    parts = [part(1, [(7, 2), (1, 1)], 0), part(5, [(2, 3)], 1), part(1, [(1, 1), (7, 2)], 2)]
    layout = lay_out(parts)
    assert layout.token_ids.numel() == sum(int(one.pairs.lengths.sum()) for one in parts)
    assert layout.prompt_rows == 7
    assert layout.read_rows.numel() == sum(one.pairs.read.numel() for one in parts)


def test_a_rectangle_gives_back_what_was_spread():
    layout = lay_out([part(1, [(4, 2), (1, 1), (2, 2)], 0), part(1, [(5, 1), (1, 1), (3, 1)], 1)])
    (group,) = layout.groups
    rows = torch.arange(group.tokens.stop, dtype=torch.float64)[:, None] + 1
    rectangle = group.tokens.spread(rows)
    assert rectangle.shape == (2, 3, 5, 1)
    back = torch.zeros_like(rows)
    group.tokens.collect(rectangle.flatten(0, 2), back)
    assert torch.equal(back, rows)
    assert float(rectangle.sum()) == float(rows.sum())


def test_groups_change_the_order_and_say_how():
    parts = [part(2, [(2, 1)], 0), part(3, [(2, 1)], 1), part(2, [(2, 1)], 2)]
    layout = lay_out(parts)
    assert layout.order == (0, 2, 1)
    assert layout.prompt_source.tolist() == [0, 1, 5, 6, 2, 3, 4]
    assert layout.read_target.tolist() == [0, 2, 1]
    assert layout.positions.tolist() == [2, 3, 2, 3, 3, 4]


def test_read_positions_in_any_order_keep_their_places():
    pairs = pack(random_pairs([(2, 3), (1, 2)], seed=0))
    shuffled = torch.tensor([4, 0, 2, 1, 3])
    mixed = Part(
        prompt_tokens=1,
        pairs=type(pairs)(
            input_ids=pairs.input_ids,
            lengths=pairs.lengths,
            read=pairs.read[shuffled],
            targets=pairs.targets[shuffled],
            pair_of_read=pairs.pair_of_read[shuffled],
        ),
    )
    layout = lay_out([mixed])
    assert layout.read_target is not None
    assert torch.equal(layout.read_rows, pairs.read[shuffled][layout.read_target])
