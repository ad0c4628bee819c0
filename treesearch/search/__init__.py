"""The search: what proposes trees, what evaluates them, and where both write what they did."""
