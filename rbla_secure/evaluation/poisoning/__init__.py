"""Attacks on the model, each mounted as a client would.

An attack uses the client's data, training, sent change, enrolled rank or claimed weight. Nothing here touches the code
that is attacked.

    registry.py   the attacks by name
    triggers.py   attacks by data: flipped labels, examples with a trigger (patterns: rbla_secure/tasks/triggers.py)
    crafted.py    attacks by the change that is sent, formula by formula
    lora_rows.py  attacks that exist only where adapters have rank rows
    unclipped.py   a client that skips its clip
    adaptive.py   an attack that stays within what the server's rule accepts
    knowledge.py  knowledge of the attackers
    craft.py      the change that each of them sends
    coalition.py  the attackers of one run together, each as a local training
    placement.py  choice of the attackers
"""
