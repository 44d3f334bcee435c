"""Training of the embedded model: teacher traces to ids, the optimizer, the run, what comes out of it.

Needs torch; nothing outside this folder imports it. `python -m motet.train.mini` is the way in.
"""
