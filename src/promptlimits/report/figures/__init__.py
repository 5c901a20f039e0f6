"""One module per figure: `data` computes and is tested, `draw` only draws."""
