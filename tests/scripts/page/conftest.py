"""Tests of the web page need what draws it: the extra [report]."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("bokeh") else ["test_*.py"]
