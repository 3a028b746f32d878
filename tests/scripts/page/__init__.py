"""Tests of the web page of a report."""
