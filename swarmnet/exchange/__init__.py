"""One gossip meeting of two peers, as state machines without IO, and the thin shell that runs them.

``transport`` is what this package asks of a network (real or simulated); ``membership`` knows who is
alive; ``pair`` is the protocol of one meeting; ``ledger`` remembers what became of meetings;
``window`` decides when to offer, accept, or go alone; ``driver`` joins them to a transport.
"""
