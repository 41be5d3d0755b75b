"""Whether a table holds what rows make: each row's item, by its key, and by wish nothing else.

verify     a whole table, against the cached rows or the source         chunks    chunk by chunk, as a run puts them
rows       where rows are read, and some taken of them (``sampling``)    comparer  some items at a time
surplus    items that no row has, by the ``known_keys`` of those that have  findings  what came of it
"""
