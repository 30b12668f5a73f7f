"""An audit of a configuration's privacy claims: its own rounds and steps, run on worst-case neighbours.

small_federation.py   the configured federation on a small adapter, round after round
calls.py              its transport by function calls, and the sums that it opened
neighbours.py         the pairs of neighbouring federations that apply to it
views.py              scores of a canary by each observer of a round
rounds.py             cases of one round
over_rounds.py        cases of rounds that belong together: noise that cancels over them, secret draws
views_over_rounds.py  scores of a canary over several rounds
claims.py             the epsilon in the product's own ledgers after the same rounds
examples.py           the same for single examples: a training step instead of a round
results.py            the records it writes: bounds, and the largest that its trials could have shown
suite.py              trials, batch by batch, into a folder; bounds and verdicts
"""
