"""Heads: groups of units that mix among themselves alone."""

from __future__ import annotations

from recurra.errors import ConfigError


def check_heads(who: str, num_heads: int, hidden_size: int) -> None:
    """Raise ConfigError unless num_heads is a positive integer that divides hidden_size."""
    if not isinstance(num_heads, int) or isinstance(num_heads, bool) or num_heads < 1:
        raise ConfigError(
            f"{who}: num_heads is {num_heads!r}, but must be an integer of at least 1."
        )
    if hidden_size % num_heads:
        raise ConfigError(
            f"{who}: num_heads={num_heads} does not divide hidden_size={hidden_size}. Heads have "
            "equal sizes: choose a hidden_size that is a multiple of num_heads."
        )
