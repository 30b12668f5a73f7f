"""What each party of each mode can learn of a client's examples from what it gets to see.

By file:

    views.py         what a party sees: single updates, sums over groups, the sum over all; with and without noise
    gradients.py     the gradient of every single example, and what each layer sees of it: attacks compare views with them
    inversion.py     the inputs of one step, from the row space of lora_A's change
    membership.py    whether an example was trained on, from its gradient's alignment
    residuals.py     the same, from what of its hidden embeddings lies outside of lora_A's change
    canaries.py      many canaries in one run, clients or examples: scores for the one-run audit of privacy/one_run.py
    differencing.py  single clients from many rounds' sums
    singletons.py    rows of a group's sum that one client alone holds
"""
