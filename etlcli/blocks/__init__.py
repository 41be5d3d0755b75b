"""A run that many readers and writers share: the source cut into blocks, each of them taken by one at a time.

    rights      who may work: the job's lease, held by all together, and a block's, held by one
    planning    begins a run in blocks, or takes up one that did not end
    extracting, loading   one call's work on one block
    finishing   what may only be done once every block is in place

Step Functions calls these through ``etlcli.aws``. They share ledger and progress with ``etlcli.pipeline``: a run that
one of them began is finished by the other.
"""
