"""The exercises, a folder each, and what their checks share."""
