"""An outer rule's step as tests of laws write it: what is sent, what moves."""

import torch


def sent_by(outer, theta):
    """The contribution of a snapshot, (width, P)."""
    out = theta.new_empty(outer.width(), theta.numel())
    outer.contribution(theta, out)
    if outer.sends_theta:
        assert torch.equal(out[0], theta)
    return out


def solo_move(outer, theta):
    """The displacement of the solo step, (P,)."""
    live = torch.zeros_like(theta)
    outer.solo(theta, live)
    return live
