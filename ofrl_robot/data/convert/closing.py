"""Close a half-opened file when the rest of its opening fails."""

from __future__ import annotations

import contextlib
from typing import Any, Iterator


@contextlib.contextmanager
def close_on_error(resource: Any) -> Iterator[None]:
    """Close ``resource`` if the block raises anything, Ctrl-C included, and raise on."""
    try:
        yield
    except BaseException:
        resource.close()
        raise
