"""How long things may take around an arm, in seconds."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Timing:
    """Deadlines of the control loop. Loaded from ``config/robots/*.yaml``; unit: s.

    Attributes:
        max_silence: without a usable action, then the arm stops.
        action_latency: from the stamp of a tick to its action leaving for the arm. The same when
            collecting and when deploying, so that data and deployment agree. An answer that comes
            later leaves at once and is marked late. Lockstep has none.
        max_state_age: age of the measured state above which the arm stops.
        max_call: duration of one call of the driver above which the arm stops.
        max_recorder_silence: without a heartbeat of the recorder, then the arm stops.
    """

    max_silence: float
    action_latency: float = 0.02
    max_state_age: float = 0.25
    max_call: float = 0.5
    max_recorder_silence: float = 1.0
