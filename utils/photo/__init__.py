"""Photographs and videos as files: codecs, tags, sound, names of outputs, record of results."""
