"""Photographs and videos of cameras: read and written with all that the files say."""
