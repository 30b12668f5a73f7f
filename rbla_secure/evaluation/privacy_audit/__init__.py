"""An audit of a configuration's privacy claims: its own rounds and steps, run on worst-case neighbours.

small_federation.py   the configured federation on a small adapter, round after round
calls.py              its messages' way, and what its secure sum opened
neighbours.py         the pairs of neighbouring federations that apply to it
views.py              what an observer reads off a round
rounds.py             cases of one round
over_rounds.py        cases of rounds that belong together: noise that cancels over them, secret draws
views_over_rounds.py  what an observer makes of several rounds
claims.py             what the product's own ledgers write of the same round
examples.py           the same for single examples: a training step instead of a round
results.py            what is written of it: bounds, and what so many trials could have shown
suite.py              trials, batch by batch, into a folder; bounds and verdicts
"""
