"""The report that can be sent: one HTML page, the same in Markdown, and its pictures.

``app`` is the command, ``collection`` puts runs in order, ``history`` and ``events`` read what they left, ``bands``
goes from runs to methods, ``contents`` with its sections ``teacher`` and ``costs``, ``tabulating`` and ``curves``
decide what is said and drawn, ``drawing`` draws, ``page`` and ``plain`` write.
"""
