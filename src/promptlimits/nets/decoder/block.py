"""One block of a decoder: attention and feed-forward with their norms, forward and back."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from promptlimits.nets.decoder.attention_layer import AttentionLayer
from promptlimits.nets.decoder.linear import FeedForward
from promptlimits.nets.decoder.pointwise import Norm
from promptlimits.nets.decoder.stage import FixedHeads, Stage
from promptlimits.nets.decoder.tape import Tape


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """One block.

    Attributes:
        attention_norm: In front of the attention.
        attention: The attention layer.
        attention_post: Behind it, before the residual, or None.
        feed_norm: In front of the feed-forward layer.
        feed: The feed-forward layer.
        feed_post: Behind it, or None.
        parallel: Whether the feed-forward layer reads the block's input, not the attention's
            residual; such a block has no norms behind.
    """

    attention_norm: Norm
    attention: AttentionLayer
    attention_post: Norm | None
    feed_norm: Norm
    feed: FeedForward
    feed_post: Norm | None
    parallel: bool

    def forward(self, x: Tensor, stage: Stage, tape: Tape) -> Tensor:
        """The block's output at the rows that the stage asks for.

        Args:
            x: (N, D), prompt rows first; it may be overwritten.
            stage: What is fixed and what is asked for.
            tape: What the reverse pass needs is put here.

        Returns:
            (N, D), or (R, D) where only read rows are asked for.
        """
        rows = self.attention_norm.forward(stage.variable(x), tape)
        mixed = self.attention.forward(rows, stage, tape)
        kept = stage.asked(x)
        if self.attention_post is None:
            keeps = self.parallel or self.attention_norm.keeps_input
            middle = self.attention.output.forward(mixed, kept.clone() if keeps else kept)
        else:
            out = self.attention.output.forward(mixed)
            middle = self.attention_post.forward(out, tape).add_(kept)
        if self.parallel:
            return self._feed_beside(kept, middle, stage, tape)
        normed = self.feed_norm.forward(middle, tape)
        if self.feed_post is None:
            keeps = self.feed_norm.keeps_input
            return self.feed.forward(normed, tape, middle.clone() if keeps else middle)
        return self.feed_post.forward(self.feed.forward(normed, tape, None), tape).add_(middle)

    def backward(
        self, gradient: Tensor, stage: Stage, tape: Tape
    ) -> tuple[Tensor, tuple[tuple[Tensor, Tensor], ...]]:
        """Gradient in the rows of x that vary, from that in the output.

        Args:
            gradient: Of the output's shape; it may be overwritten.
            stage: As in the forward pass.
            tape: As the forward pass left it.

        Returns:
            (N, D), or (prompt rows, D) where the rest of x is fixed; and the gradients in
            each group's prefix keys and values.
        """
        if self.parallel:
            # First, for the gradient is overwritten on its way through the feed-forward layer.
            mixed = self.attention.output.backward(gradient)
            through = self._feed_beside_back(gradient, stage, tape)
        else:
            out = gradient if self.feed_post is None else self.feed_post.backward(gradient, tape)
            through = self.feed_norm.backward(self.feed.backward(out, tape), tape, gradient)
            post = self.attention_post
            mixed = self.attention.output.backward(
                through if post is None else post.backward(through, tape)
            )
        rows, prefixes = self.attention.backward(mixed, stage, tape)
        beside = stage.unasked(through, len(rows))
        return self.attention_norm.backward(rows, tape, beside), prefixes

    def fix(self, x: Tensor, stage: Stage) -> FixedHeads:
        """What of this block, the first, no prompt changes.

        Args:
            x: (T, D) the pairs' rows.
            stage: What is asked for.

        Returns:
            The pairs' heads and, in a parallel block, their feed-forward outputs.
        """
        silent = Tape(keep=False)
        heads = self.attention.fix(self.attention_norm.forward(x, silent), stage)
        if not self.parallel:
            return FixedHeads(heads=heads, feed=None)
        kept = x[stage.layout.read_rows] if stage.last else x
        feed = self.feed.forward(self.feed_norm.forward(kept, silent), silent, None)
        return FixedHeads(heads=heads, feed=feed)

    def _feed_beside(self, kept: Tensor, middle: Tensor, stage: Stage, tape: Tape) -> Tensor:
        """The parallel block's feed-forward layer, which reads the block's own input."""
        front = stage.prompt_rows_asked
        if stage.fixed is None or stage.fixed.feed is None:
            return self.feed.forward(self.feed_norm.forward(kept, tape), tape, middle)
        middle[front:].add_(stage.fixed.feed)
        normed = self.feed_norm.forward(kept[:front], tape)
        middle[:front].add_(self.feed.forward(normed, tape, None))
        return middle

    def _feed_beside_back(self, gradient: Tensor, stage: Stage, tape: Tape) -> Tensor:
        """Gradient in the block's input past the attention."""
        if stage.fixed is None:
            return self.feed_norm.backward(self.feed.backward(gradient, tape), tape, gradient)
        front = gradient[: stage.prompt_rows_asked]
        return self.feed_norm.backward(self.feed.backward(front, tape), tape, front)
