"""One gossip meeting of two peers: state machines without IO, and the thin shell around them.

``transport`` is what this package asks of a network; ``membership`` knows who is alive; ``pair`` is
the protocol of one meeting; ``ledger`` remembers what became of meetings; ``window`` decides when
to offer, accept, or go alone; ``desk`` is where the training thread and the exchange meet;
``session`` runs one meeting; ``questions`` clears up what was left open; ``driver`` joins them;
``consensus`` is the end of a run.

Meetings of more than two: ``group`` has the rules and the leader's machine, ``member`` that of a
seat, ``gather`` the call before it; ``voice``, ``attend`` and ``leading`` are their streams,
``circle`` joins them for one peer, and ``grouphost`` says what they mean to its weights.
"""
