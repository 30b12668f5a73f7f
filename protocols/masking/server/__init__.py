"""The server of the masking protocol: one class per stage, each closing into the next (Bonawitz et al. 2017, fig. 4).

    AdvertiseKeys -> ShareKeys -> MaskInput [-> AgreeSurvivors] -> RevealShares -> Opening
       keys.py        keys.py   masked_input.py  survivors.py       reveal.py     opening.py

Uploads are added to one accumulator per segment as they arrive, so memory does not grow with the number of clients.
A reply is checked whole before any of it counts: whoever sent it has answered, or has not. What every client would
refuse is refused here first, so that it costs its sender the round and nobody else. Who dealt what, and whose shares turn
out wrong, is kept in tracing.py: such shares are left out, and whoever is at fault is named in the result.
"""
