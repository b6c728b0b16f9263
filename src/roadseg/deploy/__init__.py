"""From trained weights to something that runs elsewhere: export, engines, certificates, judging, the bundle.

`run.py` is the deployer's stand-alone script. Everything here that opens a model goes through it, so that what is timed
and judged is, line for line, what a deployer runs.
"""
