"""The results as one self-contained web page: what stands on it, and where that comes from. Drawn by Bokeh."""
