"""An audit of a configuration's privacy claims: its own rounds and steps, run on worst-case neighbours.

small_federation.py   the configured federation on a small adapter, round after round
neighbours.py         the pairs of neighbouring federations that apply to it
views.py              what an observer reads off a round
claims.py             what the product's own ledgers write of the same round
examples.py           the same for single examples: a training step instead of a round
suite.py              trials, batch by batch, into a folder; bounds and verdicts
"""
