"""Tests of scripts/speed."""
