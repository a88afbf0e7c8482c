"""Tiers: objects by name in one place, written durably."""
