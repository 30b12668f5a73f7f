"""Attacks on the model, each mounted as a client would.

That is by its data, its training, the change it sends, its enrolled rank or its claimed weight. Nothing here touches the
code that is attacked.

    registry.py   which attacks there are
    triggers.py   attacks by data: flipped labels, examples with a trigger (patterns: rbla_secure/tasks/triggers.py)
    crafted.py    attacks by the change that is sent, formula by formula
    lora_rows.py  attacks that exist only where adapters have rank rows
    unclipped.py   a client that skips its clip
    adaptive.py   an attack that keeps inside what the server's rule accepts
    knowledge.py  what the attackers know
    craft.py      what each of them sends
    coalition.py  the attackers of one run together, each as a local training
    placement.py  who the attackers are
"""
