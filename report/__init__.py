"""A page to open in a browser, made from what lies in an output folder."""
