"""HTML and text made of values: the report of a model, and how objects show themselves.

Nothing here reads rows. Whatever is text of the data is escaped where it becomes markup.
"""
