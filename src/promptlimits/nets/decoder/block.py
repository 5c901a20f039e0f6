"""One block of a decoder: attention and feed-forward with their norms, forward and back."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from promptlimits.nets.decoder.attention_layer import AttentionLayer
from promptlimits.nets.decoder.linear import FeedForward
from promptlimits.nets.decoder.plan import BlockPlan, FixedHeads
from promptlimits.nets.decoder.pointwise import Norm, SavedTensors
from promptlimits.nets.decoder.softmax import KeyValue


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """One block; its norms stand in front of a layer, or behind it before the residual (post)."""

    attention_norm: Norm
    attention: AttentionLayer
    feed_norm: Norm
    feed: FeedForward
    attention_post: Norm | None = None
    feed_post: Norm | None = None
    parallel: bool = False
    """Whether the feed-forward layer reads the block's input, not the attention's residual; such a
    block has no norms behind."""

    def forward(self, x: Tensor, plan: BlockPlan, saved: SavedTensors) -> Tensor:
        """The rows that the plan asks for, of x (N, D), prompt rows first, which is overwritten."""
        rows = self.attention_norm.forward(plan.variable(x), saved)
        mixed = self.attention.forward(rows, plan, saved)
        kept = plan.asked(x)
        if self.attention_post is None:
            keeps = self.parallel or self.attention_norm.keeps_input
            middle = self.attention.output.forward(mixed, kept.clone() if keeps else kept)
        else:
            out = self.attention.output.forward(mixed)
            middle = self.attention_post.forward(out, saved).add_(kept)
        if self.parallel:
            return self._feed_beside(kept, middle, plan, saved)
        normed = self.feed_norm.forward(middle, saved)
        if self.feed_post is None:
            keeps = self.feed_norm.keeps_input
            return self.feed.forward(normed, saved, middle.clone() if keeps else middle)
        return self.feed_post.forward(self.feed.forward(normed, saved, None), saved).add_(middle)

    def backward(
        self, gradient: Tensor, plan: BlockPlan, saved: SavedTensors
    ) -> tuple[Tensor, tuple[KeyValue, ...]]:
        """Gradient in the rows of x that vary, and in each group's prefix keys and values.

        From that in the output, which may be overwritten.
        """
        if self.parallel:
            # First, for the gradient is overwritten on its way through the feed-forward layer.
            mixed = self.attention.output.backward(gradient)
            through = self._feed_beside_back(gradient, plan, saved)
        else:
            out = gradient if self.feed_post is None else self.feed_post.backward(gradient, saved)
            through = self.feed_norm.backward(self.feed.backward(out, saved), saved, gradient)
            post = self.attention_post
            mixed = self.attention.output.backward(
                through if post is None else post.backward(through, saved)
            )
        rows, prefixes = self.attention.backward(mixed, plan, saved)
        beside = plan.unasked(through, len(rows))
        return self.attention_norm.backward(rows, saved, beside), prefixes

    def fix(self, x: Tensor, plan: BlockPlan) -> FixedHeads:
        """What of this block, the first, no prompt changes, from the pairs' rows (T, D)."""
        nothing = SavedTensors(keeps=False)
        heads = self.attention.fix(self.attention_norm.forward(x, nothing), plan)
        if not self.parallel:
            return FixedHeads(heads=heads, feed=None)
        kept = x[plan.layout.read_rows] if plan.last else x
        feed = self.feed.forward(self.feed_norm.forward(kept, nothing), nothing, None)
        return FixedHeads(heads=heads, feed=feed)

    def _feed_beside(
        self, kept: Tensor, middle: Tensor, plan: BlockPlan, saved: SavedTensors
    ) -> Tensor:
        """The parallel block's feed-forward layer, which reads the block's own input."""
        front = plan.prompt_rows_asked
        if plan.fixed is None or plan.fixed.feed is None:
            return self.feed.forward(self.feed_norm.forward(kept, saved), saved, middle)
        middle[front:].add_(plan.fixed.feed)
        normed = self.feed_norm.forward(kept[:front], saved)
        middle[:front].add_(self.feed.forward(normed, saved, None))
        return middle

    def _feed_beside_back(self, gradient: Tensor, plan: BlockPlan, saved: SavedTensors) -> Tensor:
        """Gradient in the block's input past the attention."""
        front = gradient if plan.fixed is None else gradient[: plan.prompt_rows_asked]
        return self.feed_norm.backward(self.feed.backward(front, saved), saved, front)
