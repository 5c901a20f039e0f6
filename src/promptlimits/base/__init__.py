"""What every room stands on: errors, files, exact numbers and outward rounding.

Axis legend, used in every shape that a docstring or a signature gives.

B  problems: prompts trained side by side (restarts, seeds)
K  pairs of a key and a value
T  input tokens of all pairs, packed end to end
R  positions whose next token is scored
P  prompt tokens (m_p in the papers)
L  tokens of the longest pair
D  width of the residual stream (d in the papers)
H  attention heads (h in the papers)
V  vocabulary
"""
