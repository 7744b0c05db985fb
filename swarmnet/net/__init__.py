"""The network: the only folder that imports hivemind, whose DHT and libp2p daemon it stands on.

    engine      the one import of hivemind, with its logging and warnings undone
    identity    an Ed25519 key file; a peer id holds the public key
    folder      the private folder of a node's sockets
    daemon      the libp2p daemon as a child process
    control     requests to the daemon: connect, open a stream, route a topic to us
    stream      frames over one stream, with deadlines on progress
    serving     streams that others open to us: one task each, bounded in number
    records     what a signed record is, and the rule by which nodes store and believe it
    directory   the DHT: publish and look up records
    skew        how far our clock is from those of the others, from their records
    addressbook whom we met, kept in the peer's folder
    contacts    whom we know and where they listen
    absences    who is missing, and when to try again
    paths       direct, or through which relay
    neighbours  the connections of a node: the first ones, and those that were lost
    dialback    can others open connections to us?
    hello       same run, same wire?
    node        all of the above as one ``Transport`` that outlives its daemon
    phonebook   our status out, everybody's in, and the owner's orders
    transfer    large things in hashed chunks, between two
    fetching    which chunk to ask of which donor: pure
    download    one state from several donors at once
    pacing      how fast to give while training: pure
    thread      the loop and the thread in which all of it runs

Failures of the network are LinkError, acts of a partner PeerFault; no other exception leaves.
"""
