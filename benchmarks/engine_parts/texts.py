"""Texts of different kinds for one vector: each with a first line that a model does not expect."""

from __future__ import annotations

from typing import Final

LIST: Final = """Stores for the hut, third week of May:
- 2 sacks of oats, one opened
- 14 candles (the short ones)
- rope, 30 metres, frayed at one end
- salt, pepper, no mustard
- 6 tins of plums and 1 of unknown fruit
- lamp oil: half a can
- 40 nails, mostly bent
- a kettle without its lid
- blankets for four, moths in two
- the grey ledger, pages 9 to 61
- matches, damp; dry them on Sunday
- bread for three days
- 5 postcards, no stamps
- one good knife
"""

DIALOGUE: Final = """"You moved the ladder."
"I did not. I moved the paint."
"Then who moved the ladder?"
"Ask Ruben. He was up here before breakfast with a bucket and that dog."
"Ruben is afraid of ladders."
"So is the dog, and neither of them was using it. They carried it down to the pond."
"What for?"
"A bridge, he said, for the ducks."
"Ducks can swim."
"I told him. He said these ones were tired."
She put down her brush and looked out of the window. "Well," she said, "are they using it?"
"All but the white one."
"""

PROSE: Final = """Nobody in Harrow Lane could say when the clock over the bakery had begun to run
backwards. The baker's widow, who wound it every Friday with a key the length of her forearm, held
that it had done so since the flood; the schoolmaster, who was paid to be exact, put it down to the
winter in which the tram was given up. What everyone agreed on was that it kept excellent time. One
had only to subtract. Strangers missed their trains and were told, kindly, that they would have
caught them the day before, and children learned arithmetic from it earlier than anywhere else in
the county.
""".replace("\n", " ").strip()

CODE: Final = '''def merge_tides(readings, gap=17):
    """Join runs of gauge readings that lie less than `gap` minutes apart."""
    runs = []
    for minute, level in sorted(readings):
        if runs and minute - runs[-1]["end"] < gap:
            run = runs[-1]
            run["end"] = minute
            run["peak"] = max(run["peak"], level)
            run["count"] += 1
        else:
            runs.append({"start": minute, "end": minute, "peak": level, "count": 1})
    return [run for run in runs if run["count"] > 3 and run["peak"] > 0.25]
'''

POEM: Final = """The heron keeps a ledger of the tide:
so many silver debts, so many paid.
He does not ask what else the reeds may hide,
nor count the hours he has stood and stayed.

The mud remembers every foot he set,
and lets it go before the moon is through.
I had a name for water, I forget;
it had a name for me, and that one grew.

Come, evening, close the shop along the shore,
turn down the gulls, put shutters on the bay.
There is one fish he has been waiting for.
It learned his shadow, and it swims away.
"""

TEXTS: Final = {
    "list": LIST,
    "dialogue": DIALOGUE,
    "prose": PROSE,
    "code": CODE,
    "poem": POEM,
}
"""Written for this benchmark, so that no model can know them by heart."""
