"""Privacy attacks: what each party of each mode can learn about a client's examples from what it sees.

By file:

    views.py         the view of a party: single updates, sums over groups, the sum over all; with and without noise
    gradients.py     the gradient of every single example and its inputs to each layer, with which attacks compare views
    inversion.py     the inputs of one step, from the row space of lora_A's change
    membership.py    whether an example was trained on, from its gradient's alignment
    residuals.py     the same, from the part of its hidden embeddings outside of the span of lora_A's change
    canaries.py      many canaries in one run, clients or examples: scores for the one-run audit of privacy/one_run.py
    differencing.py  changes of single clients from the sums of many rounds
    singletons.py    rows of a group's sum that only one client holds
"""
