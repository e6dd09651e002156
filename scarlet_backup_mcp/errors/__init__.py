"""Everything that can go wrong, as one tree (its codes are in docs/errors.md).

Each class has a stable `code` that an agent can branch on, a sentence on what happened, and a remedy: what to do, in
words, and where a call would help that call as data. Words never spell a call; each face does that in its own terms.
Messages never hold a secret.
"""

from .backups import *  # noqa: F403
from .base import *  # noqa: F403
from .connections import *  # noqa: F403
from .places import *  # noqa: F403
from .restores import *  # noqa: F403
