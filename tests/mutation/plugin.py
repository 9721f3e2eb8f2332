"""Hypothesis' profile for mutants: the same few examples for each, and no shrinking."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

settings.register_profile(
    "mutation",
    deadline=None,
    max_examples=int(os.environ.get("MUTATION_EXAMPLES", "30")),
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
