"""Tests of models/fused."""
