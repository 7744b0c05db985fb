"""What all sharings refuse."""

from __future__ import annotations

from swarmnet.errors import DataError
from swarmnet.sharing import Ground


def checked(ground: Ground) -> Ground:
    """Raises DataError when the text holds not even one window and the token that follows."""
    if ground.tokens <= ground.length:
        raise DataError(f"the text has {ground.tokens} tokens; a window needs {ground.length + 1}")
    return ground
